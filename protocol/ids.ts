/** Names of things, branded so that one kind is never passed for another. */

type Id<Name extends string> = string & { readonly id: Name };

/** A peer's libp2p identity in its canonical text form (`12D3KooW…`). */
export type PeerId = Id<'peer'>;
/** Lower-case hex sha256 of the mesh's root public key: 64 characters. */
export type MeshId = Id<'mesh'>;
/** First 16 bytes of the sha256 of an issuer's public key, lower-case hex: 32 characters. */
export type IssuerId = Id<'issuer'>;
/** Who answers for a peer: set by the invite, 1 to 64 characters. */
export type OwnerId = Id<'owner'>;
/** What a model is: lower-case hex sha256, 64 characters (design §5). */
export type ModelDigest = Id<'digest'>;
/** One logical request of a client: 32 lower-case hex characters. */
export type RequestId = Id<'request'>;
/** One run of one process: 32 lower-case hex characters, new at every start. */
export type ProcessId = Id<'process'>;
/** The name of an API key: 16 lower-case hex characters. */
export type KeyId = Id<'key'>;
/** The account that an API key belongs to: 1 to 64 characters. */
export type AccountId = Id<'account'>;

/** Who writes a feed, an issuer or a gateway: its Ed25519 public key, 64 lower-case hex characters. */
export type AuthorId = Id<'author'>;
/** One run of an author's writing: 32 lower-case hex characters, drawn anew by every process that writes. */
export type EpochId = Id<'epoch'>;

/** An amount that an account's authority gave one gateway to spend: 32 lower-case hex characters. */
export type LeaseId = Id<'lease'>;
/** A price entry of an issuer: 16 lower-case hex characters. */
export type PriceId = Id<'price'>;
/** What stands for an account, key or lease where nobody shall be named: an HMAC, 16 lower-case hex characters. */
export type Tag = Id<'tag'>;

const hexOf = (characters: number): RegExp => new RegExp(`^[0-9a-f]{${characters}}$`);
const hex64 = hexOf(64);
const hex32 = hexOf(32);
const hex16 = hexOf(16);
const peerId = /^[1-9A-HJ-NP-Za-km-z]{8,64}$/;
const label = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** Each is true only for text of its own form, whatever a peer sent. */
export const isPeerId = (text: unknown): text is PeerId => typeof text === 'string' && peerId.test(text);
export const isMeshId = (text: unknown): text is MeshId => typeof text === 'string' && hex64.test(text);
export const isModelDigest = (text: unknown): text is ModelDigest => typeof text === 'string' && hex64.test(text);
export const isRequestId = (text: unknown): text is RequestId => typeof text === 'string' && hex32.test(text);
export const isProcessId = (text: unknown): text is ProcessId => typeof text === 'string' && hex32.test(text);
export const isIssuerId = (text: unknown): text is IssuerId => typeof text === 'string' && hex32.test(text);
export const isKeyId = (text: unknown): text is KeyId => typeof text === 'string' && hex16.test(text);
export const isOwnerId = (text: unknown): text is OwnerId => typeof text === 'string' && label.test(text);
export const isAccountId = (text: unknown): text is AccountId => typeof text === 'string' && label.test(text);
export const isAuthorId = (text: unknown): text is AuthorId => typeof text === 'string' && hex64.test(text);
export const isEpochId = (text: unknown): text is EpochId => typeof text === 'string' && hex32.test(text);
export const isLeaseId = (text: unknown): text is LeaseId => typeof text === 'string' && hex32.test(text);
export const isPriceId = (text: unknown): text is PriceId => typeof text === 'string' && hex16.test(text);
