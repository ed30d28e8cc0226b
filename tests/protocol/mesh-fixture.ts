/** A mesh for tests: a root, an issuer, members, and time and chance that the test decides. */

import { createHash } from 'node:crypto';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { keyFromSeed, sha256 } from '../../protocol/crypto.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import { type Credentials, issuerIdOf, type Membership, signMembership } from '../../protocol/grants.ts';
import type { OwnerId, PeerId } from '../../protocol/ids.ts';
import { createMesh, issuerOf, type NewMesh } from '../../protocol/mesh.ts';
import type { Clock, Log, Random, SigningKey } from '../../protocol/ports.ts';
import { type UnixMs, unixMs } from '../../protocol/units.ts';

/** Where the wall clock of `ManualClock` starts. */
export const startMs = unixMs(1_700_000_001_000);
export const tokens = createJoseTokens();
export const owner = 'alice' as OwnerId;

/** Names that pass for peer ids. */
export const peer = (name: string): PeerId => `12D3KooW${name.replaceAll(/[^1-9A-HJ-NP-Za-km-z]/g, 'x')}` as PeerId;

export const seeded = (label: string): SigningKey => keyFromSeed(sha256(label));

/** Bytes that follow from the label. Only `bytes` and `fork` are asked for here. */
export const seededRandom = (label: string): Pick<Random, 'bytes'> & Random => {
  let draws = 0;
  const bytes = (count: number): Uint8Array => {
    draws += 1;
    return new Uint8Array(createHash('shake256', { outputLength: count }).update(`${label}/${draws}`).digest());
  };
  const float = (): number => new DataView(bytes(4).buffer).getUint32(0) / 2 ** 32;
  return { bytes, float, int: (max) => Math.floor(float() * max), fork: (more) => seededRandom(`${label}/${more}`) };
};

/** A log that nobody reads. */
export const quietLog: Log = { debug() {}, info() {}, warn() {}, error() {}, with: () => quietLog };

const wallClock = (nowMs: UnixMs): Clock => ({ wallMs: () => nowMs }) as Clock;

export const newMesh = (label: string): Promise<NewMesh> =>
  createMesh({ tokens, random: seededRandom(label), clock: wallClock(startMs) }, { name: label, network: 'lan' });

/** Credentials as the issuer of `mesh` gives them, with any part of the membership changed. */
export async function credentialsFor(
  mesh: NewMesh,
  member: PeerId,
  changes: Partial<Membership> = {},
): Promise<Credentials> {
  const { meshId, issuer } = issuerOf(mesh.issuer);
  const usual: Membership = {
    meshId,
    issuer,
    peer: member,
    role: 'node',
    owner,
    expiresMs: unixMs(startMs + 86_400_000),
  };
  const grant = { ...usual, ...changes, issuer: issuerIdOf(mesh.issuer.key.publicKey) };
  const membership = await signMembership(grant, mesh.issuer.key, { tokens, nowMs: startMs });
  return { rootPublicKey: mesh.mesh.rootPublicKey, certificate: mesh.issuer.certificate, membership };
}

/** Code and details of what `run` throws; whatever else happens comes out as a sentence. */
export async function failure(run: () => unknown): Promise<unknown> {
  try {
    await run();
    return 'nothing was thrown';
  } catch (error) {
    return isHelixFlowError(error) ? { code: error.code, ...error.details } : `not typed: ${error}`;
  }
}
