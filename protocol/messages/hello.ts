/** The frames of `/helixflow/hello/1`: who each side is, and what two sides agree on. */

import { decodeValue, encodeValue, type Value } from '../codec.ts';
import { fromHex, toHex } from '../crypto.ts';
import { type ErrorCode, HelixFlowError, isErrorCode } from '../errors.ts';
import type { Credentials } from '../grants.ts';
import type { ProcessId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { RootToken } from '../peer/roots.ts';
import { Reader } from '../reader.ts';

/** Runs on every new connection, both ways, before anything else (design §4). */
export const HELLO_PROTOCOL = '/helixflow/hello/1';

/** Versions of everything behind the hello, oldest and newest. */
export interface VersionRange {
  readonly min: number;
  readonly max: number;
}

/** What this version of the code speaks. */
export const ourVersions: VersionRange = { min: 2, max: 2 };

/** Limits that both sides of a connection keep to: each offers its own, the smaller value counts. */
export const sharedLimits = [
  'frameMaxBytes',
  'bodyChunkBytes',
  'requestBodyMaxBytes',
  'sessionBodyMaxBytes',
  'sessionAttemptsMax',
  'creditInitialBytes',
  'deltaTextMaxBytes',
  'deltaTokensMax',
  'offerModelsMax',
  'loadPerSecondMax',
] as const;

/** One value for each of them. */
export type SharedLimits = { readonly [Name in (typeof sharedLimits)[number]]: number };

/** First frame of each side, sent at once. */
export interface Hello {
  readonly type: 'hello';
  readonly versions: VersionRange;
  readonly process: ProcessId;
  readonly credentials: Credentials;
  /** Names of optional parts of the wire that this side knows. */
  readonly features: readonly string[];
  /** May lack some that a newer version added, and name others. */
  readonly limits: ReadonlyMap<string, number>;
  /** Where this side can be dialled, as it believes; multiaddrs without the peer id. */
  readonly addresses: readonly string[];
  /** Issuers taken back and freezes lifted, as far as there is room (`addRoots`); nothing of an older peer. */
  readonly roots: readonly RootToken[];
}
/** Second and last frame: the other side is a member, and everything it opens is answered. */
export interface Accept {
  readonly type: 'accept';
}
/** Instead of `accept`; the connection closes. */
export interface Refuse {
  readonly type: 'refuse';
  readonly code: ErrorCode;
  /** For the people who look after the other side; nothing secret. */
  readonly reason: string;
}

/** Everything that is said there: a hello, then an answer to the other side's. */
export type HelloFrame = Hello | Accept | Refuse;

const number = { hello: 0, accept: 1, refuse: 2 } as const;
/** The least that a side may offer where we offer `value`. */
export const leastOf = (value: number): number => Math.ceil(value / 64);

/** Of the root's tokens a hello carries those that change who is judged how. */
const rootKinds = ['revocation', 'lift'] as const;
const rootsMax = 64;
/** Heads of an array, a number and a text, at their longest. */
const headsMaxBytes = 12;
const featuresMax = 64;
const limitsOfferedMax = 64;
const nameMaxChars = 64;
const reasonMaxChars = 256;

/** The bytes of a frame. */
export function encodeHelloFrame(frame: HelloFrame): Uint8Array {
  switch (frame.type) {
    case 'hello':
      return encodeValue([
        number.hello,
        frame.versions.min,
        frame.versions.max,
        fromHex(frame.process),
        frame.credentials.rootPublicKey,
        frame.credentials.certificate,
        frame.credentials.membership,
        frame.features,
        [...frame.limits],
        frame.addresses,
        frame.roots.map(({ kind, token }) => [rootKinds.indexOf(kind as 'lift'), token]),
      ]);
    case 'accept':
      return encodeValue([number.accept]);
    case 'refuse':
      return encodeValue([number.refuse, frame.code, frame.reason.slice(0, reasonMaxChars)]);
  }
}

/** Reads a list's item as the only position of a message of its own. */
const item = (value: Value, what: string): Reader => new Reader([value], what);

function readLimit(value: Value): readonly [string, number] {
  const reader = new Reader(value, 'limit');
  return [reader.text(nameMaxChars), reader.int(Number.MAX_SAFE_INTEGER, 1)];
}

/** Undefined for a kind that this version does not know. */
function readRoot(value: Value): RootToken | undefined {
  const reader = new Reader(value, 'root');
  const kind = rootKinds[reader.int(255)];
  const token = reader.text(limits.tokenMaxChars);
  return kind && { kind, token };
}

/** The revocations of `said`, then its lifts, in their order, as many as a hello has room for. */
export function addRoots(hello: Hello, said: readonly RootToken[]): Hello {
  const bare = { ...hello, roots: [] };
  let left = limits.helloMaxBytes - encodeHelloFrame(bare).length - headsMaxBytes;
  const roots: RootToken[] = [];
  for (const kind of rootKinds) {
    for (const root of said) {
      if (root.kind !== kind || roots.length === rootsMax) continue;
      left -= root.token.length + headsMaxBytes;
      if (left < 0) return { ...hello, roots };
      roots.push(root);
    }
  }
  return { ...hello, roots };
}

function readHello(reader: Reader): Hello {
  const min = reader.int(65_535, 1);
  const max = reader.int(65_535, min);
  return {
    type: 'hello',
    versions: { min, max },
    process: toHex(reader.bytes(16, 16)) as ProcessId,
    credentials: {
      rootPublicKey: reader.bytes(32, 32).slice(),
      certificate: reader.text(limits.tokenMaxChars),
      membership: reader.text(limits.tokenMaxChars),
    },
    features: reader.list(featuresMax, (value) => item(value, 'feature').text(nameMaxChars)),
    limits: new Map(reader.list(limitsOfferedMax, readLimit)),
    addresses: reader.list(limits.peerAddressesMax, (value) => item(value, 'address').text(limits.addressMaxChars)),
    roots: reader.hasMore ? reader.list(rootsMax, readRoot).filter((root) => root !== undefined) : [],
  };
}

/** `text` without anything that a terminal would obey: what a stranger wrote ends up in logs and on screens. */
export const printable = (text: string): string => text.replaceAll(/[^\x20-\x7e]/g, '?');

/**
 * Reads one frame. Positions after the known ones are ignored, so that a later version may append some.
 * @returns undefined for a frame type that this version does not know.
 * @throws HelixFlowError FRAME_MALFORMED
 */
export function parseHelloFrame(bytes: Uint8Array): HelloFrame | undefined {
  const reader = new Reader(decodeValue(bytes), 'hello');
  switch (reader.int(255)) {
    case number.hello:
      return readHello(reader);
    case number.accept:
      return { type: 'accept' };
    case number.refuse: {
      const code = reader.text(64);
      return {
        type: 'refuse',
        code: isErrorCode(code) ? code : 'HELLO_REFUSED',
        reason: printable(reader.text(reasonMaxChars)),
      };
    }
    default:
      return undefined;
  }
}

/**
 * The newest version that both speak.
 * @throws HelixFlowError VERSION_UNSUPPORTED when there is none; both sides come to the same result.
 */
export function agreeVersion(ours: VersionRange, theirs: VersionRange): number {
  const version = Math.min(ours.max, theirs.max);
  if (version >= Math.max(ours.min, theirs.min)) return version;
  throw new HelixFlowError('VERSION_UNSUPPORTED', { ...theirs, ourMin: ours.min, ourMax: ours.max });
}

/**
 * The smaller value of each limit; ours where the other side names none.
 * @throws HelixFlowError PROTOCOL_VIOLATION for a value so small that it would stall instead of limit.
 */
export function agreeLimits(ours: SharedLimits, theirs: ReadonlyMap<string, number>): SharedLimits {
  const agreed = sharedLimits.map((name) => {
    const value = theirs.get(name) ?? ours[name];
    if (value < leastOf(ours[name])) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: `${name} of ${value} is too small to work with` });
    }
    return [name, Math.min(ours[name], value)];
  });
  return Object.fromEntries(agreed) as SharedLimits;
}

/** Our own offer, out of the table. */
export const ourLimits: SharedLimits = Object.fromEntries(
  sharedLimits.map((name) => [name, limits[name]]),
) as SharedLimits;
