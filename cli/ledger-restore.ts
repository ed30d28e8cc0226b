/** A backup of feeds, put back into a directory: blocks are judged as if a peer had sent them, so nothing that is there gives way. */

import { openRawFile, type RawFile } from '../ledger/adapters/export-jsonl.ts';
import { openLevelStore } from '../ledger/adapters/store-level.ts';
import { type Block, isSigned, type OpenBlock, type SignedHeader } from '../ledger/block.ts';
import { createFeeds } from '../ledger/create-feeds.ts';
import { type CheckedBlock, checkContents, firstOf, sizeOfBlock } from '../ledger/feed-blocks.ts';
import { checkPruned, readPrunedRow } from '../ledger/feed-prune.ts';
import { blockKey, readBlockRow, readKey, readProofRow } from '../ledger/feed-rows.ts';
import type { Acceptance, Feeds } from '../ledger/feeds.ts';
import { markRestored } from '../ledger/lease-roll.ts';
import type { VerifyOptions } from '../ledger/verify.ts';
import { systemClock } from '../protocol/adapters/clock.ts';
import { createLog } from '../protocol/adapters/log.ts';
import { systemRandom } from '../protocol/adapters/random.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { Role } from '../protocol/grants.ts';
import { limits } from '../protocol/limits.ts';
import type { Store } from '../protocol/ports.ts';
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
  /** Put back without the statements that were settled and gone when the backup was made. */
  readonly pruned: number;
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
  readonly counts = { blocks: 0, known: 0, gaps: 0, forked: 0, refused: 0, proofs: 0, pruned: 0 };
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
    if (block !== undefined) await this.#accept(block);
    else if (readPrunedRow(key, row) === undefined) this.counts.refused += 1;
  }
}

/**
 * Puts blocks back that no peer would take since their statements are gone: only where nothing is, of epochs whose first
 * block proves who writes, each signed; the check of everything on disk then finds out whether they follow each other.
 */
class PrunedRows {
  readonly #store: Store;
  readonly #options: VerifyOptions;
  #epoch = '';
  #mayWrite = false;
  pruned = 0;

  constructor(store: Store, options: VerifyOptions) {
    this.#store = store;
    this.#options = options;
  }

  async take(key: Uint8Array, row: Uint8Array): Promise<void> {
    const { kind, author, epoch, number } = readKey(key);
    if (kind !== 'block' || this.#options.holds !== 'all') return;
    if (this.#epoch !== `${author}/${epoch}`) {
      this.#epoch = `${author}/${epoch}`;
      this.#mayWrite = (await this.#store.get(blockKey({ author, epoch, number: 0 }))) !== undefined;
    }
    const block = readBlockRow(key, row);
    const checked = checkPruned(key, row);
    const head = block?.head ?? checked?.head;
    if (head === undefined || !isSigned(head, this.#options.meshId)) return;
    if (number === 0 && !this.#mayWrite) this.#mayWrite = await this.#provesAuthor(head, checked, block);
    if (checked === undefined || !this.#mayWrite || (await this.#store.get(key)) !== undefined) return;
    await this.#store.batch([{ type: 'put', key, value: row }], { sync: false });
    this.pruned += 1;
  }

  async #provesAuthor(
    { header }: SignedHeader,
    pruned: CheckedBlock | undefined,
    block: Block | OpenBlock | undefined,
  ): Promise<boolean> {
    const checked = pruned ?? (block && checkContents(block, block.head, 'all'));
    const first = checked && firstOf(checked);
    return first !== undefined && (await this.#options.mayWrite(header.author, first, header.timeMs));
  }
}

async function restorePruned(store: Store, options: VerifyOptions, { rows }: RawFile): Promise<number> {
  const pruned = new PrunedRows(store, options);
  for await (const [key, row] of rows) await pruned.take(key, row);
  return pruned.pruned;
}

async function restoreRows(feeds: Feeds, { rows }: RawFile): Promise<Restored> {
  const restoring = new Restoring(feeds);
  for await (const [key, row] of rows) await restoring.take(key, row);
  await restoring.settle();
  return restoring.counts;
}

async function isWithoutRows(store: Store): Promise<boolean> {
  for await (const _ of store.range({ gte: new Uint8Array(0), lt: new Uint8Array([0xff]) })) return false;
  return true;
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
    const options = auditOptions(known.mesh, role);
    // An issuer whose store was empty may have leased what the backup does not tell of.
    const isEmpty = (await fileExists(dir.issuerFile)) && (await isWithoutRows(store));
    if (role === 'gateway' && isEmpty) await markRestored(store);
    const pruned = await restorePruned(store, options, await openRawFile(path));
    const nobody = { entry: () => {}, added: () => {}, forked: () => {} };
    const feeds = createFeeds(deps, options, nobody);
    await feeds.open();
    const restored = await restoreRows(feeds, await openRawFile(path));
    await feeds.close();
    return { ...restored, pruned };
  } finally {
    await store.close();
  }
}
