/** `ledger verify`: whether feeds are what their authors signed, and what they say of usage holds together; names what does not. */

import { isSameBytes } from '../protocol/crypto.ts';
import type { AuthorId, EpochId, MeshId } from '../protocol/ids.ts';
import type { UnixMs } from '../protocol/units.ts';
import type { AuthorEntry } from './entry.ts';
import { type CheckedBlock, entryBytes, firstOf } from './feed-blocks.ts';
import { FeedCheck } from './feed-check.ts';
import { readBlockRow, readKey } from './feed-rows.ts';
import { FeedState } from './feed-state.ts';
import { explainContents } from './verify-contents.ts';
import { MoneyAudit } from './verify-money.ts';
import { blockText, type EntrySpot, entryText, type Problem, Problems } from './verify-place.ts';
import { StatementAudit } from './verify-statements.ts';

/** What the check came to. Lines that nothing covers yet are no problem. */
export interface Verdict {
  readonly ok: boolean;
  readonly entries: number;
  readonly lines: number;
  readonly requests: number;
  /** Blocks whose settled statements are no more here, so nothing is said of them; absent when there are none. */
  readonly pruned?: number;
  readonly problems: readonly Problem[];
}

export interface VerifyOptions {
  readonly meshId: MeshId;
  /** `open` for what a node holds. */
  readonly holds: 'all' | 'open';
  /** Whether this author may write, as the first entry of an epoch proves it. */
  readonly mayWrite: (author: AuthorId, first: AuthorEntry, atMs: UnixMs) => Promise<boolean>;
}

/** Rows of a store, keys and values: those of each epoch in the order of their numbers. */
export type FeedRows = AsyncIterable<readonly [key: Uint8Array, row: Uint8Array]>;

const reasons: Readonly<Record<string, string>> = {
  row: 'the block’s bytes have changed, or it is not the one of this place',
  chain: 'the block does not follow the one before it',
  signature: 'the author has not signed the block',
  missing: 'blocks are missing from here on',
  proof: 'the proof of a fork does not check',
  lift: 'the lift of a fork does not check',
  'only its open part': 'only what nodes may see of the block is here',
};

/** The first block of an epoch. */
interface Beginning {
  readonly spot: EntrySpot;
  readonly entry: AuthorEntry;
  readonly previous: Uint8Array;
  readonly atMs: UnixMs;
}

interface Tail {
  readonly number: number;
  readonly hash: Uint8Array;
}

const epochName = (author: AuthorId, epoch: EpochId): string => `${author}/${epoch}`;

class Verification {
  readonly #options: VerifyOptions;
  readonly #problems = new Problems();
  readonly #state = new FeedState();
  readonly #check: FeedCheck;
  readonly #money: MoneyAudit;
  readonly #statements: StatementAudit;
  readonly #issuers = new Set<AuthorId>();
  readonly #unnamed = new Set<AuthorId>();
  readonly #tails = new Map<string, Tail>();
  readonly #holes = new Set<string>();
  /** Epochs of which statements were dropped once they were settled for good. */
  readonly #pruned = new Set<string>();
  #prunedBlocks = 0;
  readonly #beginnings: Beginning[] = [];
  #newBeginnings: Beginning[] = [];
  readonly #explained = new Map<object, Problem>();
  #at: EntrySpot | undefined;
  #lastRow: ReturnType<typeof readKey> | undefined;

  constructor(options: VerifyOptions) {
    this.#options = options;
    this.#check = new FeedCheck(options, this.#state, (block) => this.#take(block));
    this.#money = new MoneyAudit(this.#problems, (author) => this.#issuers.has(author) && !this.#unnamed.has(author));
    this.#statements = new StatementAudit(this.#problems, this.#money, options.meshId);
  }

  async read(rows: FeedRows): Promise<void> {
    for await (const [key, row] of rows) {
      this.#readRow(key, row);
      if (this.#newBeginnings.length > 0) await this.#judgeAuthors();
    }
    this.#check.vouch();
    await this.#judgeAuthors();
  }

  #readRow(key: Uint8Array, row: Uint8Array): void {
    const place = readKey(key);
    if (place.kind === 'lift' || place.kind === 'proof') {
      this.#check.takeFork(key, row);
      return;
    }
    const last = this.#lastRow;
    this.#lastRow = place;
    const isSameEpoch = last?.author === place.author && last.epoch === place.epoch;
    // What is held of a feed is read on without a word where a row comes twice; here nothing is passed over.
    if (isSameEpoch && place.number <= last.number)
      this.#problems.add(blockText(place), 'the block comes twice, or too late');
    else this.#takeRow(key, row);
  }

  #takeRow(key: Uint8Array, row: Uint8Array): void {
    const { damaged } = this.#check;
    const known = damaged.length;
    this.#check.takeBlock(key, row);
    const damage = damaged[known];
    const block = damage?.reason === 'contents' ? readBlockRow(key, row) : undefined;
    if (damage !== undefined && block !== undefined) this.#explained.set(damage, explainContents(block));
  }

  #take(checked: CheckedBlock): void {
    const { header, hash } = checked.head;
    const { author, epoch, number, generation, timeMs } = header;
    const before = this.#at;
    const isNext = before?.author === author && before.epoch === epoch && before.number === number - 1;
    // Statements that were pruned are not here, so nothing is known of what those behind them follow.
    const isPruned = this.#options.holds === 'all' && !('entries' in checked.block);
    if (isPruned) {
      this.#pruned.add(epochName(author, epoch));
      this.#prunedBlocks += 1;
    }
    if (!isNext || isPruned) this.#statements.begin(author, epoch, number > 0 || isPruned);
    this.#at = { author, epoch, number, index: 0 };
    this.#tails.set(epochName(author, epoch), { number, hash });
    const first = number === 0 ? firstOf(checked) : undefined;
    if (first !== undefined) {
      const spot = { author, epoch, number, index: 0 };
      this.#newBeginnings.push({ spot, entry: first, previous: header.previous, atMs: timeMs });
      if (first.role === 'issuer') this.#issuers.add(author);
    } else if (number === 0) {
      this.#problems.add(blockText(this.#at), 'an epoch begins with it, and no entry says who its author is');
    }
    const { block } = checked;
    for (const { index, entry } of checked.entries) {
      const place = { author, epoch, number, index, generation, timeMs, isAfterFork: false };
      if (entry.kind === 'statement' && this.#issuers.has(author)) {
        this.#problems.add(entryText(place), 'issuers have no work with nodes to state');
      } else if (entry.kind === 'statement') this.#statements.statement(place, entry, entryBytes(block, index));
      else if (entry.kind === 'countersign') this.#statements.countersign(place, entry);
      else if (entry.kind === 'claim') this.#statements.claim(place, entry, entryBytes(block, index));
      else this.#money.apply({ entry, place });
    }
  }

  async #judgeAuthors(): Promise<void> {
    const beginnings = this.#newBeginnings;
    this.#newBeginnings = [];
    for (const beginning of beginnings) {
      const { spot, entry, atMs } = beginning;
      this.#beginnings.push(beginning);
      if (await this.#options.mayWrite(spot.author, entry, atMs)) continue;
      this.#unnamed.add(spot.author);
      this.#problems.add(entryText(spot), 'the entry does not prove that its author may write in this mesh');
    }
  }

  /** An epoch's first block names the newest that its author knew before: whether it is still there. */
  #judgeBeginning({ spot, entry, previous }: Beginning): void {
    const { after } = entry;
    if (after === undefined) return;
    const name = epochName(spot.author, after.epoch);
    const tail = this.#tails.get(name);
    const place = { author: spot.author, epoch: after.epoch, number: tail === undefined ? 0 : tail.number + 1 };
    if (tail === undefined || tail.number < after.number) {
      if (!this.#holes.has(name) || tail !== undefined) {
        this.#problems.add(
          blockText(place),
          `blocks up to ${after.number} are missing, which epoch ${spot.epoch} follows`,
        );
      }
    } else if (tail.number === after.number && !isSameBytes(tail.hash, previous)) {
      this.#problems.add(
        blockText(spot),
        `the block does not follow block ${after.number} of epoch ${after.epoch}, which it names`,
      );
    }
  }

  finish(): Verdict {
    const { damaged } = this.#check;
    const broken = new Problems();
    for (const damage of damaged) {
      const { author, epoch, number, reason } = damage;
      this.#holes.add(epochName(author, epoch));
      const place = blockText({ author, epoch, number });
      const problem = this.#explained.get(damage) ?? { place, what: reasons[reason] ?? reason };
      broken.add(problem.place, problem.what);
    }
    for (const { a } of this.#state.proofs()) {
      const { author, epoch } = a.header;
      if (!this.#state.isLifted(author, epoch))
        broken.add(blockText(a.header), 'the author has signed two blocks for this place: a fork');
    }
    for (const beginning of this.#beginnings) this.#judgeBeginning(beginning);
    this.#statements.finish((author, epoch) => {
      const name = epochName(author, epoch);
      return this.#holes.has(name) || this.#pruned.has(name);
    });
    this.#money.finish();
    const problems = [...broken.all(), ...this.#problems.all()];
    const { lines, requests } = this.#statements;
    const pruned = this.#prunedBlocks === 0 ? {} : { pruned: this.#prunedBlocks };
    return { ok: problems.length === 0, entries: this.#check.entries, lines, requests, ...pruned, problems };
  }
}

/** Reads all rows of feeds, changes nothing. @throws HelixFlowError what reading the rows throws. */
export async function verifyFeeds(rows: FeedRows, options: VerifyOptions): Promise<Verdict> {
  const verification = new Verification(options);
  await verification.read(rows);
  return verification.finish();
}
