/** What a tab of a node has yet to write, and the countersignatures that leave once it is written. */

import type { PeerId } from '../protocol/ids.ts';
import type { StoreOp } from '../protocol/ports.ts';
import type { WorkLink } from './work.ts';
import type { TabWork } from './work-own.ts';
import {
  type GatewayRecord,
  gatewayKey,
  type KeptStatement,
  keptKey,
  peerKey,
  seenKey,
  workKey,
  writeGateway,
  writeKept,
  writeSeen,
  writeWork,
} from './work-rows.ts';
import type { SeenPiece } from './work-seen.ts';

export class TabChanges {
  readonly #peer: Uint8Array;
  /** Records that have changed, or go. */
  readonly #works = new Map<TabWork, 'put' | 'del'>();
  readonly #kept = new Map<KeptStatement, 'put' | 'del'>();
  /** Where a countersignature goes once it is on disk. */
  readonly #waiting = new Map<KeptStatement, WorkLink>();

  constructor(gateway: PeerId) {
    this.#peer = peerKey(gateway);
  }

  /** Countersignatures that are not on disk yet. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** A record is new, or not what it was. */
  work(work: TabWork): void {
    if (work.coveredBy === undefined) this.#works.set(work, 'put');
  }

  /** A record is needed no more. */
  covered(work: TabWork): void {
    if (work.isWritten) this.#works.set(work, 'del');
    else this.#works.delete(work);
  }

  countersigned(kept: KeptStatement, link: WorkLink): void {
    this.#kept.set(kept, 'put');
    this.#waiting.set(kept, link);
  }

  /** It came again: the answer goes to who asked last. */
  answerAgain(kept: KeptStatement, link: WorkLink): void {
    if (this.#waiting.has(kept)) this.#waiting.set(kept, link);
    else link.sendTab({ type: 'countersign', entry: kept.countersign });
  }

  forgotten(kept: KeptStatement): void {
    this.#kept.set(kept, 'del');
  }

  #workOp(work: TabWork, type: 'put' | 'del'): StoreOp | undefined {
    const key = workKey(this.#peer, work);
    if (type === 'del') return { type, key };
    const record = work.record();
    if (record === undefined) return undefined;
    work.isWritten = true;
    return { type, key, value: writeWork(key, record) };
  }

  take(
    record: GatewayRecord,
    pieces: { readonly changed: readonly SeenPiece[]; readonly gone: readonly SeenPiece[] },
  ): { readonly ops: readonly StoreOp[]; done(): void } {
    const ops: StoreOp[] = [];
    const put = (key: Uint8Array, value: Uint8Array): void => {
      ops.push({ type: 'put', key, value });
    };
    for (const [work, type] of this.#works) {
      const op = this.#workOp(work, type);
      if (op !== undefined) ops.push(op);
    }
    for (const [kept, type] of this.#kept) {
      const key = keptKey(this.#peer, kept);
      if (type === 'del') ops.push({ type, key });
      else put(key, writeKept(key, kept));
    }
    for (const piece of pieces.changed) {
      const key = seenKey(this.#peer, piece);
      put(key, writeSeen(key, piece));
    }
    for (const piece of pieces.gone) ops.push({ type: 'del', key: seenKey(this.#peer, piece) });
    const key = gatewayKey(this.#peer);
    put(key, writeGateway(key, record));
    const signed = [...this.#kept].flatMap(([kept, type]) => (type === 'put' ? [kept] : []));
    this.#works.clear();
    this.#kept.clear();
    return { ops, done: () => this.#send(signed) };
  }

  #send(signed: readonly KeptStatement[]): void {
    for (const kept of signed) {
      this.#waiting.get(kept)?.sendTab({ type: 'countersign', entry: kept.countersign });
      this.#waiting.delete(kept);
    }
  }
}
