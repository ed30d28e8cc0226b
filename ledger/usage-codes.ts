/** What counters are told apart by, as small numbers: codes of names, and groups of callers that sums make one. */

import type { AuthorId, Tag } from '../protocol/ids.ts';
import type { UsageDimension, UsageKey } from './usage.ts';

export type UsageCaller = Pick<UsageKey, 'tagDay' | 'account' | 'key' | 'gateway'>;

export const compare = <T extends string | number>(a: T, b: T): number => (a < b ? -1 : a > b ? 1 : 0);

/** Things by a number from 0. */
export class Codes<T> {
  readonly all: T[] = [];
  readonly #codes = new Map<string, number>();
  #ranks: number[] = [];

  /** The code of what goes by this name, made where there is none. */
  of(name: string, make: () => T): number {
    const known = this.#codes.get(name);
    if (known !== undefined) return known;
    const code = this.all.push(make()) - 1;
    this.#codes.set(name, code);
    return code;
  }

  find(name: string): number | undefined {
    return this.#codes.get(name);
  }

  /** Of each of `codes` its place among them or among all, sorted by `order`, which is always the same one for one table. */
  ranks(order: (a: T, b: T) => number, codes: readonly number[]): (code: number) => number {
    const compareCodes = (a: number, b: number): number => order(this.all[a] as T, this.all[b] as T);
    if (this.#ranks.length < this.all.length) {
      const some = new Set(codes);
      // All of them are not worth sorting for a few.
      if (some.size < this.all.length / 4) {
        const among = new Map([...some].sort(compareCodes).map((code, rank) => [code, rank]));
        return (code) => among.get(code) as number;
      }
      const all = this.all.map((_, code) => code).sort(compareCodes);
      this.#ranks = new Array(all.length).fill(0);
      for (const [rank, code] of all.entries()) this.#ranks[code] = rank;
    }
    return (code) => this.#ranks[code] as number;
  }
}

export const noCaller: UsageCaller = { tagDay: 0, account: '' as Tag, key: '' as Tag, gateway: '' as AuthorId };

/** Callers by what a sum tells apart of them. */
export class CallerGroups {
  readonly #has: (dimension: UsageDimension) => boolean;
  readonly groups = new Codes<UsageCaller>();
  /** Of each caller the group, from 1; 0 where nobody has asked for it. */
  #codes = new Uint32Array(64);

  constructor(has: (dimension: UsageDimension) => boolean) {
    this.#has = has;
  }

  /** The group of a caller: most questions are about few of many. */
  of(caller: number, callers: readonly UsageCaller[]): number {
    const known = this.#codes[caller] ?? 0;
    if (known > 0) return known - 1;
    const bare = this.#bare(callers[caller] as UsageCaller);
    const code = this.groups.of(nameOf(bare), () => bare);
    if (caller >= this.#codes.length) {
      const wide = new Uint32Array(Math.max(2 * this.#codes.length, callers.length));
      wide.set(this.#codes);
      this.#codes = wide;
    }
    this.#codes[caller] = code + 1;
    return code;
  }

  #bare({ tagDay, account, key, gateway }: UsageCaller): UsageCaller {
    const isTagged = this.#has('account') || this.#has('key');
    return {
      tagDay: isTagged ? tagDay : 0,
      account: this.#has('account') ? account : noCaller.account,
      key: this.#has('key') ? key : noCaller.key,
      // A tag of a gateway's own means nothing without it.
      gateway: this.#has('gateway') || (isTagged && tagDay === 0) ? gateway : noCaller.gateway,
    };
  }
}

export const nameOf = ({ tagDay, account, key, gateway }: UsageCaller): string =>
  `${tagDay} ${account} ${key} ${gateway}`;

export const compareCallers = (a: UsageCaller, b: UsageCaller): number =>
  a.tagDay - b.tagDay || compare(a.account, b.account) || compare(a.key, b.key) || compare(a.gateway, b.gateway);
