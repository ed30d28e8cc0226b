/** Rows of the store that tell when a byte of them, or of their key, has changed. */

import { decodeValue, encodeValue, type Value } from '../protocol/codec.ts';
import { isSameBytes, sha256 } from '../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import { Reader } from '../protocol/reader.ts';

const checkBytes = 16;
const version = 1;

// LevelDB's own checksums leave rows unread without a word, or are not looked at: this one belongs to key and value.
const checkOf = (key: Uint8Array, body: Uint8Array): Uint8Array => sha256(key, body).subarray(0, checkBytes);

/** The row that lies at `key`. */
export function sealRow(key: Uint8Array, fields: readonly Value[]): Uint8Array {
  const body = encodeValue([version, ...fields]);
  const row = new Uint8Array(body.length + checkBytes);
  row.set(body);
  row.set(checkOf(key, body), body.length);
  return row;
}

function unseal(key: Uint8Array, row: Uint8Array): Reader {
  const body = row.subarray(0, Math.max(0, row.length - checkBytes));
  if (!isSameBytes(checkOf(key, body), row.subarray(body.length))) {
    throw new HelixFlowError('FRAME_MALFORMED', { reason: 'row: checksum' });
  }
  const reader = new Reader(decodeValue(body), 'row');
  reader.int(version, version);
  return reader;
}

/** Reads a row with `read`; undefined where a byte of it has changed. */
export function readSealedRow<T>(key: Uint8Array, row: Uint8Array, read: (reader: Reader) => T): T | undefined {
  try {
    return read(unseal(key, row));
  } catch (error) {
    if (isHelixFlowError(error, 'FRAME_MALFORMED')) return undefined;
    throw error;
  }
}
