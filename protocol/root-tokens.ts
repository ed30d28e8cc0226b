/** What the root says beside naming issuers: that one is taken back, and that an author may write again. */

import { z } from 'zod';
import {
  type Checking,
  type FreezeLift,
  type IssuerRevocation,
  meshIdOf,
  parseClaims,
  type Signing,
  secondsOf,
  verifyByRoot,
} from './grants.ts';
import { type AuthorId, type EpochId, type IssuerId, isAuthorId, isEpochId, isIssuerId, type MeshId } from './ids.ts';
import { assert } from './invariant.ts';
import type { SigningKey, TokenClaims } from './ports.ts';

const revocationClaims = z.object({ sub: z.custom<IssuerId>(isIssuerId) });
const liftClaims = z.object({ sub: z.custom<AuthorId>(isAuthorId), epoch: z.custom<EpochId>(isEpochId) });

function claimsBy(meshId: MeshId, rootKey: SigningKey, signing: Signing): Pick<TokenClaims, 'iss' | 'aud' | 'iat'> {
  assert(meshIdOf(rootKey.publicKey) === meshId, 'a root speaks for its own mesh');
  return { iss: meshId, aud: meshId, iat: secondsOf(signing.nowMs) };
}

/** The root takes an issuer back. @param rootKey Hashes to the mesh id. */
export function signRevocation(grant: IssuerRevocation, rootKey: SigningKey, signing: Signing): Promise<string> {
  const claims = { ...claimsBy(grant.meshId, rootKey, signing), sub: grant.issuer };
  return signing.tokens.sign('revocation', claims, rootKey);
}

/** Reads a revocation that the root signed. @throws HelixFlowError TOKEN_INVALID */
export async function checkRevocation(
  token: string,
  rootPublicKey: Uint8Array,
  checking: Checking,
): Promise<IssuerRevocation> {
  const claims = parseClaims(revocationClaims, await verifyByRoot('revocation', token, rootPublicKey, checking));
  return { meshId: checking.meshId, issuer: claims.sub };
}

/** The root lets an author that forked write again, in other epochs. @param rootKey Hashes to the mesh id. */
export function signLift(grant: FreezeLift, rootKey: SigningKey, signing: Signing): Promise<string> {
  const claims = { ...claimsBy(grant.meshId, rootKey, signing), sub: grant.author, epoch: grant.epoch };
  return signing.tokens.sign('lift', claims, rootKey);
}

/** Reads a lift that the root signed. @throws HelixFlowError TOKEN_INVALID */
export async function checkLift(token: string, rootPublicKey: Uint8Array, checking: Checking): Promise<FreezeLift> {
  const claims = parseClaims(liftClaims, await verifyByRoot('lift', token, rootPublicKey, checking));
  return { meshId: checking.meshId, author: claims.sub, epoch: claims.epoch };
}
