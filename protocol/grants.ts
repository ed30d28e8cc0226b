/** What a signed token grants, once verified: an issuer's certificate, a membership, an invite, an API key. */

import type { AccountId, IssuerId, KeyId, MeshId, OwnerId, PeerId } from './ids.ts';
import type { Contact } from './ports.ts';
import type { UnixMs } from './units.ts';

/** What a member may be. */
export type Role = 'node' | 'gateway';

/** Which addresses peers of a mesh may dial: `lan` allows loopback and private ones, `public` does not. */
export type NetworkKind = 'lan' | 'public';

/** The root named this issuer. */
export interface IssuerCertificate {
  readonly meshId: MeshId;
  readonly issuer: IssuerId;
  /** 32 bytes, Ed25519. */
  readonly publicKey: Uint8Array;
}

/** The issuer admitted this peer. */
export interface Membership {
  readonly meshId: MeshId;
  readonly issuer: IssuerId;
  readonly peer: PeerId;
  readonly role: Role;
  readonly owner: OwnerId;
  readonly expiresMs: UnixMs;
}

/** What a peer shows in its hello, so that it can be checked from the mesh id alone. */
export interface Credentials {
  /** 32 bytes; its sha256 is the mesh id. */
  readonly rootPublicKey: Uint8Array;
  /** Token of kind `issuer`, signed by the root. */
  readonly certificate: string;
  /** Token of kind `membership`, signed by the issuer. */
  readonly membership: string;
}

/** A bearer's right to become a member, and what it takes to find and trust the mesh. */
export interface Invite {
  readonly meshId: MeshId;
  readonly issuer: IssuerId;
  /** 32 hex characters. */
  readonly inviteId: string;
  readonly role: Role;
  readonly owner: OwnerId;
  readonly network: NetworkKind;
  /** Gateways to dial first. */
  readonly gateways: readonly Contact[];
  readonly rootPublicKey: Uint8Array;
  readonly certificate: string;
  readonly expiresMs: UnixMs;
}

/** A client's right to use the service. */
export interface KeyGrant {
  readonly keyId: KeyId;
  readonly issuer: IssuerId;
  readonly account: AccountId;
  readonly role: 'user' | 'operator' | 'admin';
  /** Model name patterns with `*`; empty allows every model. */
  readonly models: readonly string[];
  readonly expiresMs?: UnixMs;
}
