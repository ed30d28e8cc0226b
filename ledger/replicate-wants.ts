/** Who is asked for what: every missing block of one peer at a time, as many at once as windows allow. */

import { limits } from '../protocol/limits.ts';
import { type Want, wantMinBytes } from '../protocol/messages/ledger.ts';
import type { Feeds } from './feeds.ts';
import type { Heard } from './replicate-have.ts';
import { type EpochKey, nameOf } from './replicate-wire.ts';

/** A peer that may be asked. */
export interface Source {
  readonly heard: Heard;
  /** Epochs of which it has told more than was held here then. */
  readonly todo: Set<EpochKey>;
  /** Where the peer's branch of an epoch has left ours: halved until its first block is found, the proof of a fork. */
  readonly contradictions: Map<EpochKey, Contradiction>;
  /** What it may still be asked for now; 0 while it does not answer. */
  readonly roomBytes: number;
  /** @param contradiction What the answer is for, when it is not for catching up. */
  ask(want: Want, contradiction?: Contradiction): void;
}

/** The first block that differs is one of these. */
export interface Contradiction {
  readonly low: number;
  /** This one does. */
  readonly high: number;
}

/** An epoch that is being caught up from one peer. */
interface Catching {
  readonly source: Source;
  /** What was held when it began. */
  readonly before: number;
  /** The first block that was not asked for, or that has not come. */
  next: number;
  isAsked: boolean;
  /** Answers that are being stored. */
  storing: number;
}

/** Epochs that share the room of one peer. */
const sharesMax = limits.ledgerWindowBytes / wantMinBytes;

export class Wants {
  readonly #feeds: Feeds;
  readonly #catching = new Map<EpochKey, Catching>();

  constructor(feeds: Feeds) {
    this.#feeds = feeds;
  }

  /** Blocks of the epoch that are held from the first on. */
  held(key: EpochKey): number {
    const { author, epoch } = nameOf(key);
    return (this.#feeds.headOf(author, epoch)?.number ?? -1) + 1;
  }

  /** Asks the peer for as much as it may be asked for. */
  fill(source: Source): void {
    for (const [key, contradiction] of source.contradictions) {
      if (source.roomBytes < wantMinBytes) return;
      source.contradictions.delete(key);
      const from = Math.floor((contradiction.low + contradiction.high) / 2);
      source.ask({ type: 'want', ...nameOf(key), from, maxBytes: wantMinBytes }, contradiction);
    }
    for (const key of source.todo) {
      if (source.roomBytes < wantMinBytes) return;
      if (this.#catching.has(key)) continue;
      const held = this.held(key);
      if (source.heard.countOf(key) <= held) source.todo.delete(key);
      else {
        const catching = { source, before: held, next: held, isAsked: true, storing: 0 };
        this.#catching.set(key, catching);
        this.#ask(key, catching);
      }
    }
  }

  #ask(key: EpochKey, catching: Catching): void {
    const { source, next } = catching;
    const shares = Math.min(Math.max(source.todo.size, 1), sharesMax);
    const maxBytes = Math.max(Math.floor(source.roomBytes / shares), wantMinBytes);
    catching.isAsked = true;
    source.ask({ type: 'want', ...nameOf(key), from: next, maxBytes });
  }

  /** A part of an answer has come and is about to be stored. */
  came(key: EpochKey, source: Source, next: number, isLast: boolean): void {
    const catching = this.#catching.get(key);
    if (catching?.source !== source) return;
    const isMore = next > catching.next;
    catching.next = next;
    catching.storing += 1;
    if (!isLast) return;
    catching.isAsked = false;
    // The next part is under way while this one is checked and synced.
    if (isMore && source.heard.countOf(key) > next && source.roomBytes >= wantMinBytes) this.#ask(key, catching);
  }

  /** That part is stored, or was refused; then the peer is not asked for it again until it names more. */
  stored(key: EpochKey, source: Source): void {
    const catching = this.#catching.get(key);
    if (catching?.source !== source) return;
    catching.storing -= 1;
    if (catching.isAsked || catching.storing > 0) return;
    this.#catching.delete(key);
    const held = this.held(key);
    if (held === catching.before) source.heard.disappointed(key, held);
  }

  /** The peer is gone, or does not answer: others may be asked. */
  released(source: Source): void {
    for (const [key, catching] of this.#catching) if (catching.source === source) this.#catching.delete(key);
  }
}
