/** The frames of a tab on `/helixflow/session/1`: what a gateway states of its work with a node, and the node's word on it. */

import type { Value } from '../codec.ts';
import { limits } from '../limits.ts';
import { Reader } from '../reader.ts';

/** A statement with what proves that it stands in the gateway's feed. Only gateways send it. */
export interface StatementFrame {
  readonly type: 'statement';
  /** The signed header of its block, as bytes; at most 256. */
  readonly header: Uint8Array;
  /** 64 bytes. */
  readonly signature: Uint8Array;
  /** Of the statement among the entries of the block. */
  readonly index: number;
  /** The entry, as the feed holds it. */
  readonly entry: Uint8Array;
  /** From the entry to the root (RFC 6962 audit path); hashes of 32 bytes. */
  readonly path: readonly Uint8Array[];
}

/** A countersignature: the bytes of its entry. Only nodes send it. */
export interface CountersignFrame {
  readonly type: 'countersign';
  readonly entry: Uint8Array;
}

/** A claim about this gateway or another: the bytes of its entry. Only nodes send it. */
export interface ClaimFrame {
  readonly type: 'claim';
  readonly entry: Uint8Array;
}

/** Everything that is said of a tab. */
export type TabFrame = StatementFrame | CountersignFrame | ClaimFrame;

/** First position of each frame; part of the session's numbers. */
export const tabNumbers = { statement: 16, countersign: 17, claim: 18 } as const;

const headerMaxBytes = 256;
/** No block has more entries than 2^10. */
const pathMax = 10;

const readHash = (value: Value): Uint8Array => new Reader([value], 'path').bytes(32, 32);

/** The positions of a frame. */
export function tabFields(frame: TabFrame): Value {
  switch (frame.type) {
    case 'statement':
      return [tabNumbers.statement, frame.header, frame.signature, frame.index, frame.entry, frame.path];
    case 'countersign':
      return [tabNumbers.countersign, frame.entry];
    case 'claim':
      return [tabNumbers.claim, frame.entry];
  }
}

/** Reads what follows the number of a frame. @throws HelixFlowError FRAME_MALFORMED */
export const tabParsers: Readonly<Record<number, (r: Reader) => TabFrame>> = {
  [tabNumbers.statement]: (r) => ({
    type: 'statement',
    header: r.bytes(headerMaxBytes),
    signature: r.bytes(64, 64),
    index: r.int(limits.blockEntriesMax - 1),
    entry: r.bytes(limits.entryMaxBytes),
    path: r.list(pathMax, readHash),
  }),
  [tabNumbers.countersign]: (r) => ({ type: 'countersign', entry: r.bytes(limits.entryMaxBytes) }),
  [tabNumbers.claim]: (r) => ({ type: 'claim', entry: r.bytes(limits.entryMaxBytes) }),
};
