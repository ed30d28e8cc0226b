/** Each day usage is folded into counters; then what they hold of old statements may go from this gateway's disk. */

import { isHelixFlowError } from '../protocol/errors.ts';
import type { Cancel, Clock, Log, Store } from '../protocol/ports.ts';
import { dayMs, ms, type UnixMs, unixMs } from '../protocol/units.ts';
import type { Checkpoints } from './checkpoint.ts';
import type { FoldedUsage } from './create-usage.ts';
import { pruneEpoch } from './feed-prune.ts';
import type { Ledger } from './ledger.ts';
import type { UsageDimension } from './usage.ts';

export interface RetentionDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: Pick<Ledger, 'heads'>;
  readonly usage: FoldedUsage;
  readonly checkpoints: Checkpoints;
}

export interface RetentionOptions {
  /** Statements older than this leave the disk; undefined: none, as an archive needs. At least 1. */
  readonly retainDays?: number;
}

/** What the last turn did. */
export interface Folded {
  readonly atMs: UnixMs;
  /** Blocks that were cut down, and bytes that this freed. */
  readonly blocks: number;
  readonly bytes: number;
}

export interface Retention {
  /** From now on each day; the first time soon, so that a gateway that is often restarted has its turn. */
  start(): void;
  /** Does it now, after a turn that is under way. @throws HelixFlowError STORE_FAILED */
  fold(): Promise<Folded>;
  last(): Folded | undefined;
  /** Resolves when a turn that is under way has ended. */
  close(): Promise<void>;
}

/** One for each kind of sum that days keep, the finer ones first: coarser ones are made of them. */
const askedOften: readonly (readonly UsageDimension[])[] = [
  ['account', 'model'],
  ['account', 'node'],
  ['model', 'node'],
  ['account'],
  ['model'],
  ['node'],
  [],
];
const soonMs = ms(600_000);

class DailyRetention implements Retention {
  readonly #deps: RetentionDeps;
  readonly #options: RetentionOptions;
  /** By author and epoch: blocks before it have been looked at. */
  readonly #looked = new Map<string, number>();
  #last: Folded | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #cancel: Cancel | undefined;
  #isClosed = false;

  constructor(deps: RetentionDeps, options: RetentionOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  start(): void {
    this.#wait(soonMs);
    void this.#warm();
  }

  /** Sums that are asked for often are made before somebody waits for them. */
  async #warm(): Promise<void> {
    const { clock, usage } = this.#deps;
    for (const by of askedOften) {
      await clock.turn();
      if (!this.#isClosed) usage.rollUp({}, by);
    }
  }

  #wait(delayMs: typeof dayMs): void {
    if (this.#isClosed) return;
    this.#cancel = this.#deps.clock.timer(delayMs, () => void this.#daily());
  }

  async #daily(): Promise<void> {
    try {
      await this.fold();
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.error('usage.not-folded', { code: error.code });
    }
    this.#wait(dayMs);
  }

  fold(): Promise<Folded> {
    const turn = this.#turn.then(() => this.#fold());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #fold(): Promise<Folded> {
    const { clock, log, ledger, checkpoints } = this.#deps;
    const { retainDays } = this.#options;
    // What comes in between is not in the counters, nor known to be.
    const heads = ledger.heads();
    const { covers } = await checkpoints.write();
    let [blocks, bytes] = [0, 0];
    if (retainDays !== undefined) {
      const beforeMs = unixMs(Math.max(0, clock.wallMs() - retainDays * dayMs));
      for (const head of heads) {
        if (this.#isClosed) break;
        const name = `${head.author}/${head.epoch}`;
        const from = this.#looked.get(name) ?? 0;
        const isOver = (): boolean => this.#isClosed;
        const pruned = await pruneEpoch(this.#deps, head, from, { beforeMs, isDropped: covers, isOver });
        this.#looked.set(name, pruned.next);
        blocks += pruned.blocks;
        bytes += pruned.bytes;
      }
    }
    log.info('usage.folded', { blocks, bytes });
    this.#last = { atMs: clock.wallMs(), blocks, bytes };
    return this.#last;
  }

  last(): Folded | undefined {
    return this.#last;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel?.();
    await this.#turn;
  }
}

/** Open the ledger before it starts. */
export const createRetention = (deps: RetentionDeps, options: RetentionOptions): Retention =>
  new DailyRetention(deps, options);
