/** Budgets as a gateway has them: what it may spend itself, and, where an issuer's key is held, what it leases to others. */

import { isHelixFlowError } from '../protocol/errors.ts';
import type { AccountId, AuthorId, IssuerId, LeaseId, PeerId } from '../protocol/ids.ts';
import type { IssuerRecord } from '../protocol/mesh.ts';
import { type LeaseAnswer, type LeaseQuestion, leaseRowsMax, type MoneyAsk } from '../protocol/messages/lease.ts';
import type { PeerInfo } from '../protocol/peer/hello.ts';
import type { Cancel, Channel, Clock, Connection, Log, Network, Random, Store } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import { authorIdOf } from './block.ts';
import type { BudgetAccount, BudgetSheet, BudgetStatus, Budgets, ShareQuery } from './budgets.ts';
import { createLeaseAuthority, type LeaseAuthority } from './lease-authority.ts';
import type { LeaseFacts } from './lease-book.ts';
import { createMoneyHolder, type MoneyHolder } from './lease-money.ts';
import { createLeaseWire, type LeaseWire } from './lease-wire.ts';
import type { Ledger } from './ledger.ts';
import type { LeaseEntry } from './money.ts';

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
  /** What lines known here have taken from a lease, as `Usage.spentFrom` tells; leases count whole without it. */
  readonly spentFrom?: (lease: Pick<LeaseEntry, 'lease' | 'holder'>) => number;
}

export interface BudgetOptions {
  /** The issuer's key, where this gateway holds it. */
  readonly issuer?: IssuerRecord;
  /** What an account that is not strict may spend here in a day without a lease, at this gateway's expense. */
  readonly graceMicro?: number;
  /** How long a request waits for money. */
  readonly waitMs?: number;
  /** The store may know less than it did, as after a restore: strict accounts wait for all gateways. */
  readonly mayHaveForgotten?: boolean;
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
  /** Which channel each issuer was told on what is held here. */
  readonly #reported = new Map<IssuerId, Channel>();
  readonly #cancels: Cancel[];
  #cancelLook: Cancel = () => {};

  constructor(ports: BudgetPorts, options: BudgetOptions) {
    const { issuer, graceMicro = defaultGraceMicro, waitMs = defaultWaitMs, mayHaveForgotten = false } = options;
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
        { self, author: authorIdOf(issuer.key.publicKey), mayHaveForgotten },
      );
    const { ledger } = ports;
    this.#cancels = [
      ledger.onEntry((held) => {
        this.#authority?.entry(held);
        this.#holder.entry(held);
      }),
      ledger.onChange(({ kind }) => {
        if (kind === 'roots') this.#look();
      }),
    ];
  }

  async open(): Promise<void> {
    await this.#authority?.open();
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
      default:
        return undefined;
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
      default:
        break;
    }
  }

  /** Tells every issuer in office, where it can be reached, what is held here of its accounts. */
  #look(): void {
    const { ledger, network } = this.#ports;
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

  async #report(to: { readonly issuer: IssuerId; readonly author: AuthorId; readonly peer: PeerId }): Promise<void> {
    const { issuer, author, peer } = to;
    const all = this.#holder.holdings(author);
    for (let from = 0; from === 0 || from < all.length; from += leaseRowsMax) {
      const leases = all.slice(from, from + leaseRowsMax);
      const isLast = from + leaseRowsMax >= all.length;
      const channel = await this.#wire.ask(peer, { type: 'report', issuer, isLast, leases });
      if (channel === undefined) return;
      if (isLast) this.#reported.set(issuer, channel);
    }
  }

  hold(account: BudgetAccount, needMicro: number): ReturnType<Budgets['hold']> {
    return this.#holder.hold(account, needMicro);
  }

  share({ total }: ShareQuery): number {
    return total;
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

  async close(): Promise<void> {
    this.#cancelLook();
    await this.#holder.close();
    for (const cancel of this.#cancels) cancel();
    this.#wire.close();
  }
}

/** Installs `/helixflow/lease/1` on the network. */
export const createBudgets = (ports: BudgetPorts, options: BudgetOptions = {}): GatewayBudgets =>
  new LocalBudgets(ports, options);
