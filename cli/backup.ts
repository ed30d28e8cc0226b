/** Backups: a mesh's records and keys in one file, under a passphrase unless somebody insists otherwise. */

import { z } from 'zod';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import { isMeshId, isPeerId, type MeshId, type PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { parseIssuerRecord, parseMeshRecord, parseRootRecord } from '../protocol/mesh.ts';
import type { Contact, Random } from '../protocol/ports.ts';
import { openSealed, sealedShape, sealText } from '../protocol/sealed.ts';

/** The files of `mesh/` as they stand there; a root key under a passphrase stays under it. */
export interface BackupFiles {
  readonly 'mesh.json': string;
  readonly 'root.key'?: string | undefined;
  readonly 'issuer.key'?: string | undefined;
}

/** What a backup holds. Feeds are not in it: they come back from other peers. */
export interface Backup {
  readonly meshId: MeshId;
  readonly files: BackupFiles;
  /** Gateways to find the mesh by. */
  readonly gateways: readonly Contact[];
}

/** A backup before anybody has given its passphrase. */
export interface LockedBackup {
  readonly meshId: MeshId;
  readonly isSealed: boolean;
  /** @throws HelixFlowError PASSPHRASE_WRONG; BACKUP_INVALID */
  open(passphrase: string): Backup;
}

const format = 1;
const kind = 'helixflow-backup';
const fileText = z.string().min(1).max(65_536);
const contact = z.object({
  peer: z.custom<PeerId>(isPeerId),
  addresses: z.array(z.string().max(limits.addressMaxChars)).max(limits.peerAddressesMax),
});
const contentShape = z.object({
  files: z.object({ 'mesh.json': fileText, 'root.key': fileText.optional(), 'issuer.key': fileText.optional() }),
  gateways: z.array(contact).max(64),
});
const recordShape = z.object({
  format: z.literal(format),
  kind: z.literal(kind),
  meshId: z.custom<MeshId>(isMeshId),
  sealed: sealedShape.optional(),
  plain: contentShape.optional(),
});

const contextOf = (meshId: MeshId): string => `helixflow/backup/${meshId}`;

/** The text of the file. @param passphrase Undefined leaves the keys readable. */
export function encodeBackup(
  { meshId, files, gateways }: Backup,
  passphrase: string | undefined,
  random: Random,
): string {
  const content = { files, gateways };
  const body =
    passphrase === undefined
      ? { plain: content }
      : { sealed: sealText(JSON.stringify(content), passphrase, { random, context: contextOf(meshId) }) };
  return `${JSON.stringify({ format, kind, meshId, ...body }, undefined, 2)}\n`;
}

const invalid = (path: string, reason: string): HelixFlowError =>
  new HelixFlowError('BACKUP_INVALID', { path, reason });

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    // The engine's message quotes the text, so it does not become the cause.
    if (error instanceof SyntaxError) throw invalid(path, 'it is damaged (no JSON)');
    throw error;
  }
}

/** Every record in it must be one of this mesh. */
function checkFiles(meshId: MeshId, files: BackupFiles, path: string): void {
  const { 'mesh.json': mesh, 'root.key': root, 'issuer.key': issuer } = files;
  try {
    const owners = [
      parseMeshRecord(mesh, path).meshId,
      ...(root === undefined ? [] : [parseRootRecord(root, path).meshId]),
      ...(issuer === undefined ? [] : [parseIssuerRecord(issuer, path).meshId]),
    ];
    if (owners.some((owner) => owner !== meshId)) throw invalid(path, 'it mixes meshes');
  } catch (error) {
    if (!isHelixFlowError(error, 'DATA_DIR_UNUSABLE')) throw error;
    throw invalid(path, error.details.reason);
  }
}

/** Reads a backup. @throws HelixFlowError BACKUP_INVALID; FORMAT_TOO_NEW */
export function parseBackup(text: string, path: string): LockedBackup {
  const value = parseJson(text, path);
  const found = z.object({ format: z.int().min(1), kind: z.literal(kind) }).safeParse(value);
  if (!found.success) throw invalid(path, 'it is no backup');
  if (found.data.format > format) {
    throw new HelixFlowError('FORMAT_TOO_NEW', { path, found: found.data.format, known: format });
  }
  const parsed = recordShape.safeParse(value);
  if (!parsed.success) throw invalid(path, 'it is damaged');
  const { meshId, sealed, plain } = parsed.data;
  if ((sealed === undefined) === (plain === undefined)) throw invalid(path, 'it is damaged');
  const check = (content: z.output<typeof contentShape>): Backup => {
    checkFiles(meshId, content.files, path);
    return { meshId, ...content };
  };
  if (sealed === undefined) return { meshId, isSealed: false, open: () => check(contentShape.parse(plain)) };
  const open = (passphrase: string): Backup => {
    const opened = openSealed(sealed, passphrase, contextOf(meshId));
    if (opened === undefined) throw new HelixFlowError('PASSPHRASE_WRONG', { path });
    const content = contentShape.safeParse(parseJson(opened, path));
    if (!content.success) throw invalid(path, 'it is damaged');
    return check(content.data);
  };
  return { meshId, isSealed: true, open };
}
