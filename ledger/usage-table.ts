/** Counters over every attempt that was settled, by day, caller, model, node and gateway; and the sums over them. */

import type { AuthorId, PeerId } from '../protocol/ids.ts';
import { dayMs } from '../protocol/units.ts';
import type { Caller } from './line.ts';
import type { Settled } from './settlement.ts';
import {
  type UsageCounts,
  type UsageDimension,
  type UsageFilter,
  type UsageKey,
  type UsageRow,
  usageDimensions,
} from './usage.ts';
import { CallerGroups, Codes, compare, compareCallers, nameOf, noCaller, type UsageCaller } from './usage-codes.ts';
import { addCounts, countNames, countsWidth, type Kept, type RowCodes, readCounts, UsageDay } from './usage-day.ts';

/** Rows that one gateway may make; what is beyond them is counted in one that tells nothing else of it. */
export const rowsPerGatewayMax = 1_048_576;
/** Days that its rows may be of: 45 years. */
const daysPerGatewayMax = 16_384;
/** Callers of statements at hand, by the object that all their lines share. */
const callersAtHandMax = 1_024;
/** Groups up to which there is a place for each that there could be. */
const placesMax = 1_048_576;

/** Adds what an attempt came to to the counts that begin at `at`, or (−1) takes it away again. */
export function addSettled(counts: Float64Array, at: number, settled: Settled, sign: 1 | -1): void {
  const add = (index: number, more: number): void => {
    counts[at + index] = (counts[at + index] as number) + sign * more;
  };
  if (settled.isBilled) add(0, 1);
  add(1, 1);
  add(2, settled.promptTokens);
  add(3, settled.cachedTokens);
  add(4, settled.completionTokens);
  add(settled.payer === 'account' ? 5 : 6, settled.amountMicro);
  if (settled.state === 'refused') add(7, 1);
  else if (settled.state === 'lower') add(8, 1);
}

/** Sums that are being made, by group. */
class Sums {
  /** Of each group its slot from 1; 0 for none. */
  readonly #places: Int32Array | undefined;
  readonly #slots = new Map<number, number>();
  readonly groups: number[] = [];
  counts = new Float64Array(64 * countsWidth);

  constructor(groups: number) {
    this.#places = groups <= placesMax ? new Int32Array(groups) : undefined;
  }

  /** Where in `counts` a group has its sums; the array may be another one after it. */
  at(group: number): number {
    const known = this.#places === undefined ? this.#slots.get(group) : this.#places[group];
    return ((known || this.#begin(group)) - 1) * countsWidth;
  }

  #begin(group: number): number {
    const slot = this.groups.push(group);
    if (this.#places === undefined) this.#slots.set(group, slot);
    else this.#places[group] = slot;
    if (slot * countsWidth > this.counts.length) {
      const wide = new Float64Array(2 * this.counts.length);
      wide.set(this.counts);
      this.counts = wide;
    }
    return slot;
  }

  /** Empties it, at the price of what was in it. */
  clear(): void {
    for (const group of this.groups) if (this.#places !== undefined) this.#places[group] = 0;
    this.#slots.clear();
    this.counts.fill(0, 0, this.groups.length * countsWidth);
    this.groups.length = 0;
  }
}

/** How one query looks at the table. */
interface Look {
  readonly has: (dimension: UsageDimension) => boolean;
  readonly callers: CallerGroups;
  /** Of each caller: 0 not asked yet, 1 no, 2 yes. */
  readonly verdicts: Uint8Array;
  readonly filter: UsageFilter;
  readonly model: number | undefined;
  readonly node: number | undefined;
  /** What rows must be told apart by. */
  readonly kept: Kept;
}

interface GatewayRows {
  rows: number;
  readonly days: Set<number>;
}

/** Every counter. */
export class UsageTable {
  readonly #days = new Map<number, UsageDay>();
  readonly #callers = new Codes<UsageCaller>();
  readonly #models = new Codes<string>();
  readonly #nodes = new Codes<PeerId>();
  readonly #gateways = new Map<AuthorId, GatewayRows>();
  readonly #groups = new Map<string, CallerGroups>();
  readonly #atHand = new Map<Caller, number>();
  readonly #rowsMax: number;

  constructor(rowsMax = rowsPerGatewayMax) {
    this.#rowsMax = rowsMax;
  }

  get rowCount(): number {
    let rows = 0;
    for (const { size } of this.#days.values()) rows += size;
    return rows;
  }

  /** Adds what an attempt came to, or (−1) takes it away again. */
  add(settled: Settled, sign: 1 | -1): void {
    const { line, author, node } = settled;
    const codes = {
      caller: this.#callerOf(line.caller, author),
      model: this.#modelOf(line.model),
      node: this.#nodeOf(node),
    };
    const { day, row } = this.#find(Math.floor(line.startMs / dayMs), codes, author);
    day.version += 1;
    addSettled(day.counts, row * countsWidth, settled, sign);
  }

  /** Adds a row as it was counted elsewhere. */
  addRow(key: UsageKey, added: UsageCounts): void {
    const codes = {
      caller: this.#callers.of(nameOf(key), () => ({
        tagDay: key.tagDay,
        account: key.account,
        key: key.key,
        gateway: key.gateway,
      })),
      model: this.#modelOf(key.model),
      node: this.#nodeOf(key.node),
    };
    const { day, row } = this.#find(key.day, codes, key.gateway);
    day.version += 1;
    for (const [index, name] of countNames.entries()) {
      const at = row * countsWidth + index;
      day.counts[at] = (day.counts[at] as number) + added[name];
    }
  }

  #callerOf(caller: Caller, gateway: AuthorId): number {
    const atHand = this.#atHand.get(caller);
    if (atHand !== undefined && this.#callers.all[atHand]?.gateway === gateway) return atHand;
    const whole = { tagDay: caller.day, account: caller.account, key: caller.key, gateway };
    const code = this.#callers.of(nameOf(whole), () => whole);
    if (this.#atHand.size >= callersAtHandMax) this.#atHand.clear();
    this.#atHand.set(caller, code);
    return code;
  }

  #modelOf(model: string): number {
    return this.#models.of(model, () => model);
  }

  #nodeOf(node: PeerId): number {
    return this.#nodes.of(node, () => node);
  }

  #find(number: number, codes: RowCodes, gateway: AuthorId): { readonly day: UsageDay; readonly row: number } {
    const known = this.#days.get(number);
    const found = known?.find(codes) ?? -1;
    if (known !== undefined && found >= 0) return { day: known, row: found };
    const rows = this.#gateways.get(gateway) ?? { rows: 0, days: new Set() };
    this.#gateways.set(gateway, rows);
    const isFull = rows.rows >= this.#rowsMax || (rows.days.size >= daysPerGatewayMax && !rows.days.has(number));
    if (isFull) return this.#rest(gateway);
    rows.rows += 1;
    rows.days.add(number);
    const day = known ?? new UsageDay(number);
    this.#days.set(number, day);
    return { day, row: day.rowOf(codes) };
  }

  /** One row for all that a gateway may have no more rows for. */
  #rest(gateway: AuthorId): { readonly day: UsageDay; readonly row: number } {
    const day = this.#days.get(0) ?? new UsageDay(0);
    this.#days.set(0, day);
    const whole = { ...noCaller, gateway };
    const caller = this.#callers.of(nameOf(whole), () => whole);
    return { day, row: day.rowOf({ caller, model: this.#modelOf(''), node: this.#nodeOf('' as PeerId) }) };
  }

  /** The days that have rows, in their order. */
  days(filter: Pick<UsageFilter, 'sinceDay' | 'untilDay'> = {}): readonly UsageDay[] {
    const { sinceDay = 0, untilDay = Number.POSITIVE_INFINITY } = filter;
    const days = [...this.#days.values()].filter(({ day }) => day >= sinceDay && day < untilDay);
    return days.sort((a, b) => a.day - b.day);
  }

  /** What stands at a row of a day, or of a copy of one. */
  rowAt(day: UsageDay, row: number): UsageRow {
    const { caller, model, node } = day.codesAt(row);
    const { tagDay, account, key, gateway } = this.#callers.all[caller] as UsageCaller;
    const names = { model: this.#models.all[model] as string, node: this.#nodes.all[node] as PeerId };
    return [{ day: day.day, tagDay, account, key, ...names, gateway }, readCounts(day.counts, row * countsWidth)];
  }

  rows(filter: UsageFilter): readonly UsageRow[] {
    return this.rollUp(filter, usageDimensions);
  }

  rollUp(filter: UsageFilter, by: readonly UsageDimension[]): readonly UsageRow[] {
    const look = this.#look(filter, by);
    if (look === undefined) return [];
    const sums = new Sums(this.#callersMax(look) * this.#width(look, 'model') * this.#width(look, 'node'));
    const rows: UsageRow[] = [];
    for (const day of this.days(filter)) {
      this.#sum(day.summed(look.kept), look, sums);
      if (!look.has('day')) continue;
      for (const row of this.#told(sums, look, day.day)) rows.push(row);
      sums.clear();
    }
    return look.has('day') ? rows : this.#told(sums, look, 0);
  }

  /** Undefined where nothing can match. */
  #look(filter: UsageFilter, by: readonly UsageDimension[]): Look | undefined {
    const has = (dimension: UsageDimension): boolean => by.includes(dimension);
    const model = filter.model === undefined ? undefined : this.#models.find(filter.model);
    const node = filter.node === undefined ? undefined : this.#nodes.find(filter.node);
    if ((model === undefined && filter.model !== undefined) || (node === undefined && filter.node !== undefined)) {
      return undefined;
    }
    const kind = (['account', 'key', 'gateway'] as const).map((dimension) => Number(has(dimension))).join('');
    const callers = this.#groups.get(kind) ?? new CallerGroups(has);
    this.#groups.set(kind, callers);
    const kept = {
      caller: filter.caller !== undefined || has('account') || has('key') || has('gateway'),
      model: model !== undefined || has('model'),
      node: node !== undefined || has('node'),
    };
    return { has, callers, verdicts: new Uint8Array(this.#callers.all.length), filter, model, node, kept };
  }

  /** Groups of callers that there may be. */
  #callersMax({ has }: Pick<Look, 'has'>): number {
    if (has('account') || has('key')) return this.#callers.all.length;
    return has('gateway') ? this.#gateways.size : 1;
  }

  #width({ has }: Pick<Look, 'has'>, dimension: 'model' | 'node'): number {
    const codes = dimension === 'model' ? this.#models : this.#nodes;
    return has(dimension) ? Math.max(1, codes.all.length) : 1;
  }

  #sum(day: UsageDay, look: Look, sums: Sums): void {
    const { callers, models, nodes, counts, size } = day;
    const { model = -1, node = -1, filter } = look;
    const { all } = this.#callers;
    const [modelWidth, nodeWidth] = [this.#width(look, 'model'), this.#width(look, 'node')];
    const callerStep = modelWidth * nodeWidth;
    const modelStep = look.has('model') ? nodeWidth : 0;
    const nodeStep = look.has('node') ? 1 : 0;
    const isAnyCaller = filter.caller === undefined;
    for (let row = 0; row < size; row += 1) {
      const caller = callers[row] as number;
      if (model >= 0 && models[row] !== model) continue;
      if (node >= 0 && nodes[row] !== node) continue;
      if (!(isAnyCaller || this.#isAsked(caller, look)) || day.isEmpty(row)) continue;
      const ofModel = modelStep * (models[row] as number);
      const ofNode = nodeStep * (nodes[row] as number);
      const at = sums.at(look.callers.of(caller, all) * callerStep + ofModel + ofNode);
      addCounts(sums.counts, at, counts, row * countsWidth);
    }
  }

  #isAsked(caller: number, { filter, verdicts }: Look): boolean {
    const known = verdicts[caller] as number;
    if (known > 0) return known === 2;
    const isAsked = filter.caller?.(this.#callers.all[caller] as UsageCaller);
    verdicts[caller] = isAsked === true ? 2 : 1;
    return isAsked === true;
  }

  #rankOf(
    { has }: Look,
    dimension: 'model' | 'node',
    parts: readonly { readonly model: number; readonly node: number }[],
  ): (code: number) => number {
    if (!has(dimension)) return () => 0;
    const codes: Codes<string> = dimension === 'model' ? this.#models : this.#nodes;
    return codes.ranks(
      compare,
      parts.map((part) => part[dimension]),
    );
  }

  #told(sums: Sums, look: Look, day: number): UsageRow[] {
    const [modelWidth, nodeWidth] = [this.#width(look, 'model'), this.#width(look, 'node')];
    const callers = look.callers.groups;
    const parts = sums.groups.map((group, slot) => {
      const node = group % nodeWidth;
      const rest = (group - node) / nodeWidth;
      const model = rest % modelWidth;
      return { slot, caller: (rest - model) / modelWidth, model, node, rank: 0 };
    });
    const callerRank = callers.ranks(
      compareCallers,
      parts.map(({ caller }) => caller),
    );
    const modelRank = this.#rankOf(look, 'model', parts);
    const nodeRank = this.#rankOf(look, 'node', parts);
    for (const part of parts) {
      part.rank = (callerRank(part.caller) * modelWidth + modelRank(part.model)) * nodeWidth + nodeRank(part.node);
    }
    parts.sort((a, b) => a.rank - b.rank);
    return parts.map(({ slot, caller, model, node }): UsageRow => {
      const { tagDay, account, key, gateway } = callers.all[caller] as UsageCaller;
      const named = look.has('model') ? (this.#models.all[model] as string) : '';
      const peer = look.has('node') ? (this.#nodes.all[node] as PeerId) : ('' as PeerId);
      return [
        { day, tagDay, account, key, model: named, node: peer, gateway },
        readCounts(sums.counts, slot * countsWidth),
      ];
    });
  }
}
