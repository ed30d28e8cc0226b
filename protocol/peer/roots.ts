/** What the root of the mesh has said: issuers it named, handovers between them, revocations, lifts of freezes. */

import type { FreezeLift, IssuerCertificate } from '../grants.ts';
import type { IssuerId, MeshId } from '../ids.ts';
import type { Cancel } from '../ports.ts';

/** A token that the root signed. */
export interface RootToken {
  readonly kind: 'issuer' | 'revocation' | 'lift';
  readonly token: string;
}

/**
 * All that is known of it, whatever the clock says. At most `limits.rootTokensMax`, but every revocation: they go first,
 * then certificates. Of tokens that say the same one is kept.
 */
export interface Roots {
  readonly meshId: MeshId;
  readonly rootPublicKey: Uint8Array;
  /** Checks and keeps. @returns true when it is new. @throws HelixFlowError TOKEN_INVALID */
  take(said: RootToken): Promise<boolean>;
  /** Everything, revocations first, then certificates, then lifts; of each the newest learnt first. */
  tokens(): readonly RootToken[];
  /** A live view of those that count: named and not revoked. */
  readonly issuers: ReadonlyMap<IssuerId, IssuerCertificate>;
  /** Also those that were revoked. */
  certificateOf(issuer: IssuerId): IssuerCertificate | undefined;
  isRevoked(issuer: IssuerId): boolean;
  /** Those that took over from it, directly or not, oldest first; without those that were revoked themselves. */
  successorsOf(issuer: IssuerId): readonly IssuerCertificate[];
  lifts(): readonly FreezeLift[];
  /** Calls `listener` for each new token. */
  onChange(listener: (said: RootToken) => void): Cancel;
}
