/** Who may write a feed, judged by the first entry of an epoch alone, so that every peer judges alike. */

import { isHelixFlowError } from '../protocol/errors.ts';
import { checkCertificate, checkCredentials } from '../protocol/grants.ts';
import type { AuthorId, MeshId, PeerId } from '../protocol/ids.ts';
import { peerIdOf } from '../protocol/peer/identity.ts';
import type { Tokens } from '../protocol/ports.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import { authorIdOf, authorKeyOf } from './block.ts';
import type { AuthorEntry } from './entry.ts';

export interface AuthorCheck {
  readonly tokens: Tokens;
  readonly meshId: MeshId;
  /** 32 bytes; hashes to the mesh id. */
  readonly rootPublicKey: Uint8Array;
}

/** The gateway behind an author; of an issuer it is no peer at all. */
export const peerOf = (author: AuthorId): PeerId => peerIdOf(authorKeyOf(author));

/** What the root says has no end, and its clock may be ahead of an author's. */
const anyTimeMs = unixMs(8_640_000_000_000_000);

/**
 * True when the tokens of the entry prove that the author might write then: an issuer that the root named, or a
 * gateway that such an issuer had admitted. What was taken back later does not matter: nothing signed is undone.
 * @param atMs The time of the entry's block: a membership that has expired since was good then.
 */
export async function mayWrite(
  author: AuthorId,
  first: AuthorEntry,
  atMs: UnixMs,
  { tokens, meshId, rootPublicKey }: AuthorCheck,
): Promise<boolean> {
  const { role, peer, certificate, membership } = first;
  const checking = { tokens, meshId, nowMs: atMs };
  try {
    if (role === 'issuer') {
      const { publicKey } = await checkCertificate(certificate, rootPublicKey, { ...checking, nowMs: anyTimeMs });
      return authorIdOf(publicKey) === author;
    }
    if (peerOf(author) !== peer) return false;
    const credentials = { rootPublicKey, certificate, membership };
    return (await checkCredentials(credentials, { ...checking, peer })).role === 'gateway';
  } catch (error) {
    if (isHelixFlowError(error, 'TOKEN_INVALID') || isHelixFlowError(error, 'MEMBERSHIP_INVALID')) return false;
    throw error;
  }
}
