/** From where an answer goes on at another node, as it travels behind the body of an `open` frame. */

import { decodeValue, encodeValue } from '../codec.ts';
import { HelixFlowError } from '../errors.ts';
import { limits } from '../limits.ts';
import type { Resume } from '../ports.ts';
import { Reader } from '../reader.ts';

/** More than any context holds; no body is longer than `requestBodyMaxBytes` in any case. */
const tokensMax = 10_000_000;

/** The bytes of a resume. */
export const encodeResume = ({ tokenIds, text, tokens }: Resume): Uint8Array => encodeValue([tokenIds, text, tokens]);

/**
 * Reads a resume; a node trusts no gateway to have made it well.
 * @throws HelixFlowError REQUEST_MALFORMED
 */
export function parseResume(bytes: Uint8Array): Resume {
  try {
    const reader = new Reader(decodeValue(bytes), 'resume');
    const resume = {
      tokenIds: reader.ints(tokensMax),
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
