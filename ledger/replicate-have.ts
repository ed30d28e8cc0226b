/** Header vectors of one exchange: what this side has told, and what the other side has. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { Role } from '../protocol/grants.ts';
import type { AuthorId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { type Have, type HaveNew, haveItemsMax, type Tally, tallyModulus } from '../protocol/messages/ledger.ts';
import type { EpochHead } from './feeds.ts';
import { type EpochKey, keyOf, shortHash } from './replicate-wire.ts';

/** Epochs that one peer may name: what it costs to remember them is bounded. Nodes hold those of issuers only. */
const namedMax = { gateway: 262_144, node: 32_768 } as const;

const violation = (reason: string): HelixFlowError => new HelixFlowError('PROTOCOL_VIOLATION', { reason });

/** What this side has told one peer. */
export class Told {
  readonly #indexes = new Map<EpochKey, number>();
  readonly #counts: number[] = [];
  #blocks = 0;
  #isStart = true;

  /** Takes from `heads` as many as one frame carries, and leaves out those that were told already. */
  frame(heads: readonly EpochHead[], isWhole: boolean): Have {
    const news: Have['news'][number][] = [];
    const changes: Have['changes'][number][] = [];
    for (const { author, epoch, number, head } of heads.slice(0, haveItemsMax)) {
      const key = keyOf({ author, epoch });
      const index = this.#indexes.get(key);
      const count = number + 1;
      const told = index === undefined ? 0 : (this.#counts[index] ?? 0);
      if (count <= told) continue;
      const item = { count, hash: shortHash(head) };
      if (index === undefined) {
        this.#indexes.set(key, this.#counts.length);
        this.#counts.push(count);
        news.push({ author, epoch, ...item });
      } else {
        this.#counts[index] = count;
        changes.push({ index, ...item });
      }
      this.#blocks = (this.#blocks + count - told) % tallyModulus;
    }
    const isStart = this.#isStart;
    this.#isStart = false;
    return { type: 'have', isStart, isWhole, news, changes };
  }

  tally(): Tally {
    return { type: 'tally', epochs: this.#counts.length, blocks: this.#blocks };
  }

  reset(): void {
    this.#indexes.clear();
    this.#counts.length = 0;
    this.#blocks = 0;
    this.#isStart = true;
  }
}

/** An epoch as a peer has named it; `keyOf` of its author and id is all that is remembered of those. */
interface NamedEpoch {
  readonly key: EpochKey;
  readonly count: number;
}

/** What a peer has just told of an epoch. */
export interface HeardEpoch extends NamedEpoch {
  readonly hash: Uint8Array;
}

/** What one peer has told. */
export class Heard {
  #named: NamedEpoch[] = [];
  readonly #namedMax: number;
  readonly #counts = new Map<EpochKey, number>();
  readonly #epochsOf = new Map<AuthorId, number>();
  #blocks = 0;
  /** The peer has named everything that it held when the exchange began. */
  isWhole = false;
  /** What it names counts only from its next start on. */
  isAwaitingStart = true;

  constructor(role: Role) {
    this.#namedMax = namedMax[role];
  }

  /** Blocks of the epoch that the peer holds, as far as it told. */
  countOf(key: EpochKey): number {
    return this.#counts.get(key) ?? 0;
  }

  /** The peer did not give what it had named: it is not asked for more than `count` until it names more. */
  disappointed(key: EpochKey, count: number): void {
    if (this.countOf(key) > count) this.#counts.set(key, count);
  }

  /** The peer holds these blocks, although no `have` has said so. */
  showed(key: EpochKey, count: number): void {
    if (this.countOf(key) < count && (this.#counts.has(key) || this.#counts.size < this.#namedMax))
      this.#counts.set(key, count);
  }

  /** @returns what has changed. @throws HelixFlowError PROTOCOL_VIOLATION */
  take(have: Have): readonly HeardEpoch[] {
    if (have.isStart && !this.isAwaitingStart) throw violation('a start that nobody asked for');
    if (have.isStart) this.#reset();
    if (this.isAwaitingStart) return [];
    this.isWhole ||= have.isWhole;
    const news = have.news.map((item) => this.#name(item));
    const changes = have.changes.map(({ index, count, hash }) => {
      const known = this.#named[index];
      if (known === undefined) throw violation('a change of an epoch that was never named');
      if (count <= known.count) throw violation('a count that does not grow');
      const { key } = known;
      this.#named[index] = { key, count };
      this.#note({ key, count }, known.count);
      return { key, count, hash };
    });
    return [...news, ...changes];
  }

  #name({ author, epoch, count, hash }: HaveNew): HeardEpoch {
    const key = keyOf({ author, epoch });
    const ofAuthor = (this.#epochsOf.get(author) ?? 0) + 1;
    this.#epochsOf.set(author, ofAuthor);
    const isTooMany =
      this.#named.length >= this.#namedMax ||
      ofAuthor > limits.epochsPerAuthorMax ||
      this.#epochsOf.size > limits.authorsMax;
    if (isTooMany) throw violation('more epochs than there may be');
    this.#named.push({ key, count });
    this.#note({ key, count }, 0);
    return { key, count, hash };
  }

  #note({ key, count }: NamedEpoch, before: number): void {
    this.#counts.set(key, Math.max(this.countOf(key), count));
    this.#blocks = (this.#blocks + count - before) % tallyModulus;
  }

  /** Everything that was named. */
  all(): readonly NamedEpoch[] {
    return this.#named;
  }

  /** True when the peer has told what it believes it told. */
  fits({ epochs, blocks }: Tally): boolean {
    return this.isAwaitingStart || (epochs === this.#named.length && blocks === this.#blocks);
  }

  /** The peer names everything again. */
  #reset(): void {
    this.isAwaitingStart = false;
    this.#named = [];
    this.#counts.clear();
    this.#epochsOf.clear();
    this.#blocks = 0;
  }
}
