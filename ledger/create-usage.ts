/** Usage over everything that feeds tell: each entry changes the counters, and questions only sum them up. */

import type { Value } from '../protocol/codec.ts';
import { fromHex, toHex } from '../protocol/crypto.ts';
import type { AuthorId, EpochId, MeshId, Tag } from '../protocol/ids.ts';
import { assert } from '../protocol/invariant.ts';
import { limits } from '../protocol/limits.ts';
import { peerIdOf } from '../protocol/peer/identity.ts';
import type { Clock } from '../protocol/ports.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import { writeGateway } from './checkpoint-gateway.ts';
import type { Entry } from './entry.ts';
import type { HeldEntry } from './feeds.ts';
import type { Settled } from './settlement.ts';
import { type ClaimEntry, isClaimed, isCountersigned } from './statement.ts';
import type { Usage, UsageCounts, UsageDimension, UsageFilter, UsageRow } from './usage.ts';
import { countNames, readCounts, type UsageDay } from './usage-day.ts';
import { GatewayUsage } from './usage-gateway.ts';
import { coverOf, GatewayState, type UsageBounds, usageBounds } from './usage-state.ts';
import { addSettled, UsageTable } from './usage-table.ts';

export interface UsageDeps {
  readonly clock: Pick<Clock, 'wallMs'>;
}

export interface UsageOptions {
  readonly meshId: MeshId;
  readonly bounds?: UsageBounds;
}

/** Claims that are told apart; the oldest make room. */
const claimsMax = 65_536;
/** Leases of one gateway whose spending is remembered: the newest. */
const leasesMax = 262_144;

/** All that is known, as it is at one moment. */
export interface UsageFold {
  /** The days that have changed, whatever happens to them later. */
  readonly days: readonly UsageDay[];
  rowAt(day: UsageDay, row: number): UsageRow;
  readonly gateways: readonly {
    readonly state: Value[];
    readonly author: AuthorId;
    readonly spent: readonly (readonly [Tag, number])[];
  }[];
  readonly claims: readonly string[];
  readonly claimed: number;
  /** True where an entry says nothing that is not counted in this. */
  covers(author: AuthorId, epoch: EpochId, entry: Entry): boolean;
}

/** Usage that can be written down, and gone on with by another process. */
export interface FoldedUsage extends Usage {
  /** @param isKnown Whether this version of a day is written down already. */
  fold(isKnown: (day: UsageDay) => boolean): UsageFold;
  /** Goes on from a part of what was written down; all parts come before the first entry. */
  goOn(from: WrittenUsage): void;
}

/** A part of what a checkpoint holds; each row and each gateway comes once. */
export interface WrittenUsage {
  readonly rows?: Iterable<UsageRow>;
  readonly gateways?: readonly { readonly state: GatewayState; readonly spent: readonly (readonly [Tag, number])[] }[];
  readonly claims?: readonly string[];
  readonly claimed?: number;
}

class LiveUsage implements FoldedUsage {
  readonly #deps: UsageDeps;
  readonly #options: UsageOptions;
  readonly #table = new UsageTable();
  readonly #totals = new Float64Array(9);
  readonly #gateways = new Map<AuthorId, GatewayUsage>();
  readonly #spent = new Map<AuthorId, Map<Tag, number>>();
  readonly #claims = new Set<string>();
  #claimed = 0;

  constructor(deps: UsageDeps, options: UsageOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  apply({ entry, bytes, place }: HeldEntry): void {
    const { author, epoch, timeMs } = place;
    if (entry.kind === 'statement') {
      this.#gatewayOf(author).take(entry, { epoch, timeMs, bytes });
    } else if (entry.kind === 'countersign') {
      const gateway = this.#gatewayOf(author);
      const by = { meshId: this.#options.meshId, gateway: peerIdOf(fromHex(author)) };
      if (!gateway.state.isHeard(entry) && isCountersigned(entry, by)) gateway.sign(entry);
    } else if (entry.kind === 'claim') {
      this.#claim(entry);
    }
  }

  #gatewayOf(author: AuthorId): GatewayUsage {
    return this.#gateways.get(author) ?? this.#open(new GatewayState(author, this.#options.bounds ?? usageBounds));
  }

  #open(state: GatewayState): GatewayUsage {
    const gateway = new GatewayUsage(state, (settled, sign) => this.#count(settled, sign));
    this.#gateways.set(state.author, gateway);
    return gateway;
  }

  #count(settled: Settled, sign: 1 | -1): void {
    this.#table.add(settled, sign);
    addSettled(this.#totals, 0, settled, sign);
    const { author, line, payer, amountMicro } = settled;
    if (line.lease === undefined || payer !== 'account') return;
    const spent = this.#spent.get(author) ?? new Map<Tag, number>();
    this.#spent.set(author, spent);
    spent.set(line.lease, (spent.get(line.lease) ?? 0) + sign * amountMicro);
    const [oldest] = spent.size > leasesMax ? spent.keys() : [];
    if (oldest !== undefined) spent.delete(oldest);
  }

  /** Several gateways may have appended it. */
  #claim(entry: ClaimEntry): void {
    const name = toHex(entry.signature.subarray(0, 16));
    if (this.#claims.has(name) || !isClaimed(entry, this.#options.meshId)) return;
    this.#claimed += 1;
    this.#claims.add(name);
    const [oldest] = this.#claims.size > claimsMax ? this.#claims : [];
    if (oldest !== undefined) this.#claims.delete(oldest);
  }

  rows(filter: UsageFilter): readonly UsageRow[] {
    return this.#table.rows(filter);
  }

  rollUp(filter: UsageFilter, by: readonly UsageDimension[]): readonly UsageRow[] {
    return this.#table.rollUp(filter, by);
  }

  spentFrom(gateway: AuthorId, lease: Tag): number {
    return this.#spent.get(gateway)?.get(lease) ?? 0;
  }

  totals(): UsageCounts & { readonly statements: number; readonly claims: number; readonly unattested: number } {
    const dueMs = this.#deps.clock.wallMs() - limits.attestWaitMs;
    let statements = 0;
    let unattested = 0;
    for (const gateway of this.#gateways.values()) {
      statements += gateway.state.statements;
      unattested += gateway.unattested(dueMs);
    }
    return { ...readCounts(this.#totals, 0), statements, claims: this.#claimed, unattested };
  }

  fold(isKnown: (day: UsageDay) => boolean): UsageFold {
    const all = [...this.#gateways.values()];
    for (const gateway of all) gateway.fold();
    const days = this.#table.days().filter((day) => !isKnown(day));
    const known = new Map(all.map(({ state }) => [state.author, coverOf(state)]));
    return {
      days: days.map((day) => day.copy()),
      rowAt: (day, row) => this.#table.rowAt(day, row),
      gateways: all.map(({ state }) => {
        const { author } = state;
        return { author, state: writeGateway(state), spent: [...(this.#spent.get(author) ?? [])] };
      }),
      claims: [...this.#claims],
      claimed: this.#claimed,
      covers: (author, epoch, entry) => known.get(author)?.(epoch, entry) === true,
    };
  }

  goOn({ rows = [], gateways = [], claims = [], claimed = 0 }: WrittenUsage): void {
    assert(this.#gateways.size === 0, 'usage goes on before its first entry');
    for (const row of rows) {
      this.#table.addRow(...row);
      for (const [index, name] of countNames.entries()) this.#totals[index] = (this.#totals[index] ?? 0) + row[1][name];
    }
    for (const { state, spent } of gateways) {
      this.#open(state);
      this.#spent.set(state.author, new Map(spent));
    }
    for (const name of claims) this.#claims.add(name);
    this.#claimed += claimed;
  }

  newestMs(): UnixMs | undefined {
    const newestMs = [...this.#gateways.values()].reduce((max, gateway) => Math.max(max, gateway.state.newestMs), 0);
    return newestMs === 0 ? undefined : unixMs(newestMs);
  }
}

/** Makes empty counters; give them every entry that the ledger tells. */
export const createUsage = (deps: UsageDeps, options: UsageOptions): FoldedUsage => new LiveUsage(deps, options);
