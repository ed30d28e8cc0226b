/** A statement's frame, checked as far as it proves itself: signed by its gateway for this mesh, one of the entries of its block. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { MeshId, PeerId } from '../protocol/ids.ts';
import { isInMerkleTree } from '../protocol/merkle.ts';
import type { StatementFrame } from '../protocol/messages/tab.ts';
import { publicKeyOf } from '../protocol/peer/identity.ts';
import { authorIdOf, isSigned, parseHeader, type SignedHeader } from './block.ts';
import { parseUsage, type StatementEntry, statementHash } from './statement.ts';

/** A statement that its gateway has signed. */
export interface ProvenStatement {
  readonly head: SignedHeader;
  readonly entry: StatementEntry;
  readonly hash: Uint8Array;
}

export const violation = (reason: string): HelixFlowError<'PROTOCOL_VIOLATION'> =>
  new HelixFlowError('PROTOCOL_VIOLATION', { reason: `statement: ${reason}` });

/**
 * About 0.2 ms, most of it the signature.
 * @throws HelixFlowError FRAME_MALFORMED, FRAME_TOO_LARGE, PROTOCOL_VIOLATION
 */
export function proveStatement(
  frame: StatementFrame,
  gateway: PeerId,
  for_: { readonly meshId: MeshId; readonly self: PeerId },
): ProvenStatement {
  const { index, path } = frame;
  const head = parseHeader(frame.header, frame.signature);
  const publicKey = publicKeyOf(gateway);
  if (publicKey === undefined || head.header.author !== authorIdOf(publicKey)) throw violation('of another author');
  const { root, count } = head.header;
  if (!isInMerkleTree(frame.entry, { index, count, path }, root)) throw violation('not in its block');
  const bytes = frame.entry.slice();
  const entry = parseUsage(bytes);
  if (entry.kind !== 'statement') throw violation('another entry');
  if (entry.node !== for_.self) throw violation('for another node');
  if (!isSigned(head, for_.meshId)) throw violation('not signed by its gateway');
  return { head, entry, hash: statementHash(bytes) };
}
