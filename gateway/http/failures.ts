/** How often an address may come with a key that is none, before it must wait. */

import { isIPv6 } from 'node:net';
import type { FastifyRequest } from 'fastify';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { Clock } from '../../protocol/ports.ts';
import { Memory } from '../../protocol/tables.ts';
import type { Ms } from '../../protocol/units.ts';

export interface FailureLimits {
  /** Failures of one address within `windowMs` after which it is told to wait for the rest of it. */
  readonly failuresMax: number;
  readonly windowMs: Ms;
  /** Addresses remembered; beyond them those are forgotten that failed longest ago. */
  readonly addressesMax: number;
}

interface Window {
  readonly untilMs: number;
  readonly failures: number;
}

export interface Failures {
  /** That it must wait, where it must. */
  refusal(address: string): HelixFlowError<'RATE_LIMITED'> | undefined;
  failed(address: string): void;
}

/** Of the connection: headers that proxies add are anybody's to write. */
export const addressOf = (request: FastifyRequest): string => request.raw.socket.remoteAddress ?? '';

/** One IPv6 host has a whole /64 to itself, so that counts as one address. */
function sourceOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined || !isIPv6(address)) return mapped ?? address;
  const [front = '', back] = (address.split('%', 1)[0] ?? '').split('::');
  const groups = front === '' ? [] : front.split(':');
  const tail = back === undefined || back === '' ? [] : back.split(':');
  const zeros = back === undefined ? 0 : 8 - groups.length - tail.length;
  return [...groups, ...Array<string>(zeros).fill('0'), ...tail].slice(0, 4).join(':').toLowerCase();
}

/** Addresses stay in this table, in memory; no log gets them from here. */
export function createFailures(clock: Clock, limits: FailureLimits): Failures {
  const { failuresMax, windowMs, addressesMax } = limits;
  const windows = new Memory<Window>(addressesMax);
  const open = (source: string): Window | undefined => {
    const window = windows.get(source);
    return window !== undefined && clock.nowMs() < window.untilMs ? window : undefined;
  };
  return {
    refusal: (address) => {
      const window = open(sourceOf(address));
      if (window === undefined || window.failures < failuresMax) return undefined;
      const retryAfterMs = Math.ceil(window.untilMs - clock.nowMs());
      const unit = `wrong keys in ${windowMs / 1_000} s`;
      return new HelixFlowError('RATE_LIMITED', { limit: failuresMax, unit, scope: 'address', retryAfterMs });
    },
    failed: (address) => {
      const source = sourceOf(address);
      const window = open(source) ?? { untilMs: clock.nowMs() + windowMs, failures: 0 };
      windows.set(source, { ...window, failures: window.failures + 1 });
    },
  };
}
