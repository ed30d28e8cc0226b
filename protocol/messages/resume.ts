/** From where an answer goes on at another node, as it travels behind the body of an `open` frame. */

import { decodeValue, encodeValue } from '../codec.ts';
import { HelixFlowError } from '../errors.ts';
import { limits } from '../limits.ts';
import type { Resume } from '../ports.ts';
import { Reader } from '../reader.ts';

/** More than any context holds; no body is longer than `requestBodyMaxBytes` in any case. */
const tokensMax = 10_000_000;

/** Behind the text: a count, and whatever a later version appends. */
const restMaxBytes = 1_024;

/** Ids of the longest answer that is carried on. */
export const resumeIdsMax = 1_048_576;

interface Head {
  readonly kind: number;
  /** Of an array: its items; of a text: its bytes. */
  readonly value: number;
  readonly endAt: number;
}

const kinds = { unsigned: 0, text: 3, array: 4 } as const;

/** The head of a CBOR item; undefined where none is. */
function headAt(bytes: Uint8Array, at: number): Head | undefined {
  const first = bytes[at] ?? 0xff;
  const short = first & 0x1f;
  if (short > 27) return undefined;
  const endAt = at + 1 + (short < 24 ? 0 : 1 << (short - 24));
  let value = short < 24 ? short : 0;
  for (let next = at + 1; next < endAt; next += 1) value = value * 256 + (bytes[next] ?? 0);
  return { kind: first >> 5, value, endAt };
}

/**
 * What is decoded takes memory by the item: 24 MiB of empty byte strings come to three gigabytes. So this looks first
 * whether the bytes are what a resume is: not too many integers, a text, and little else.
 */
function isResume(bytes: Uint8Array): boolean {
  const ids = headAt(bytes, 1);
  if (ids === undefined || ids.kind !== kinds.array || ids.value > resumeIdsMax) return false;
  let at = ids.endAt;
  for (let left = ids.value; left > 0; left -= 1) {
    const id = headAt(bytes, at);
    if (id?.kind !== kinds.unsigned) return false;
    at = id.endAt;
  }
  const text = headAt(bytes, at);
  return text?.kind === kinds.text && bytes.length - text.endAt - text.value <= restMaxBytes;
}

/** The bytes of a resume. */
export const encodeResume = ({ tokenIds, text, tokens }: Resume): Uint8Array => encodeValue([tokenIds, text, tokens]);

/**
 * Reads a resume; a node trusts no gateway to have made it well.
 * @throws HelixFlowError REQUEST_MALFORMED
 */
export function parseResume(bytes: Uint8Array): Resume {
  try {
    if (!isResume(bytes)) throw new HelixFlowError('FRAME_MALFORMED', { reason: 'resume: no ids and no text' });
    const reader = new Reader(decodeValue(bytes), 'resume');
    const resume = {
      tokenIds: reader.ints(resumeIdsMax),
      text: reader.text(limits.requestBodyMaxBytes),
      tokens: reader.int(tokensMax),
    };
    if (!resume.text.isWellFormed()) throw new HelixFlowError('FRAME_MALFORMED', { reason: 'resume: no whole text' });
    return resume;
  } catch (cause) {
    if (!(cause instanceof HelixFlowError)) throw cause;
    throw new HelixFlowError('REQUEST_MALFORMED', { reason: 'what the answer goes on from does not parse' }, { cause });
  }
}
