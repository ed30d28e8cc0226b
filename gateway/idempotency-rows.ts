/** How idempotency keys lie in the store: below `i/`, by the hash of whose they are, in rows that tell when a byte of them changed. */

import { readSealedRow, sealRow } from '../ledger/sealed-rows.ts';
import { fromHex, sha256, toHex } from '../protocol/crypto.ts';
import type { RequestId } from '../protocol/ids.ts';
import type { StoreOp } from '../protocol/ports.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import type { Access } from './access/judge.ts';

const prefix = Uint8Array.of(0x69, 0x2f);
/** Every key of them. */
export const idempotencyKeys = { gte: prefix, lt: Uint8Array.of(0x69, 0x30) };
const nameBytes = 16;
const ownerBytes = 8;

/** What was asked for under a key. */
export interface IdempotencyRow {
  /** Whose key it is, as a hash: rows are counted by it. */
  readonly owner: string;
  /** Of the body. Drawn from the key, too: who reads the disk cannot try prompts. */
  readonly body: string;
  readonly request: RequestId;
  readonly atMs: UnixMs;
}

/** Where a row lies, and what must be in it. */
export interface IdempotencyName {
  /** 32 hex characters. */
  readonly name: string;
  readonly owner: string;
  readonly body: string;
}

/** @param key As the client wrote it. */
export function nameOf({ issuer, account, keyId }: Access, key: string, body: string): IdempotencyName {
  const scope = `${issuer}\0${account}\0${keyId}\0`;
  return {
    name: toHex(sha256('helixflow/idempotency/1\0', scope, key).subarray(0, nameBytes)),
    owner: toHex(sha256('helixflow/idempotency-owner/1\0', scope).subarray(0, ownerBytes)),
    body: toHex(sha256('helixflow/idempotency-body/1\0', scope, key, '\0', body).subarray(0, nameBytes)),
  };
}

export function rowKey(name: string): Uint8Array {
  const key = new Uint8Array(prefix.length + nameBytes);
  key.set(prefix);
  key.set(fromHex(name), prefix.length);
  return key;
}

/** Of a row at this key. */
export const nameAt = (key: Uint8Array): string => toHex(key.subarray(prefix.length));

export function writeRow(name: string, { owner, body, request, atMs }: IdempotencyRow): StoreOp {
  const key = rowKey(name);
  return { type: 'put', key, value: sealRow(key, [fromHex(owner), fromHex(body), fromHex(request), atMs]) };
}

/** Undefined where a byte of it has changed. */
export const readRow = (key: Uint8Array, value: Uint8Array): IdempotencyRow | undefined =>
  readSealedRow(key, value, (r) => ({
    owner: toHex(r.bytes(ownerBytes, ownerBytes)),
    body: toHex(r.bytes(nameBytes, nameBytes)),
    request: toHex(r.bytes(16, 16)) as RequestId,
    atMs: unixMs(r.int()),
  }));
