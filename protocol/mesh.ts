/** Making a mesh, and the records by which a data directory remembers it: their text, never the files themselves. */

import { z } from 'zod';
import { keyFromSeed, toBase64Url } from './crypto.ts';
import { HelixFlowError } from './errors.ts';
import {
  bytes32Text,
  type Credentials,
  type IssuerCertificate,
  issuerIdOf,
  type Membership,
  membershipLifetimeMs,
  meshIdOf,
  type NetworkKind,
  type Signing,
  signCertificate,
  signMembership,
} from './grants.ts';
import { isMeshId, type MeshId } from './ids.ts';
import type { Clock, Random, SigningKey, Tokens } from './ports.ts';
import { openSealed, sealedShape, sealText } from './sealed.ts';
import { unixMs } from './units.ts';

/** What every member remembers about its mesh: `mesh.json`. */
export interface MeshRecord {
  readonly meshId: MeshId;
  /** 32 bytes; its sha256 is the mesh id. */
  readonly rootPublicKey: Uint8Array;
  readonly network: NetworkKind;
  /** For people, 1 to 64 characters; absent where nobody has told. */
  readonly name?: string;
  /** Its issuer may make invites for any number of nodes of anybody; absent where nobody has told. */
  readonly isOpen?: boolean;
}

/** What makes a process an issuer: `issuer.key`, a secret of one gateway. */
export interface IssuerRecord {
  readonly meshId: MeshId;
  readonly key: SigningKey;
  /** Token of kind `issuer`, signed by the root. */
  readonly certificate: string;
}

/** What makes a process the root: `root.key`, a secret that may be kept offline once an issuer has its certificate. */
export interface RootRecord {
  readonly meshId: MeshId;
  readonly key: SigningKey;
}

/** A mesh just made: what its first gateway keeps. */
export interface NewMesh {
  readonly mesh: MeshRecord;
  readonly root: RootRecord;
  readonly issuer: IssuerRecord;
}

/** Makes a mesh: a root key, and one issuer that it names. */
export async function createMesh(
  deps: { readonly tokens: Tokens; readonly random: Random; readonly clock: Clock },
  options: { readonly name: string; readonly network: NetworkKind; readonly isOpen?: boolean },
): Promise<NewMesh> {
  const { tokens, random, clock } = deps;
  const rootKey = createIdentity(random);
  const issuerKey = createIdentity(random);
  const meshId = meshIdOf(rootKey.publicKey);
  const grant = { meshId, issuer: issuerIdOf(issuerKey.publicKey), publicKey: issuerKey.publicKey };
  const certificate = await signCertificate(grant, rootKey, { tokens, nowMs: clock.wallMs() });
  const { name, network, isOpen = false } = options;
  return {
    mesh: { meshId, rootPublicKey: rootKey.publicKey, name, network, isOpen },
    root: { meshId, key: rootKey },
    issuer: { meshId, key: issuerKey, certificate },
  };
}

/** A new Ed25519 key: of a peer, a root or an issuer. */
export const createIdentity = (random: Random): SigningKey => keyFromSeed(random.bytes(32));

/** What an issuer's own record says about it. */
export const issuerOf = ({ meshId, key }: IssuerRecord): IssuerCertificate => ({
  meshId,
  issuer: issuerIdOf(key.publicKey),
  publicKey: key.publicKey,
});

/**
 * Admits a peer for `membershipLifetimeMs` from now; an issuer's gateway admits itself so, too.
 * @param by The issuer, and the mesh that it belongs to.
 */
export async function issueCredentials(
  by: { readonly mesh: Pick<MeshRecord, 'meshId' | 'rootPublicKey'>; readonly issuer: IssuerRecord },
  member: Pick<Membership, 'peer' | 'role' | 'owner'>,
  signing: Signing,
): Promise<Credentials> {
  const { meshId, rootPublicKey } = by.mesh;
  const { key, certificate } = by.issuer;
  const expiresMs = unixMs(signing.nowMs + membershipLifetimeMs);
  const grant = { ...member, meshId, issuer: issuerIdOf(key.publicKey), expiresMs };
  return { rootPublicKey, certificate, membership: await signMembership(grant, key, signing) };
}

/** The newest `format` of each record that this version reads and writes. */
const format = 1;

const token = z.string().min(1);
const meshId = z.custom<MeshId>(isMeshId);
const key = bytes32Text.transform(keyFromSeed);
const name = z.string().min(1).max(64);

const records = {
  mesh: z
    .object({
      meshId,
      rootPublicKey: bytes32Text,
      network: z.enum(['lan', 'public']),
      name: name.optional(),
      open: z.boolean().optional(),
    })
    .transform(
      ({ open: isOpen, name: of, ...record }): MeshRecord => ({
        ...record,
        ...(of === undefined ? {} : { name: of }),
        ...(isOpen === undefined ? {} : { isOpen }),
      }),
    ),
  root: z.union([z.object({ meshId, key }), z.object({ meshId, sealed: sealedShape })]),
  issuer: z.object({ meshId, key, certificate: token }),
  identity: z.object({ key }),
  credentials: z.object({ rootPublicKey: bytes32Text, certificate: token, membership: token }),
};

const unusable = (path: string, reason: string): HelixFlowError =>
  new HelixFlowError('DATA_DIR_UNUSABLE', { path, reason });

const encode = (record: object): string => `${JSON.stringify({ format, ...record }, undefined, 2)}\n`;
const text = (bytes: Uint8Array): string => toBase64Url(bytes);

const formatShape = z.object({ format: z.int().min(1) });

/**
 * Refuses a record that a newer version wrote; for whoever keeps it, and does not read it.
 * @throws HelixFlowError FORMAT_TOO_NEW
 */
export function checkRecordFormat(json: string, path: string): void {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    if (error instanceof SyntaxError) return;
    throw error;
  }
  refuseNewer(formatShape.safeParse(value).data, path);
}

function refuseNewer(found: z.infer<typeof formatShape> | undefined, path: string): void {
  if (found !== undefined && found.format > format) {
    throw new HelixFlowError('FORMAT_TOO_NEW', { path, found: found.format, known: format });
  }
}

/** Parses `json`; what is wrong with it is told by place, never by content: some of these records are secrets. */
function parse<T>(schema: z.ZodType<T>, json: string, path: string): T {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    // The engine's message quotes the text, so it does not become the cause.
    if (error instanceof SyntaxError) throw unusable(path, 'it is damaged (no JSON)');
    throw error;
  }
  const found = formatShape.safeParse(value);
  if (!found.success) throw unusable(path, 'it is damaged (no format number)');
  refuseNewer(found.data, path);
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw unusable(path, `it is damaged (${parsed.error.issues[0]?.path.join('.')} does not fit)`);
  return parsed.data;
}

/** The text of `mesh.json`. Not a secret. */
export const encodeMeshRecord = (record: MeshRecord): string =>
  encode({
    meshId: record.meshId,
    rootPublicKey: text(record.rootPublicKey),
    network: record.network,
    name: record.name,
    open: record.isOpen,
  });
/**
 * Reads `mesh.json`. @param path For the error.
 * @throws HelixFlowError FORMAT_TOO_NEW; DATA_DIR_UNUSABLE when it is damaged.
 */
export function parseMeshRecord(json: string, path: string): MeshRecord {
  const record = parse(records.mesh, json, path);
  if (meshIdOf(record.rootPublicKey) !== record.meshId) throw unusable(path, 'its root key is that of another mesh');
  return record;
}

/** The text of `root.key`. A secret: mode 0600. */
export const encodeRootRecord = (record: RootRecord): string =>
  encode({ meshId: record.meshId, key: text(record.key.seed) });

const rootContext = (ofMesh: MeshId): string => `helixflow/root/${ofMesh}`;

/** The text of `root.key` under a passphrase: in place of `key` it has `sealed` (`sealed.ts`). */
export const sealRootRecord = (
  { meshId: ofMesh, key: { seed } }: RootRecord,
  passphrase: string,
  random: Random,
): string =>
  encode({ meshId: ofMesh, sealed: sealText(text(seed), passphrase, { random, context: rootContext(ofMesh) }) });

/** What `root.key` says before anybody has given a passphrase. */
export interface LockedRoot {
  readonly meshId: MeshId;
  readonly isSealed: boolean;
  /** @param passphrase Not looked at where the key is not sealed. @throws HelixFlowError PASSPHRASE_WRONG */
  open(passphrase: string): RootRecord;
}

/** Reads `root.key`. @throws HelixFlowError FORMAT_TOO_NEW; DATA_DIR_UNUSABLE when it is damaged. */
export function parseRootRecord(json: string, path: string): LockedRoot {
  const record = parse(records.root, json, path);
  const check = (root: RootRecord): RootRecord => {
    if (meshIdOf(root.key.publicKey) !== root.meshId) throw unusable(path, 'its key is that of another mesh');
    return root;
  };
  const ofMesh = record.meshId;
  if ('key' in record) {
    const root = check(record);
    return { meshId: ofMesh, isSealed: false, open: () => root };
  }
  const open = (passphrase: string): RootRecord => {
    const opened = key.safeParse(openSealed(record.sealed, passphrase, rootContext(ofMesh)));
    if (!opened.success) throw new HelixFlowError('PASSPHRASE_WRONG', { path });
    return check({ meshId: ofMesh, key: opened.data });
  };
  return { meshId: ofMesh, isSealed: true, open };
}

/** The text of `issuer.key`. A secret: mode 0600. */
export const encodeIssuerRecord = (record: IssuerRecord): string =>
  encode({ meshId: record.meshId, key: text(record.key.seed), certificate: record.certificate });
/** Reads `issuer.key`. @throws HelixFlowError FORMAT_TOO_NEW; DATA_DIR_UNUSABLE when it is damaged. */
export const parseIssuerRecord = (json: string, path: string): IssuerRecord => parse(records.issuer, json, path);

/** The text of `identity.key`, the key behind the peer id. A secret: mode 0600. */
export const encodeIdentityRecord = (identity: SigningKey): string => encode({ key: text(identity.seed) });
/** Reads `identity.key`. @throws HelixFlowError FORMAT_TOO_NEW; DATA_DIR_UNUSABLE when it is damaged. */
export const parseIdentityRecord = (json: string, path: string): SigningKey => parse(records.identity, json, path).key;

/** The text of `membership.json`. Every peer this one connects to sees the same. */
export const encodeCredentials = (credentials: Credentials): string =>
  encode({
    rootPublicKey: text(credentials.rootPublicKey),
    certificate: credentials.certificate,
    membership: credentials.membership,
  });
/**
 * Reads `membership.json`. Says nothing about whether it is still valid: that is `checkCredentials`.
 * @throws HelixFlowError FORMAT_TOO_NEW; DATA_DIR_UNUSABLE when it is damaged.
 */
export const parseCredentials = (json: string, path: string): Credentials => parse(records.credentials, json, path);
