/** Whom an authority must have heard before it leases of strict budgets: everyone who may hold what it does not know of. */

import { encodeValue } from '../protocol/codec.ts';
import type { AuthorId, PeerId } from '../protocol/ids.ts';
import type { Clock, Store } from '../protocol/ports.ts';
import type { LeaseBook } from './lease-book.ts';
import type { Ledger } from './ledger.ts';

export interface RollDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly ledger: Pick<Ledger, 'standing'>;
  readonly book: LeaseBook;
}

export interface RollOptions {
  readonly self: PeerId;
  /** The authority's own. */
  readonly author: AuthorId;
  /** It took over from another issuer, which may have leased on without knowing it. Asked once, by `open`. */
  readonly hasPredecessor: () => boolean;
}

const encoder = new TextEncoder();
const restoredRow = encoder.encode('b/restored');

/** True for a store that `markRestored` has marked, until all gateways were heard. @throws HelixFlowError STORE_FAILED */
export const isRestored = async (store: Pick<Store, 'get'>): Promise<boolean> =>
  (await store.get(restoredRow)) !== undefined;

/**
 * Notes in a store that it was restored, and may know less than was said before: strict accounts then wait for all
 * gateways. @throws HelixFlowError STORE_FAILED
 */
export const markRestored = (store: Store): Promise<void> =>
  store.batch([{ type: 'put', key: restoredRow, value: encodeValue([1]) }], { sync: true });

/** A list of gateways, ticked off as they report. */
export class RollCall {
  readonly #deps: RollDeps;
  readonly #options: RollOptions;
  readonly #heard = new Set<PeerId>();
  #isDone = false;

  constructor(deps: RollDeps, options: RollOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  get #row(): Uint8Array {
    return encoder.encode(`b/roll/${this.#options.author}`);
  }

  /** A roll that was called to its end is called once. @throws HelixFlowError STORE_FAILED */
  async open(): Promise<void> {
    const { store } = this.#deps;
    if (await isRestored(store)) return;
    this.#isDone = !this.#options.hasPredecessor() || (await store.get(this.#row)) !== undefined;
  }

  heard(peer: PeerId): void {
    this.#heard.add(peer);
  }

  /** Something came back that this store had lost, so there may be more. @throws HelixFlowError STORE_FAILED */
  async forgot(): Promise<void> {
    if (!this.#isDone) return;
    this.#isDone = false;
    await markRestored(this.#deps.store);
  }

  /** Who has not reported, may still hold something, and was not given up by a ban or by writing its leases off. */
  missing(): readonly PeerId[] {
    if (this.#isDone) return [];
    const { ledger, book, clock } = this.#deps;
    const nowMs = clock.wallMs();
    const members = ledger.standing
      .members()
      .filter(({ role, expiresMs }) => role === 'gateway' && expiresMs > nowMs)
      .map(({ peer }) => peer)
      .filter((peer) => !book.isGivenUp(peer));
    const holders = book.open().map(({ holder }) => holder);
    return [...new Set([...members, ...holders])].filter(
      (peer) => peer !== this.#options.self && !this.#heard.has(peer) && !ledger.standing.isBanned(peer),
    );
  }

  /** True once nobody is missing; that is kept. @throws HelixFlowError STORE_FAILED */
  async isComplete(): Promise<boolean> {
    if (this.#isDone) return true;
    if (this.missing().length > 0) return false;
    await this.#deps.store.batch(
      [
        { type: 'put', key: this.#row, value: encodeValue([1]) },
        { type: 'del', key: restoredRow },
      ],
      { sync: true },
    );
    this.#isDone = true;
    return true;
  }
}
