/** Kinds of option value that several rows share. */

import { z } from 'zod';
import { fromBase64Url } from '../../protocol/crypto.ts';
import { isKeyId, isRequestId, type KeyId, type RequestId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { dayMs, type Ms, ms, type UnixMs } from '../../protocol/units.ts';

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

/** A day, a month, or a moment of ISO 8601 by UTC: when it begins and when it is over. */
function timesOf(text: string): { readonly fromMs: number; readonly toMs: number } | undefined {
  const [, year = '', month = '', day] = /^(\d{4})-(\d{2})(?:-(\d{2}))?$/.exec(text) ?? [];
  const isMoment = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?Z$/.test(text);
  const iso = isMoment ? text : `${year}-${month}-${day ?? '01'}T00:00Z`;
  const fromMs = Date.parse(iso);
  // What no calendar has, such as the 31st of April, is read as a day of the next month, or not at all.
  const isReal = Number.isFinite(fromMs) && fromMs >= 0 && new Date(fromMs).toISOString().startsWith(iso.slice(0, 10));
  if (!isReal) return undefined;
  if (isMoment) return { fromMs, toMs: fromMs };
  return { fromMs, toMs: day === undefined ? Date.UTC(Number(year), Number(month), 1) : fromMs + dayMs };
}

/** A moment: a UTC day (from its beginning), or a time of ISO 8601. */
export const moment = z
  .string()
  .transform((text) => timesOf(text)?.fromMs)
  .refine((value) => value !== undefined)
  .transform((value) => value as UnixMs);
export const momentText = 'a day such as 2026-11-01, or a moment such as 2026-11-01T12:00Z';

/** A time back from now, or a day or month by its name. */
export type Span = { readonly agoMs: number } | { readonly fromMs: number; readonly toMs: number };

export const span = z
  .string()
  .transform((text): Span | undefined => (/^\d{1,5}[hd]$/.test(text) ? { agoMs: msOf(text) } : timesOf(text)))
  .refine((value) => value !== undefined)
  .transform((value) => value as Span);
export const spanText = 'a time back such as 7d or 12h, a day such as 2026-11-01, or a month such as 2026-11';

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

const answerPrefix = 'chatcmpl-';
/** The id of a request, also as the id of its answer has it. */
export const requestId = z
  .string()
  .transform((text) => (text.startsWith(answerPrefix) ? text.slice(answerPrefix.length) : text))
  .refine(isRequestId)
  .transform((text) => text as RequestId);
export const requestIdText = 'the id of a request (32 hex characters), or of its answer (chatcmpl-…)';
