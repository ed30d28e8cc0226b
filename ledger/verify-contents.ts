/** Why a block that is as it was written is none all the same, down to the entry. */

import { isHelixFlowError } from '../protocol/errors.ts';
import { type Block, fitsHeader, type OpenBlock, provesOpen } from './block.ts';
import { parseEntry } from './entry.ts';
import { blockText, entryText, type Problem } from './verify-place.ts';

/** What is wrong with the bytes of an entry; undefined where they are one. */
function faultOf(bytes: Uint8Array): string | undefined {
  try {
    parseEntry(bytes);
    return undefined;
  } catch (error) {
    if (isHelixFlowError(error, 'FRAME_MALFORMED')) return error.details.reason;
    if (isHelixFlowError(error, 'FRAME_TOO_LARGE')) return `it has ${error.details.bytes} bytes`;
    throw error;
  }
}

/** The first thing that is wrong with the contents of a block. */
export function explainContents(block: Block | OpenBlock): Problem {
  const { header } = block.head;
  const isWhole = 'entries' in block ? fitsHeader(block) : provesOpen(block);
  const place = blockText(header);
  if (!isWhole) return { place, what: 'its entries are not those that its header was signed over' };
  const parts = 'entries' in block ? block.entries.map((bytes, index) => ({ bytes, index })) : block.open;
  for (const { bytes, index } of parts) {
    const fault = faultOf(bytes);
    if (fault !== undefined) {
      const what = `the author has signed an entry that does not parse: ${fault}`;
      return { place: entryText({ ...header, index }), what };
    }
  }
  if (header.number === 0) return { place, what: 'an epoch begins with it, and no entry says who its author is' };
  return { place, what: 'it holds more than a block may hold' };
}
