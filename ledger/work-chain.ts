/** The statements of one gateway that a node has countersigned: where each new one belongs, and what was said to the last ones. */

import { isSameBytes } from '../protocol/crypto.ts';
import type { EpochId } from '../protocol/ids.ts';
import type { ForkProof } from './block.ts';
import { follows } from './statement.ts';
import { type ProvenStatement, violation } from './work-frame.ts';
import { headsMax, type KeptStatement, type TabHead } from './work-rows.ts';

/** Statements that are kept for when they come again; more than may be in flight. */
export const keptMax = 128;

/**
 * `next` follows what was countersigned; `gap` follows something that is not known here, as after a restore of an old
 * disk; `late` is one that others have overtaken; `repeated` was countersigned; `forgotten` may have been.
 */
export type Place =
  | { readonly kind: 'next' | 'gap' | 'late' | 'forgotten' }
  | { readonly kind: 'repeated'; readonly kept: KeptStatement };

const nameOf = ({ epoch, number }: { readonly epoch: EpochId; readonly number: number }): string =>
  `${epoch}.${number}`;

export class TabChain {
  readonly #heads = new Map<EpochId, TabHead>();
  /** Oldest first. */
  readonly #kept = new Map<string, KeptStatement>();
  #order = 0;

  load(heads: readonly TabHead[], kept: readonly KeptStatement[]): void {
    for (const head of heads) this.#heads.set(head.epoch, head);
    for (const one of [...kept].sort((a, b) => a.order - b.order)) {
      this.#kept.set(nameOf(one), one);
      this.#order = one.order + 1;
    }
  }

  heads(): readonly TabHead[] {
    return [...this.#heads.values()];
  }

  /** The epoch that was added to last. */
  newest(): TabHead | undefined {
    return this.heads().at(-1);
  }

  get order(): number {
    return this.#order;
  }

  /** Two headers of one place in the feed, of which this is one. */
  forkWith({ head }: ProvenStatement): ForkProof | undefined {
    const { epoch, number } = head.header;
    for (const { head: other } of this.#kept.values()) {
      const isPlace = other.header.epoch === epoch && other.header.number === number;
      if (isPlace && !isSameBytes(other.hash, head.hash)) return { a: other, b: head };
    }
    return undefined;
  }

  /** @throws HelixFlowError PROTOCOL_VIOLATION for one that cannot stand in the same feed as those before. */
  placeOf({ head, entry, hash }: ProvenStatement): Place {
    const { epoch } = head.header;
    const { number } = entry;
    const kept = this.#kept.get(nameOf({ epoch, number }));
    if (kept !== undefined) {
      if (!isSameBytes(kept.hash, hash)) throw violation('another one under a number that was countersigned');
      return { kind: 'repeated', kept };
    }
    const last = this.#heads.get(epoch);
    if (number === (last === undefined ? 0 : last.number + 1)) {
      if (!follows(entry, last)) throw violation('does not follow the one before');
      return { kind: 'next' };
    }
    if (last === undefined || number > last.number) return { kind: 'gap' };
    if (number <= last.forgotten) return { kind: 'forgotten' };
    const before = this.#kept.get(nameOf({ epoch, number: number - 1 }));
    if (before !== undefined && !isSameBytes(before.hash, entry.previous)) {
      throw violation('does not follow the one before');
    }
    return { kind: 'late' };
  }

  /** Keeps a statement that is countersigned; tells which ones are kept no more. */
  keep({ head, entry, hash }: ProvenStatement, countersign: Uint8Array): readonly KeptStatement[] {
    const { epoch } = head.header;
    const { number, totals } = entry;
    const last = this.#heads.get(epoch);
    this.#heads.delete(epoch);
    const isNewest = last === undefined || number > last.number;
    const newest = isNewest ? { epoch, number, hash, totals, forgotten: last?.forgotten ?? -1 } : last;
    this.#heads.set(epoch, newest);
    const [oldestEpoch] = this.#heads.keys();
    if (this.#heads.size > headsMax && oldestEpoch !== undefined) this.#heads.delete(oldestEpoch);
    this.#kept.set(nameOf({ epoch, number }), { epoch, number, order: this.#order, head, hash, countersign });
    this.#order += 1;
    return this.#forget();
  }

  keptAt(place: { readonly epoch: EpochId; readonly number: number }): KeptStatement | undefined {
    return this.#kept.get(nameOf(place));
  }

  #forget(): KeptStatement[] {
    const gone: KeptStatement[] = [];
    for (const [name, kept] of this.#kept) {
      if (this.#kept.size <= keptMax) break;
      this.#kept.delete(name);
      gone.push(kept);
      const head = this.#heads.get(kept.epoch);
      if (head !== undefined) {
        this.#heads.set(kept.epoch, { ...head, forgotten: Math.max(head.forgotten, kept.number) });
      }
    }
    return gone;
  }
}
