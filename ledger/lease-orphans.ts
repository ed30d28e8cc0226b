/** Leases of this gateway's earlier processes, which ended without giving them back: closed by the next one, or named. */

import { issuerIdOf } from '../protocol/grants.ts';
import type { AccountId, AuthorId, EpochId, LeaseId, PeerId } from '../protocol/ids.ts';
import type { Clock, Log } from '../protocol/ports.ts';
import { Memory } from '../protocol/tables.ts';
import { peerOf } from './authors.ts';
import { authorKeyOf } from './block.ts';
import type { HeldEntry } from './feeds.ts';
import type { Ledger } from './ledger.ts';
import type { LeaseEntry } from './money.ts';
import { accountIn } from './succession.ts';

export interface OrphanDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: Pick<Ledger, 'append' | 'begin' | 'standing' | 'authorsOf' | 'roots'>;
  /** What lines of this gateway have taken from a lease. */
  readonly spentFrom: (lease: LeaseEntry) => number;
  /** True while every line that was written down is stated, too. */
  readonly isStated: () => boolean;
}

/** A lease that only the operator can end: the account is strict, and nobody can know what was done with it. */
export interface OrphanLease {
  readonly lease: LeaseId;
  readonly account: AccountId;
  readonly amountMicro: number;
}

/** Entries that end leases are remembered, since they may be told before what they end; about 0.1 kB each. */
const endedMax = 65_536;
const heldMax = 16_384;
/** Under load there are always lines on their way; those of earlier processes are stated long before. */
const statedWaitMs = 60_000;

interface Said {
  readonly entry: LeaseEntry;
  readonly by: AuthorId;
}

export class Orphans {
  readonly #deps: OrphanDeps;
  readonly #self: PeerId;
  readonly #said = new Map<LeaseId, Said>();
  readonly #ended = new Memory<true>(endedMax);
  readonly #named = new Set<LeaseId>();
  #openMs: number | undefined;
  #epoch: EpochId | undefined;
  #isBusy = false;

  constructor(deps: OrphanDeps, self: PeerId) {
    this.#deps = deps;
    this.#self = self;
  }

  /** Entries of any kind. */
  entry({ entry, place }: Pick<HeldEntry, 'entry' | 'place'>): void {
    if (entry.kind === 'lease' && entry.holder === this.#self) {
      const known = this.#said.get(entry.lease);
      const isMore = entry.amountMicro > (known?.entry.amountMicro ?? 0);
      const hasRoom = known !== undefined || this.#said.size < heldMax;
      if (isMore && hasRoom && this.#ended.get(entry.lease) === undefined) {
        this.#said.set(entry.lease, { entry, by: place.author });
      }
    }
    const isEnd = entry.kind === 'writeoff' ? this.#isIssuer(place.author) : peerOf(place.author) === this.#self;
    // What this process has closed may still be raised or settled: it is no orphan all the same.
    if ((entry.kind === 'close' || entry.kind === 'writeoff') && isEnd) {
      this.#ended.set(entry.lease, true);
      this.#said.delete(entry.lease);
    }
  }

  #isIssuer(author: AuthorId): boolean {
    return this.#deps.ledger.authorsOf(issuerIdOf(authorKeyOf(author))).includes(author);
  }

  #isStrict({ entry, by }: Said): boolean | undefined {
    return accountIn(this.#deps.ledger, entry.account, issuerIdOf(authorKeyOf(by)))?.strict;
  }

  #orphans(): readonly Said[] {
    return [...this.#said.values()].filter(({ entry, by }) => entry.epoch !== this.#epoch && this.#isIssuer(by));
  }

  /** Those that wait for the operator. */
  waiting(): readonly OrphanLease[] {
    if (this.#epoch === undefined) return [];
    return this.#orphans()
      .filter((said) => this.#isStrict(said) === true)
      .map(({ entry: { lease, account, amountMicro } }) => ({ lease, account, amountMicro }));
  }

  /** Closes what can be closed; call it now and then. @throws HelixFlowError STORE_FAILED and others of `append` */
  async look(): Promise<void> {
    const { clock, ledger, log, spentFrom, isStated } = this.#deps;
    this.#openMs ??= clock.nowMs();
    if (this.#isBusy || this.#orphans().length === 0) return;
    this.#isBusy = true;
    try {
      // Whoever may write has heard what others know of its earlier lines.
      this.#epoch ??= await ledger.begin();
      for (const { lease, account } of this.waiting()) {
        if (this.#named.has(lease)) continue;
        this.#named.add(lease);
        log.warn('lease.awaits-writeoff', { lease, account, command: `helixflow accounts writeoff ${lease}` });
      }
      if (!isStated() && clock.nowMs() - this.#openMs < statedWaitMs) return;
      const closes = this.#orphans()
        .filter((said) => this.#isStrict(said) === false)
        .slice(0, 256)
        .map(({ entry }) => {
          const spentMicro = Math.min(entry.amountMicro, spentFrom(entry));
          return { kind: 'close', lease: entry.lease, spentMicro } as const;
        });
      if (closes.length === 0) return;
      await ledger.append('gateway', closes);
      for (const { lease } of closes) this.#said.delete(lease);
      log.info('lease.closed-for-earlier', { leases: closes.length });
    } finally {
      this.#isBusy = false;
    }
  }
}
