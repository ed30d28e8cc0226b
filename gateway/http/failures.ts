/** How often an address may come with a key that is none, before it must wait. */

import { isIPv6 } from 'node:net';
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
  /** @throws HelixFlowError RATE_LIMITED */
  admit(address: string): void;
  failed(address: string): void;
}

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
    admit: (address) => {
      const window = open(sourceOf(address));
      if (window === undefined || window.failures < failuresMax) return;
      const retryAfterMs = Math.ceil(window.untilMs - clock.nowMs());
      const unit = `wrong keys in ${windowMs / 1_000} s`;
      throw new HelixFlowError('RATE_LIMITED', { limit: failuresMax, unit, scope: 'address', retryAfterMs });
    },
    failed: (address) => {
      const source = sourceOf(address);
      const window = open(source) ?? { untilMs: clock.nowMs() + windowMs, failures: 0 };
      windows.set(source, { ...window, failures: window.failures + 1 });
    },
  };
}
