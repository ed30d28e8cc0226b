/** The signed advert of a peer: who it is, where it is, what it serves; kept in the directory by peers that trust none of it. */

import { decodeValue, encodeValue, type Value } from '../codec.ts';
import { fromHex, isSameBytes, signBytes, toHex, verifyBytes } from '../crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../errors.ts';
import type { Role } from '../grants.ts';
import type { MeshId, ModelDigest, PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import { peerIdOf } from '../peer/identity.ts';
import type { SigningKey } from '../ports.ts';
import { Reader } from '../reader.ts';
import { type UnixMs, unixMs } from '../units.ts';

/** A model as an advert names it. */
export interface AdvertModel {
  readonly name: string;
  readonly digest: ModelDigest;
}

/** What a peer says of itself. A hint: the session says what is true now. */
export interface Advert {
  readonly meshId: MeshId;
  readonly peer: PeerId;
  readonly role: Role;
  /** Grows with every advert of a peer, across restarts too; two adverts of one number are a fork. */
  readonly sequence: number;
  readonly issuedMs: UnixMs;
  /** At most `limits.advertTtlMs` after `issuedMs`. */
  readonly expiresMs: UnixMs;
  /** At most `limits.peerAddressesMax`; to be filtered by whoever dials them. */
  readonly addresses: readonly string[];
  /** At most `limits.offerModelsMax`. */
  readonly models: readonly AdvertModel[];
}

/** What an advert must fit. */
export interface AdvertChecking {
  readonly meshId: MeshId;
  readonly nowMs: UnixMs;
}

const SIGNING_DOMAIN = 'helixflow/advert/1';
const roles: readonly Role[] = ['node', 'gateway'];
const signatureBytes = 64;

const invalid = (reason: string, cause?: unknown): HelixFlowError<'ADVERT_INVALID'> =>
  new HelixFlowError('ADVERT_INVALID', { reason }, { cause });

/**
 * The bytes of `advert`: its fields and the signature of the peer's own key over them.
 * @throws HelixFlowError ADVERT_INVALID when it is larger than `limits.advertMaxBytes`, or `key` is not the peer's.
 */
export function encodeAdvert(advert: Advert, key: SigningKey): Uint8Array {
  if (peerIdOf(key.publicKey) !== advert.peer) throw invalid('not signed by its peer');
  const body = encodeValue([
    fromHex(advert.meshId),
    key.publicKey,
    roles.indexOf(advert.role),
    advert.sequence,
    advert.issuedMs,
    advert.expiresMs,
    advert.addresses,
    advert.models.map(({ name, digest }): Value => [name, fromHex(digest)]),
  ]);
  const bytes = encodeValue([body, signBytes(SIGNING_DOMAIN, body, key)]);
  if (bytes.length > limits.advertMaxBytes) throw invalid(`larger than ${limits.advertMaxBytes} bytes`);
  return bytes;
}

function readText(value: Value): string {
  if (typeof value !== 'string' || value.length > limits.addressMaxChars) throw invalid('not an address');
  return value;
}

function readModel(value: Value): AdvertModel {
  const reader = new Reader(value, 'model');
  return { name: reader.text(limits.modelNameMaxChars), digest: toHex(reader.bytes(32, 32)) as ModelDigest };
}

/** Reads fields and signature, and checks that they belong together; time and mesh are not judged. */
function readAdvert(bytes: Uint8Array): Advert {
  if (bytes.length > limits.advertMaxBytes) throw invalid(`larger than ${limits.advertMaxBytes} bytes`);
  const envelope = new Reader(decodeValue(bytes), 'advert');
  const body = envelope.bytes(limits.advertMaxBytes);
  const signature = envelope.bytes(signatureBytes, signatureBytes);
  const reader = new Reader(decodeValue(body), 'advert');
  const meshId = toHex(reader.bytes(32, 32)) as MeshId;
  const publicKey = reader.bytes(32, 32);
  if (!verifyBytes(SIGNING_DOMAIN, body, signature, publicKey)) throw invalid('not signed by its peer');
  return {
    meshId,
    peer: peerIdOf(publicKey),
    role: roles[reader.int(roles.length - 1)] as Role,
    sequence: reader.int(),
    issuedMs: unixMs(reader.int()),
    expiresMs: unixMs(reader.int()),
    addresses: reader.list(limits.peerAddressesMax, readText),
    models: reader.list(limits.offerModelsMax, readModel),
  };
}

/**
 * Reads an advert and checks all that can be checked without knowing others of the peer.
 * @throws HelixFlowError ADVERT_INVALID
 */
export function parseAdvert(bytes: Uint8Array, checking: AdvertChecking): Advert {
  let advert: Advert;
  try {
    advert = readAdvert(bytes);
  } catch (error) {
    if (isHelixFlowError(error, 'FRAME_MALFORMED')) throw invalid(error.details.reason, error);
    throw error;
  }
  const { issuedMs, expiresMs } = advert;
  if (advert.meshId !== checking.meshId) throw invalid('of another mesh');
  if (issuedMs > checking.nowMs + limits.clockSkewMaxMs) throw invalid('from the future');
  if (expiresMs <= checking.nowMs) throw invalid('expired');
  if (expiresMs < issuedMs || expiresMs - issuedMs > limits.advertTtlMs) throw invalid('valid for too long');
  return advert;
}

/** The sequence number alone, of bytes that `parseAdvert` took. */
function sequenceOf(bytes: Uint8Array): number {
  const body = new Reader(decodeValue(bytes), 'advert').bytes(limits.advertMaxBytes);
  const reader = new Reader(decodeValue(body), 'advert');
  reader.bytes(32);
  reader.bytes(32);
  reader.int();
  return reader.int();
}

/** How an advert stands to the newest known one of the same peer; `fork`: the same number on other bytes. */
export type AdvertOrder = 'newer' | 'same' | 'older' | 'fork';

/** Compares two adverts of one peer, both of which `parseAdvert` took at some time. */
export function judgeAdvert(known: Uint8Array | undefined, incoming: Uint8Array): AdvertOrder {
  if (known === undefined) return 'newer';
  const difference = sequenceOf(incoming) - sequenceOf(known);
  if (difference !== 0) return difference > 0 ? 'newer' : 'older';
  return isSameBytes(known, incoming) ? 'same' : 'fork';
}
