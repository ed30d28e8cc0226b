/** Budgets as a gateway has them: what it may spend itself, and, where an issuer's key is held, what it leases to others. */

import { isHelixFlowError } from '../protocol/errors.ts';
import type { AccountId, AuthorId, IssuerId, LeaseId, PeerId } from '../protocol/ids.ts';
import type { IssuerRecord } from '../protocol/mesh.ts';
import {
  type LeaseAnswer,
  type LeaseQuestion,
  leaseRowsMax,
  type MoneyAsk,
  type ShareSubject,
} from '../protocol/messages/lease.ts';
import type { PeerInfo } from '../protocol/peer/hello.ts';
import type { Cancel, Channel, Clock, Connection, Log, Network, Random, Store } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import { authorIdOf } from './block.ts';
import type { BudgetAccount, BudgetSheet, BudgetStatus, Budgets, ShareQuery, ShareStatus } from './budgets.ts';
import { createLeaseAuthority, type LeaseAuthority } from './lease-authority.ts';
import type { LeaseFacts } from './lease-book.ts';
import { createMoneyHolder, type MoneyHolder } from './lease-money.ts';
import { type OrphanLease, Orphans } from './lease-orphans.ts';
import { createShareHolder, type ShareHolder, type Sharer } from './lease-shares.ts';
import { createWindowAuthority, type WindowAuthority } from './lease-windows.ts';
import { createLeaseWire, type LeaseWire } from './lease-wire.ts';
import type { Ledger } from './ledger.ts';
import type { LeaseEntry } from './money.ts';
import { accountOf, keyOf } from './succession.ts';
import { createTagExchange, type TagExchange } from './tag-exchange.ts';
import type { TagKeys } from './tag-keys.ts';

export interface BudgetPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly network: Network;
  readonly store: Store;
  readonly log: Log;
  readonly ledger: Pick<
    Ledger,
    | 'append'
    | 'begin'
    | 'standing'
    | 'roots'
    | 'authorsOf'
    | 'holderOf'
    | 'holdsBefore'
    | 'own'
    | 'onEntry'
    | 'onChange'
  >;
  /** Keys of tags, which come by the same conversation. */
  readonly tags?: TagKeys;
  /** What lines known here have taken from a lease, as `Usage.spentFrom` tells; leases count whole without it. */
  readonly spentFrom?: (lease: Pick<LeaseEntry, 'lease' | 'holder'>) => number;
  /** True while every line that was written down is stated, too. */
  readonly isStated?: () => boolean;
}

export interface BudgetOptions {
  /** The issuer's key, where this gateway holds it. */
  readonly issuer?: IssuerRecord;
  /** What an account that is not strict may spend here in a day without a lease, at this gateway's expense. */
  readonly graceMicro?: number;
  /** How long a request waits for money. */
  readonly waitMs?: number;
  /** As `LedgerOptions.recovers`: others may know what this store does not. */
  readonly recovers?: boolean;
}

/** Everything about budgets at one gateway; create it before `Ledger.open` and the network's `start`. */
export interface GatewayBudgets extends Budgets {
  /** Call after `Ledger.open`. @throws HelixFlowError STORE_FAILED */
  open(): Promise<void>;
  /** A connection was admitted. */
  admitted(connection: Connection, info: PeerInfo): void;
  /** A budget as its authority sees it; undefined elsewhere. */
  sheet(account: AccountId): BudgetSheet | undefined;
  /** A lease that nobody has closed; undefined also where this gateway keeps no budgets. */
  openLease(lease: LeaseId): LeaseFacts | undefined;
  /** Gateways that strict accounts wait for, after a handover or a restore. */
  missing(): readonly PeerId[];
  /** Leases of strict accounts that earlier processes of this gateway have left open: they wait to be written off. */
  orphans(): readonly OrphanLease[];
}

/** A tenth of a credit. */
const defaultGraceMicro = 100_000;
const defaultWaitMs = 2_000;
const lookEveryMs = ms(5_000);

class LocalBudgets implements GatewayBudgets {
  readonly #ports: BudgetPorts;
  readonly #wire: LeaseWire;
  readonly #holder: MoneyHolder;
  readonly #authority: LeaseAuthority | undefined;
  readonly #windows: WindowAuthority;
  readonly #shares: ShareHolder;
  readonly #tags: TagExchange | undefined;
  readonly #orphans: Orphans | undefined;
  #isOpen = false;
  /** Gateways that may use the same keys. */
  #others: readonly PeerId[] = [];
  /** Which channel each issuer was told on what is held here. */
  readonly #reported = new Map<IssuerId, Channel>();
  readonly #cancels: Cancel[];
  #cancelLook: Cancel = () => {};

  constructor(ports: BudgetPorts, options: BudgetOptions) {
    const { issuer, graceMicro = defaultGraceMicro, waitMs = defaultWaitMs } = options;
    const { self } = ports.network;
    this.#ports = ports;
    this.#wire = createLeaseWire(ports, {
      asked: (peer, question) => this.#asked(peer, question),
      told: (peer, answer) => this.#told(peer, answer),
      reachable: () => this.#look(),
    });
    this.#holder = createMoneyHolder(
      { ...ports, random: ports.random.fork('leases'), ask: (of, ask) => this.#ask(of, ask) },
      { self, graceMicro, waitMs },
    );
    this.#authority =
      issuer &&
      createLeaseAuthority(
        { ...ports, spentFrom: ports.spentFrom ?? (() => 0), recall: (holder, lease) => this.#recall(holder, lease) },
        { self, author: authorIdOf(issuer.key.publicKey) },
      );
    this.#windows = createWindowAuthority({
      clock: ports.clock,
      keeps: (of) => this.#authority?.keeps(of) === true,
      totalOf: (subject) => this.#totalOf(subject),
      others: () => this.#others,
      poke: (holder, subjects) => this.#poke(holder, subjects),
    });
    this.#shares = createShareHolder({
      clock: ports.clock,
      sharerOf: (of) => this.#sharerOf(of),
      askHere: (ask) => this.#windows.ask(self, ask),
      ask: async (peer, ask) => (await this.#wire.ask(peer, ask)) !== undefined,
    });
    const { ledger, tags } = ports;
    this.#tags =
      tags &&
      createTagExchange({
        ...ports,
        tags,
        self,
        keeps: (of) => this.#authority?.keeps(of) === true,
        others: () => this.#others,
        recovers: options.recovers === true,
        channelTo: (peer) => this.#wire.channelTo(peer),
        isReachable: (peer) => this.#wire.isReachable(peer),
        ask: (peer, ask) => this.#wire.ask(peer, ask),
      });
    const { spentFrom, isStated = () => true } = ports;
    this.#orphans = spentFrom && new Orphans({ ...ports, spentFrom, isStated }, self);
    this.#cancels = [
      ledger.onEntry((held) => {
        this.#orphans?.entry(held);
        this.#authority?.entry(held);
        this.#holder.entry(held);
      }),
      ledger.onChange((change) => {
        const { kind } = change;
        if (kind === 'account') {
          this.#authority?.changed(change.account);
          this.#holder.changed(change.account);
        }
        if (kind === 'roots' || kind === 'member' || kind === 'ban') this.#look();
      }),
    ];
  }

  async open(): Promise<void> {
    await this.#authority?.open();
    this.#isOpen = true;
    this.#look();
    this.#lookLater();
  }

  #lookLater(): void {
    this.#cancelLook = this.#ports.clock.timer(lookEveryMs, () => {
      this.#look();
      this.#lookLater();
    });
  }

  admitted(connection: Connection, info: PeerInfo): void {
    this.#wire.admitted(connection, info);
  }

  async #ask(issuer: IssuerId, ask: MoneyAsk): Promise<boolean> {
    const { ledger, network } = this.#ports;
    if (this.#authority?.keeps(issuer)) {
      const answer = await this.#authority.ask(network.self, ask);
      this.#holder.told('here', answer);
      return true;
    }
    const peer = ledger.holderOf(issuer);
    if (peer === undefined || peer === network.self) return false;
    return (await this.#wire.ask(peer, ask)) !== undefined;
  }

  #recall(holder: PeerId, lease: LeaseId): void {
    if (holder === this.#ports.network.self) this.#holder.recalled(lease);
    else this.#wire.tell(holder, { type: 'recall', lease });
  }

  #poke(holder: PeerId, subjects: readonly ShareSubject[]): void {
    if (holder === this.#ports.network.self) this.#shares.poked(subjects);
    else this.#wire.tell(holder, { type: 'poke', subjects });
  }

  async #asked(peer: PeerId, question: LeaseQuestion): Promise<LeaseAnswer | undefined> {
    switch (question.type) {
      case 'ask':
        return (
          (await this.#authority?.ask(peer, question)) ?? {
            type: 'refusal',
            id: question.id,
            reason: 'unknown',
            leftMicro: 0,
          }
        );
      case 'report':
        await this.#authority?.report(peer, question);
        return undefined;
      case 'shareAsk':
        return this.#windows.ask(peer, question);
      case 'keysAsk':
        return await this.#tags?.asked(peer, question);
    }
  }

  #told(peer: PeerId, answer: LeaseAnswer): void {
    switch (answer.type) {
      case 'grant':
      case 'refusal':
        this.#holder.told(peer, answer);
        break;
      case 'recall':
        this.#holder.recalled(answer.lease);
        break;
      case 'shares':
        this.#shares.told(peer, answer);
        break;
      case 'poke':
        this.#shares.poked(answer.subjects);
        break;
      case 'keys':
        this.#tags?.told(peer, answer);
        break;
    }
  }

  /** Tells every issuer in office, where it can be reached, what is held here of its accounts. */
  #look(): void {
    const { ledger, network } = this.#ports;
    this.#learnOthers();
    this.#tags?.look();
    if (this.#isOpen) this.#closeOrphans();
    for (const issuer of ledger.roots.issuers.keys()) {
      const authors = ledger.authorsOf(issuer);
      const [author] = authors;
      const peer = ledger.holderOf(issuer);
      if (author === undefined || authors.length > 1 || peer === undefined || peer === network.self) continue;
      const channel = this.#wire.channelTo(peer);
      if (channel !== undefined && this.#reported.get(issuer) === channel) continue;
      if (!this.#wire.isReachable(peer)) continue;
      void this.#report({ issuer, author, peer }).catch((error: unknown) => {
        if (!isHelixFlowError(error)) throw error;
      });
    }
  }

  #closeOrphans(): void {
    this.#orphans?.look().catch((error: unknown) => {
      if (!isHelixFlowError(error)) throw error;
      this.#ports.log.debug('lease.orphans-not-closed', { code: error.code });
    });
  }

  async #report(to: { readonly issuer: IssuerId; readonly author: AuthorId; readonly peer: PeerId }): Promise<void> {
    const { issuer, author, peer } = to;
    const all = this.#holder.holdings(author);
    for (let from = 0; from === 0 || from < all.length; from += leaseRowsMax) {
      const leases = all.slice(from, from + leaseRowsMax);
      const isLast = from + leaseRowsMax >= all.length;
      const channel = await this.#wire.ask(peer, { type: 'report', issuer, isLast, leases });
      if (channel === undefined) return;
      if (isLast) this.#reported.set(issuer, channel);
      if (isLast) this.#shares.report(peer);
    }
  }

  hold(account: BudgetAccount, needMicro: number): ReturnType<Budgets['hold']> {
    return this.#holder.hold(account, needMicro);
  }

  share(query: ShareQuery): number {
    return this.#shares.share(query);
  }

  shares(): ShareStatus {
    return this.#shares.status();
  }

  /** Whom an issuer's limits are shared with. Asked with each request. */
  #sharerOf(issuer: IssuerId): Sharer {
    if (this.#authority?.keeps(issuer)) return this.#others.length === 0 ? 'alone' : 'here';
    const peer = this.#ports.ledger.holderOf(issuer);
    return peer === this.#ports.network.self ? undefined : peer;
  }

  #learnOthers(): void {
    const { ledger, clock, network } = this.#ports;
    const nowMs = clock.wallMs();
    const members = ledger.standing
      .members()
      .filter(
        ({ peer, role, expiresMs }) => role === 'gateway' && expiresMs > nowMs && !ledger.standing.isBanned(peer),
      );
    const peers = new Set([...members.map(({ peer }) => peer), ...this.#wire.gateways()]);
    peers.delete(network.self);
    this.#others = [...peers];
  }

  /** As the issuer's own entries tell of it. */
  #totalOf({ issuer, subject, limit }: ShareSubject): number | undefined {
    const { ledger } = this.#ports;
    if (subject.kind === 'account') return accountOf(ledger, subject.account, issuer)?.limits[limit];
    const key = keyOf(ledger, subject.key, issuer);
    return (key?.terms ?? key?.made?.terms)?.limits[limit];
  }

  status(): readonly BudgetStatus[] {
    return this.#holder.status();
  }

  sheet(account: AccountId): BudgetSheet | undefined {
    return this.#authority?.sheet(account);
  }

  openLease(lease: LeaseId): LeaseFacts | undefined {
    return this.#authority?.openLease(lease);
  }

  missing(): readonly PeerId[] {
    return this.#authority?.missing() ?? [];
  }

  orphans(): readonly OrphanLease[] {
    return this.#orphans?.waiting() ?? [];
  }

  async close(): Promise<void> {
    this.#isOpen = false;
    this.#cancelLook();
    this.#shares.close();
    await this.#holder.close();
    for (const cancel of this.#cancels) cancel();
    this.#wire.close();
  }
}

/** Installs `/helixflow/lease/1` on the network. */
export const createBudgets = (ports: BudgetPorts, options: BudgetOptions = {}): GatewayBudgets =>
  new LocalBudgets(ports, options);
