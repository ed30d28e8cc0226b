/** What a peer of one role keeps: identity, membership, and the settings chosen at its first start. */

import { z } from 'zod';
import { HelixFlowError } from '../protocol/errors.ts';
import type { Credentials } from '../protocol/grants.ts';
import { isPeerId, type PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { encodeCredentials, encodeIdentityRecord, parseCredentials, parseIdentityRecord } from '../protocol/mesh.ts';
import type { Contact, SigningKey } from '../protocol/ports.ts';
import type { PeerPaths } from './data-dir.ts';
import { makeDirectory, readFileIfAny, writeFileAtomic } from './files.ts';

/** Chosen or learnt once, then kept. */
export interface PeerSettings {
  readonly p2pPort?: number;
  /** Where others could reach this peer when it last ran. */
  readonly addresses: readonly string[];
  /** Gateways that the invite named. */
  readonly bootstrap: readonly Contact[];
}

/** Gateways that are kept for the next start. */
export const bootstrapMax = 64;

const formatNumber = 1;
const addresses = z.array(z.string().max(limits.addressMaxChars)).max(limits.peerAddressesMax);
const settingsSchema = z.object({
  p2pPort: z.int().min(1).max(65_535).optional(),
  addresses,
  bootstrap: z.array(z.object({ peer: z.custom<PeerId>(isPeerId), addresses })).max(bootstrapMax),
});

/**
 * Reads a record of the CLI's own: JSON with a `format` number.
 * @throws HelixFlowError FORMAT_TOO_NEW; DATA_DIR_UNUSABLE when it is damaged. Neither quotes the content.
 */
export function parseRecord<T>(schema: z.ZodType<T>, text: string, path: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  const found = z.object({ format: z.int().min(1) }).safeParse(value);
  if (found.success && found.data.format > formatNumber) {
    throw new HelixFlowError('FORMAT_TOO_NEW', { path, found: found.data.format, known: formatNumber });
  }
  const parsed = schema.safeParse(value);
  if (found.success && parsed.success) return parsed.data;
  throw new HelixFlowError('DATA_DIR_UNUSABLE', { path, reason: 'it is damaged' });
}

/** The text of such a record. */
export const encodeRecord = (record: object): string =>
  `${JSON.stringify({ format: formatNumber, ...record }, undefined, 2)}\n`;

/** The key behind the peer id; undefined before the peer's first start. */
export async function readIdentity({ identityFile }: PeerPaths): Promise<SigningKey | undefined> {
  const text = await readFileIfAny(identityFile);
  return text === undefined ? undefined : parseIdentityRecord(text, identityFile);
}

/** Keeps the key behind the peer id. @throws HelixFlowError DATA_DIR_UNUSABLE */
export async function writeIdentity({ path, identityFile }: PeerPaths, identity: SigningKey): Promise<void> {
  await makeDirectory(path, true);
  await writeFileAtomic(identityFile, encodeIdentityRecord(identity));
}

/** What the peer shows in its hello, valid or not; undefined when it never was a member. */
export async function readMembership({ membershipFile }: PeerPaths): Promise<Credentials | undefined> {
  const text = await readFileIfAny(membershipFile);
  return text === undefined ? undefined : parseCredentials(text, membershipFile);
}

export async function writeMembership({ path, membershipFile }: PeerPaths, credentials: Credentials): Promise<void> {
  await makeDirectory(path, true);
  await writeFileAtomic(membershipFile, encodeCredentials(credentials));
}

export async function readSettings({ settingsFile }: PeerPaths): Promise<PeerSettings> {
  const text = await readFileIfAny(settingsFile);
  if (text === undefined) return { addresses: [], bootstrap: [] };
  const { p2pPort, ...rest } = parseRecord(settingsSchema, text, settingsFile);
  return p2pPort === undefined ? rest : { p2pPort, ...rest };
}

export const writeSettings = ({ settingsFile }: PeerPaths, settings: PeerSettings): Promise<void> =>
  writeFileAtomic(settingsFile, encodeRecord(settings));
