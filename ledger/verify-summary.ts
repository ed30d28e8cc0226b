/** `ledger status`: what is held of each author, counted. */

import { toHex } from '../protocol/crypto.ts';
import type { AuthorId, EpochId, MeshId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { UnixMs } from '../protocol/units.ts';
import { type CheckedBlock, entryBytes, firstOf, sizeOfBlock } from './feed-blocks.ts';
import { FeedCheck } from './feed-check.ts';
import { readKey } from './feed-rows.ts';
import { FeedState } from './feed-state.ts';
import { type CountersignEntry, statementHash } from './statement.ts';
import type { FeedRows } from './verify.ts';
import { blockText } from './verify-place.ts';

/** One author. */
export interface AuthorSummary {
  readonly author: AuthorId;
  readonly role: 'issuer' | 'gateway' | 'unknown';
  readonly epochs: number;
  readonly blocks: number;
  readonly entries: number;
  /** Of headers and entries. */
  readonly bytes: number;
  readonly statements: number;
  readonly lines: number;
  /** Statements that their nodes have signed. */
  readonly countersigned: number;
  /** Those that they have not signed for longer than `limits.attestWaitMs`. */
  readonly unattested: number;
  /** Lines that nodes have refused. */
  readonly refused: number;
  /** Claims that stand in this feed. */
  readonly claims: number;
  readonly newestMs: UnixMs | undefined;
}

/** What is held. */
export interface LedgerSummary {
  readonly authors: readonly AuthorSummary[];
  /** Where authors have forked; the root may have lifted it. */
  readonly forks: readonly { readonly place: string; readonly isLifted: boolean }[];
  /** Blocks that are missing or damaged. */
  readonly holes: readonly { readonly place: string; readonly reason: string }[];
}

type Counts = { -readonly [Name in keyof Omit<AuthorSummary, 'epochs'>]: AuthorSummary[Name] };

class Author {
  readonly counts: Counts;
  readonly epochs = new Set<EpochId>();
  /** Statements that nobody has signed yet, by hash; and words on statements that were not read yet. */
  readonly waiting = new Map<string, UnixMs>();
  readonly early = new Set<string>();

  constructor(author: AuthorId) {
    const none = { blocks: 0, entries: 0, bytes: 0, statements: 0, lines: 0, countersigned: 0, unattested: 0 };
    this.counts = { author, role: 'unknown', ...none, refused: 0, claims: 0, newestMs: undefined };
  }

  take(checked: CheckedBlock): void {
    const { counts } = this;
    const { block, head, entries } = checked;
    const { epoch, timeMs, number } = head.header;
    this.epochs.add(epoch);
    counts.blocks += 1;
    counts.entries += entries.length;
    counts.bytes += sizeOfBlock(block);
    if (timeMs > (counts.newestMs ?? -1)) counts.newestMs = timeMs;
    const first = number === 0 ? firstOf(checked) : undefined;
    if (first !== undefined) counts.role = first.role;
    for (const { entry, index } of entries) {
      if (entry.kind === 'claim') counts.claims += 1;
      if (entry.kind === 'countersign') this.#sign(entry);
      if (entry.kind !== 'statement') continue;
      counts.statements += 1;
      counts.lines += entry.lines.length;
      const hash = toHex(statementHash(entryBytes(block, index)));
      if (this.early.delete(hash)) counts.countersigned += 1;
      else this.waiting.set(hash, timeMs);
    }
  }

  #sign({ statement, refused }: CountersignEntry): void {
    const hash = toHex(statement);
    const isNew = this.waiting.delete(hash);
    if (isNew) this.counts.countersigned += 1;
    else this.early.add(hash);
    if (isNew) this.counts.refused += refused.length;
  }

  summary(nowMs: UnixMs): AuthorSummary {
    const isDue = (atMs: UnixMs): boolean => atMs < nowMs - limits.attestWaitMs;
    const unattested = [...this.waiting.values()].filter(isDue).length;
    return { ...this.counts, unattested, epochs: this.epochs.size };
  }
}

/** Counts everything; signatures of nodes are not checked here. @param rows As `rowsInOrder` gives them. */
export async function summariseFeeds(
  rows: FeedRows,
  options: { readonly meshId: MeshId; readonly holds: 'all' | 'open'; readonly nowMs: UnixMs },
): Promise<LedgerSummary> {
  const authors = new Map<AuthorId, Author>();
  const state = new FeedState();
  const check = new FeedCheck(options, state, (block) => {
    const { author } = block.head.header;
    const known = authors.get(author) ?? new Author(author);
    authors.set(author, known);
    known.take(block);
  });
  for await (const [key, row] of rows) {
    const { kind } = readKey(key);
    if (kind === 'lift' || kind === 'proof') check.takeFork(key, row);
    else check.takeBlock(key, row);
  }
  check.vouch();
  const forks = state.proofs().map(({ a: { header } }) => ({
    place: blockText(header),
    isLifted: state.isLifted(header.author, header.epoch),
  }));
  const holes = check.damaged.map(({ reason, ...place }) => ({ place: blockText(place), reason }));
  return { authors: [...authors.values()].map((author) => author.summary(options.nowMs)), forks, holes };
}
