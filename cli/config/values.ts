/** Kinds of option value that several rows share. */

import { z } from 'zod';
import { fromBase64Url } from '../../protocol/crypto.ts';
import { isKeyId, type KeyId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { type Ms, ms } from '../../protocol/units.ts';

const unitMs = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A duration's bounds: `90s`, `15m`, `24h` or `30d`, the shortest one second unless it says otherwise. */
interface DurationRange {
  readonly min?: '0s' | '1s' | '1m' | '2m';
}

const msOf = (text: string): Ms => ms(Number(text.slice(0, -1)) * unitMs[text.at(-1) as keyof typeof unitMs]);

/** `90s`, `15m`, `24h`, `30d` as milliseconds, from `min` to `maxDays`. */
export const duration = (maxDays: number, { min = '1s' }: DurationRange = {}): z.ZodType<Ms, string> =>
  z
    .string()
    .regex(/^\d{1,6}[smhd]$/)
    .transform(msOf)
    .refine((value) => value >= msOf(min) && value <= maxDays * unitMs.d);

/** What a duration looks like. */
export const durationText = (maxDays: number, { min = '1s' }: DurationRange = {}): string =>
  `a duration such as 90s, 15m, 24h or 30d, from ${min} to ${maxDays}d`;

/** A name or address to listen on. */
export const host = z.string().regex(/^([A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]+)?)$/);
export const hostText = 'a host name or an IP address';

/** An address to listen on for other peers, who know no names. */
export const ip = z.union([z.ipv4(), z.ipv6()]);

/** A TCP port; 0 takes any free one. */
export const port = z.int().min(0).max(65_535);

/** `host:port`, with an IPv6 address in brackets. */
export const listen = z
  .string()
  .regex(/^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):\d{1,5}$/)
  .transform((text) => {
    const at = text.lastIndexOf(':');
    return { host: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) };
  })
  .refine((value) => value.port <= 65_535);
export const listenText = 'an address and a port, such as 127.0.0.1:9464';

/** Where a peer listens, without its id. */
export const announced = z
  .string()
  .max(limits.addressMaxChars)
  .regex(/^\/ip[46]\/[0-9A-Fa-f:.]+\/tcp\/\d{1,5}$/);
/** A peer, and where it listens. */
export const multiaddr = z
  .string()
  .max(limits.addressMaxChars + 80)
  .regex(/^\/ip[46]\/[0-9A-Fa-f:.]+\/tcp\/\d{1,5}\/p2p\/[1-9A-HJ-NP-Za-km-z]{8,64}$/);

/** A name for people and for logs: 1 to 64 characters of one line. */
export const label = z.string().regex(/^[\p{L}\p{N}][\p{L}\p{N} ._-]{0,63}$/u);
export const labelText = '1 to 64 letters, digits, spaces, dots, dashes or underscores';

/** Who answers for a peer. */
export const owner = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/);
export const ownerText = '1 to 64 letters, digits, dots, dashes or underscores';

/** Where an OpenAI-compatible server answers. */
export const httpUrl = z.url({ protocol: /^https?$/ });
export const httpUrlText = 'a URL such as http://127.0.0.1:11434/v1';

/** A line of the audit log, as `audit verify` prints its newest. */
export const lineAnchor = z
  .string()
  .regex(/^\d{1,15}:[0-9a-f]{64}$/)
  .transform((text) => {
    const [number = '', hash = ''] = text.split(':');
    return { number: Number(number), hash };
  });
export const lineAnchorText = 'a number and 64 hex characters, such as audit verify prints';

/** The id that a whole key carries, `text` itself when it is none; nobody checks here who signed it. */
function keyIdIn(text: string): unknown {
  const [, payload] = /^sk-hx-[\w-]+\.([\w-]+)\.[\w-]+$/.exec(text.trim()) ?? [];
  if (payload === undefined) return text;
  try {
    return (JSON.parse(new TextDecoder().decode(fromBase64Url(payload))) as { sub?: unknown } | null)?.sub;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return undefined;
  }
}

/** Which key: its id, or the whole key, for whoever has nothing else of it. */
export const keyId = z
  .string()
  .max(limits.tokenMaxChars)
  .transform(keyIdIn)
  .refine(isKeyId)
  .transform((value) => value as KeyId);
export const keyIdText = 'a key id, which is 16 hex characters, or the whole key';
