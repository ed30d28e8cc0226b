/** A backup of feeds, put back into a directory: blocks are judged as if a peer had sent them, so nothing that is there gives way. */

import { openRawFile, type RawFile } from '../ledger/adapters/export-jsonl.ts';
import { openLevelStore } from '../ledger/adapters/store-level.ts';
import type { Block, OpenBlock } from '../ledger/block.ts';
import { createFeeds } from '../ledger/create-feeds.ts';
import { sizeOfBlock } from '../ledger/feed-blocks.ts';
import { readBlockRow, readKey, readProofRow } from '../ledger/feed-rows.ts';
import type { Acceptance, Feeds } from '../ledger/feeds.ts';
import { systemClock } from '../protocol/adapters/clock.ts';
import { createLog } from '../protocol/adapters/log.ts';
import { systemRandom } from '../protocol/adapters/random.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { Role } from '../protocol/grants.ts';
import { limits } from '../protocol/limits.ts';
import type { DataDir } from './data-dir.ts';
import { fileExists } from './files.ts';
import { auditOptions } from './ledger-source.ts';
import type { KnownMesh } from './mesh-files.ts';

/** What became of the blocks of a backup. */
export interface Restored {
  /** Put back. */
  readonly blocks: number;
  /** Were there already. */
  readonly known: number;
  /** Follow a block that neither the backup nor the directory holds. */
  readonly gaps: number;
  /** Contradict what is there: kept as proofs of a fork. */
  readonly forked: number;
  /** Of authors that have forked, or that may not write, or no blocks at all. */
  readonly refused: number;
  readonly proofs: number;
}

const invalid = (path: string, reason: string): HelixFlowError =>
  new HelixFlowError('BACKUP_INVALID', { path, reason });

/** Reads all of it, so that nothing of a damaged backup is put anywhere. @throws HelixFlowError BACKUP_INVALID, FORMAT_TOO_NEW, MESH_EXISTS */
async function checkFile(path: string, { mesh }: KnownMesh): Promise<Role> {
  const file = await openRawFile(path);
  if (file.header.meshId !== mesh.meshId) throw new HelixFlowError('MESH_EXISTS', { meshId: mesh.meshId });
  for await (const _ of file.rows);
  const [fault] = file.faults();
  if (fault !== undefined) throw invalid(path, `line ${fault.line}: ${fault.what}`);
  return file.header.role;
}

const fieldOf: Readonly<Record<Acceptance, keyof Restored>> = {
  new: 'blocks',
  known: 'known',
  gap: 'gaps',
  forked: 'forked',
  frozen: 'refused',
  refused: 'refused',
  invalid: 'refused',
};

/** Hands blocks over in windows, each of which shares its syncs. */
class Restoring {
  readonly counts = { blocks: 0, known: 0, gaps: 0, forked: 0, refused: 0, proofs: 0 };
  readonly #feeds: Feeds;
  #window: Promise<Acceptance>[] = [];
  #bytes = 0;

  constructor(feeds: Feeds) {
    this.#feeds = feeds;
  }

  async #accept(block: Block | OpenBlock): Promise<void> {
    this.#window.push(this.#feeds.accept(block));
    this.#bytes += sizeOfBlock(block);
    if (this.#bytes >= limits.ledgerWindowBytes) await this.settle();
  }

  async settle(): Promise<void> {
    for (const acceptance of await Promise.all(this.#window)) this.counts[fieldOf[acceptance]] += 1;
    this.#window = [];
    this.#bytes = 0;
  }

  async take(key: Uint8Array, row: Uint8Array): Promise<void> {
    const { kind } = readKey(key);
    // What the root has lifted is told by its own word, which peers have.
    if (kind === 'lift') return;
    if (kind === 'proof') {
      await this.settle();
      const proof = readProofRow(key, row);
      if (proof !== undefined && (await this.#feeds.acceptProof(proof))) this.counts.proofs += 1;
      return;
    }
    const block = readBlockRow(key, row);
    if (block === undefined) this.counts.refused += 1;
    else await this.#accept(block);
  }
}

async function restoreRows(feeds: Feeds, { rows }: RawFile): Promise<Restored> {
  const restoring = new Restoring(feeds);
  for await (const [key, row] of rows) await restoring.take(key, row);
  await restoring.settle();
  return restoring.counts;
}

/**
 * Puts back what is missing; the caller holds the directory.
 * @throws HelixFlowError BACKUP_INVALID, FORMAT_TOO_NEW, MESH_EXISTS, STORE_FAILED, DATA_DIR_UNUSABLE
 */
export async function restoreFeeds(path: string, dir: DataDir, known: KnownMesh): Promise<Restored> {
  const from = await checkFile(path, known);
  const hasGateway = await fileExists(dir.peer('gateway').store);
  const role = hasGateway || !(await fileExists(dir.peer('node').store)) ? (hasGateway ? 'gateway' : from) : 'node';
  const store = await openLevelStore(dir.peer(role).store);
  try {
    const log = createLog({ level: 'warn', destination: 'stderr' });
    const deps = { store, clock: systemClock(), random: systemRandom(), log };
    const nobody = { entry: () => {}, added: () => {}, forked: () => {} };
    const feeds = createFeeds(deps, auditOptions(known.mesh, role), nobody);
    await feeds.open();
    const restored = await restoreRows(feeds, await openRawFile(path));
    await feeds.close();
    return restored;
  } finally {
    await store.close();
  }
}
