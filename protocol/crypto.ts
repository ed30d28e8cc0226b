/** Hashing and Ed25519, synchronous: the results come in program order, so that the simulator stays deterministic. */

import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  hash,
  type KeyObject,
  scryptSync,
  sign,
  verify,
} from 'node:crypto';
import type { SigningKey } from './ports.ts';

const privatePrefix = Buffer.from('302e020100300506032b657004220420', 'hex');
const publicPrefix = Buffer.from('302a300506032b6570032100', 'hex');

/** 32 bytes. */
export const sha256 = (...parts: readonly (Uint8Array | string)[]): Uint8Array => {
  const digest = createHash('sha256');
  for (const part of parts) digest.update(part);
  return new Uint8Array(digest.digest());
};

/** 64 lower-case hex characters. */
export const sha256Hex = (...parts: readonly (Uint8Array | string)[]): string => {
  const [only] = parts;
  // The one-shot call costs a third of a hash object; a key's look-up is mostly this.
  return parts.length === 1 && only !== undefined ? hash('sha256', only, 'hex') : toHex(sha256(...parts));
};

const hmacBlockBytes = 64;

const hmacPad = (key: Uint8Array, byte: number): Uint8Array => {
  const pad = new Uint8Array(hmacBlockBytes).fill(byte);
  for (const [at, value] of key.entries()) pad[at] = value ^ byte;
  return pad;
};

/** 32 bytes: HMAC-SHA256 (RFC 2104) over the parts, one after the other. */
export function hmacSha256(key: Uint8Array, ...parts: readonly (Uint8Array | string)[]): Uint8Array {
  const short = key.length > hmacBlockBytes ? sha256(key) : key;
  const text = parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part));
  // Two one-shot hashes take a fifth of the time of an HMAC object; whoever reads usage makes many tags.
  const inner = hash('sha256', Buffer.concat([hmacPad(short, 0x36), ...text]), 'buffer');
  return new Uint8Array(hash('sha256', Buffer.concat([hmacPad(short, 0x5c), inner]), 'buffer'));
}

/** Ids and tags are no longer; for them a loop takes a third of the time of the calls below. */
const shortBytes = 32;
const hexDigits = Buffer.from('0123456789abcdef');
const hexText = Buffer.alloc(2 * shortBytes);
/** By character; -1 for one that is no digit. */
const hexValues = new Int8Array(256).fill(-1);
for (const [value, digit] of hexDigits.entries()) {
  hexValues[digit] = value;
  hexValues[String.fromCharCode(digit).toUpperCase().charCodeAt(0)] = value;
}

/** Lower-case hex, two characters a byte; of a part, where one is named. */
export function toHex(bytes: Uint8Array, start = 0, end: number = bytes.length): string {
  if (end - start > shortBytes) return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('hex');
  let at = 0;
  for (let index = start; index < end; index += 1) {
    const byte = bytes[index] ?? 0;
    hexText[at++] = hexDigits[byte >> 4] ?? 0;
    hexText[at++] = hexDigits[byte & 15] ?? 0;
  }
  return hexText.toString('latin1', 0, at);
}

/** The bytes behind lower-case hex, up to the first character that is none. */
export function fromHex(hex: string): Uint8Array {
  if (hex.length > 2 * shortBytes) return new Uint8Array(Buffer.from(hex, 'hex'));
  const bytes = new Uint8Array(hex.length >> 1);
  for (let index = 0; index < bytes.length; index += 1) {
    const high = hexValues[hex.charCodeAt(2 * index)] ?? -1;
    const low = hexValues[hex.charCodeAt(2 * index + 1)] ?? -1;
    if (high < 0 || low < 0) return bytes.slice(0, index);
    bytes[index] = (high << 4) | low;
  }
  return bytes;
}

/** True when both are the same bytes; how long it takes tells where they differ, so not for secrets. */
export const isSameBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, at) => byte === b[at]);

/** base64url without padding. */
export const toBase64Url = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64url');

/** Reads base64url; characters outside its alphabet are skipped, so check the length of the result. */
export const fromBase64Url = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64url'));

const privateKey = (seed: Uint8Array): KeyObject =>
  createPrivateKey({ key: Buffer.concat([privatePrefix, seed]), format: 'der', type: 'pkcs8' });

const publicKey = (raw: Uint8Array): KeyObject =>
  createPublicKey({ key: Buffer.concat([publicPrefix, raw]), format: 'der', type: 'spki' });

/** Reading a key costs as much as two signatures, or a quarter of a check: those in use are kept read. */
const readPrivate = new WeakMap<SigningKey, KeyObject>();
const readPublic = new Map<string, KeyObject>();
const readPublicMax = 1_024;

function privateKeyOf(key: SigningKey): KeyObject {
  const known = readPrivate.get(key);
  if (known !== undefined) return known;
  const read = privateKey(key.seed);
  readPrivate.set(key, read);
  return read;
}

function publicKeyOf(raw: Uint8Array): KeyObject {
  const name = toHex(raw);
  const known = readPublic.get(name);
  if (known !== undefined) return known;
  const read = publicKey(raw);
  if (readPublic.size >= readPublicMax) readPublic.clear();
  readPublic.set(name, read);
  return read;
}

/** The key pair behind 32 bytes of seed. */
export function keyFromSeed(seed: Uint8Array): SigningKey {
  const der = createPublicKey(privateKey(seed)).export({ format: 'der', type: 'spki' });
  return { seed, publicKey: new Uint8Array(der.subarray(publicPrefix.length)) };
}

/** Ed25519 over `domain`, a zero byte and `bytes`; 64 bytes. The domain keeps one kind of signature from passing for another. */
export const signBytes = (domain: string, bytes: Uint8Array, key: SigningKey): Uint8Array =>
  new Uint8Array(sign(null, Buffer.concat([Buffer.from(`${domain}\0`), bytes]), privateKeyOf(key)));

/** True only for a signature that `signBytes` made with the same domain, bytes and key; never throws. */
export function verifyBytes(domain: string, bytes: Uint8Array, signature: Uint8Array, key: Uint8Array): boolean {
  if (key.length !== 32 || signature.length !== 64) return false;
  try {
    return verify(null, Buffer.concat([Buffer.from(`${domain}\0`), bytes]), publicKeyOf(key), signature);
  } catch (error) {
    // A public key that is no point on the curve is the caller's bad input, not our fault.
    if (error instanceof Error && 'code' in error) return false;
    throw error;
  }
}

/** What stretching a passphrase costs: 2^`logN` × `r` × 128 bytes of memory, and time in proportion to that and `p`. */
export interface StretchCost {
  readonly logN: number;
  readonly r: number;
  readonly p: number;
}

/** 32 bytes that follow from a passphrase, slowly: scrypt over its NFKC form. @param salt 16 bytes. */
export function stretchPassphrase(passphrase: string, salt: Uint8Array, { logN, r, p }: StretchCost): Uint8Array {
  const N = 2 ** logN;
  return new Uint8Array(scryptSync(passphrase.normalize('NFKC'), salt, 32, { N, r, p, maxmem: 256 * N * r + 65_536 }));
}

const cipher = 'aes-256-gcm';
const tagBytes = 16;

/** What an AES-256-GCM text is bound to: a key (32 bytes), a nonce used once with it (12 bytes), and a context. */
export interface SealedWith {
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
  /** Must be the same when the text is opened; not secret. */
  readonly context: string;
}

/** Encrypts with AES-256-GCM; the last 16 bytes of the result are the tag. */
export function encryptBytes(bytes: Uint8Array, { key, nonce, context }: SealedWith): Uint8Array {
  const sealing = createCipheriv(cipher, key, nonce).setAAD(Buffer.from(context));
  return new Uint8Array(Buffer.concat([sealing.update(bytes), sealing.final(), sealing.getAuthTag()]));
}

/** What `encryptBytes` was given; undefined when key, nonce, context or a byte of the text is another. */
export function decryptBytes(bytes: Uint8Array, { key, nonce, context }: SealedWith): Uint8Array | undefined {
  if (bytes.length < tagBytes) return undefined;
  const opening = createDecipheriv(cipher, key, nonce, { authTagLength: tagBytes });
  opening.setAAD(Buffer.from(context)).setAuthTag(bytes.subarray(-tagBytes));
  const text = opening.update(bytes.subarray(0, -tagBytes));
  try {
    return new Uint8Array(Buffer.concat([text, opening.final()]));
  } catch (error) {
    // `final` throws for one reason: the tag does not fit. It has a code only on some versions.
    if (error instanceof Error && error.name === 'Error') return undefined;
    throw error;
  }
}
