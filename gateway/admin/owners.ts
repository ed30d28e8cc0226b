/** Whom the tags of usage stand for, as far as this gateway holds the keys of their days. */

import type { Standing } from '../../ledger/standing.ts';
import type { Tags } from '../../ledger/tags.ts';
import type { UsageKey } from '../../ledger/usage.ts';
import { fromHex } from '../../protocol/crypto.ts';
import { issuerIdOf } from '../../protocol/grants.ts';
import type { AccountId, AuthorId, IssuerId, KeyId, Tag } from '../../protocol/ids.ts';
import type { Clock } from '../../protocol/ports.ts';
import { Memory } from '../../protocol/tables.ts';

/** Tags that are remembered with what they stand for; about 0.2 kB each. */
const ownersMax = 524_288;
/** Tags that are made in one turn; about 3 µs each. */
const tagsAtOnce = 1_000;

/** What tells a tag apart from the same eight bytes of another day, or of another gateway's own key. */
export type Tagged = Pick<UsageKey, 'tagDay' | 'account' | 'key' | 'gateway'>;

export interface OwnersDeps {
  readonly tags: Pick<Tags, 'accountTags' | 'keyTags'>;
  readonly standing: Pick<Standing, 'accounts' | 'keys'>;
  readonly clock: Pick<Clock, 'turn'>;
  /** The author of this gateway's feed: tags of day 0 are known where they were made, and nowhere else. */
  readonly self: AuthorId;
}

/** Tells tags; of an account that was erased nobody is told any more. */
export interface Owners {
  /**
   * Finds out whom the tags of these rows stand for; the event loop goes on meanwhile.
   * @param within Looks among the keys of this account alone, which is far less work.
   */
  learn(rows: Iterable<Tagged>, within?: AccountId): Promise<void>;
  /** Undefined where it was not learnt, or cannot be told. */
  accountOf(row: Tagged): AccountId | undefined;
  keyOf(row: Tagged): KeyId | undefined;
  /** Which rows are of this account, or of this key; for a filter. */
  isAccount(issuer: IssuerId, account: AccountId): (row: Tagged) => boolean;
  isKey(issuer: IssuerId, key: KeyId): (row: Tagged) => boolean;
}

const issuerOf = (by: AuthorId): IssuerId => issuerIdOf(fromHex(by));

/** Something that may own a tag. */
interface Candidate {
  readonly id: string;
  tagsOn(day: number): readonly Tag[];
}

class LiveOwners implements Owners {
  readonly #deps: OwnersDeps;
  /** By day and tag; '' for one that nobody known here owns. */
  #known = new Memory<string>(ownersMax);
  #erased = 0;
  /** How many accounts and keys were known when something was not found. */
  #triedWith = -1;

  constructor(deps: OwnersDeps) {
    this.#deps = deps;
  }

  #nameOf({ tagDay, gateway }: Tagged, tag: Tag): string | undefined {
    return tagDay === 0 && gateway !== this.#deps.self ? undefined : `${tagDay} ${tag}`;
  }

  accountOf(row: Tagged): AccountId | undefined {
    return this.#told(this.#nameOf(row, row.account)) as AccountId | undefined;
  }

  keyOf(row: Tagged): KeyId | undefined {
    return this.#told(this.#nameOf(row, row.key)) as KeyId | undefined;
  }

  #told(name: string | undefined): string | undefined {
    const id = name === undefined ? undefined : this.#known.get(name);
    return id === '' ? undefined : id;
  }

  async learn(rows: Iterable<Tagged>, within?: AccountId): Promise<void> {
    const { standing } = this.#deps;
    this.#forgetErased();
    const isWithin = (account: AccountId | undefined): boolean => within === undefined || account === within;
    const accounts = standing.accounts().filter(({ account }) => isWithin(account));
    const keys = standing.keys().filter(({ made }) => isWithin(made?.account));
    const isNews = accounts.length + keys.length !== this.#triedWith;
    const wanted = new Map<number, Set<string>>();
    for (const row of rows) {
      for (const tag of [row.account, row.key]) this.#want(wanted, this.#nameOf(row, tag), isNews);
    }
    if (wanted.size === 0) return;
    await this.#find(wanted, this.#candidates(accounts, keys));
    if (within !== undefined) return;
    this.#triedWith = accounts.length + keys.length;
    for (const names of wanted.values()) for (const name of names) this.#known.set(name, '');
  }

  /** What was learnt of an account before it was erased goes with it. */
  #forgetErased(): void {
    const erased = this.#deps.standing.accounts().filter(({ isErased }) => isErased).length;
    if (erased !== this.#erased) this.#known = new Memory(ownersMax);
    this.#erased = erased;
  }

  #want(wanted: Map<number, Set<string>>, name: string | undefined, isNews: boolean): void {
    if (name === undefined) return;
    const known = this.#known.get(name);
    if (known !== undefined && (known !== '' || !isNews)) return;
    const day = Number(name.slice(0, name.indexOf(' ')));
    const names = wanted.get(day) ?? new Set();
    wanted.set(day, names.add(name));
  }

  *#candidates(accounts: ReturnType<Standing['accounts']>, keys: ReturnType<Standing['keys']>): Generator<Candidate> {
    const { tags } = this.#deps;
    const erased = new Set(accounts.filter(({ isErased }) => isErased).map(({ account }) => account));
    for (const { account, by } of accounts) {
      if (erased.has(account)) continue;
      const issuer = issuerOf(by);
      yield { id: account, tagsOn: (day) => tags.accountTags(issuer, account, day) };
    }
    for (const { key, by, made } of keys) {
      if (made !== undefined && erased.has(made.account)) continue;
      const issuer = issuerOf(by);
      yield { id: key, tagsOn: (day) => tags.keyTags(issuer, key, day) };
    }
  }

  async #find(wanted: Map<number, Set<string>>, candidates: Iterable<Candidate>): Promise<void> {
    let made = 0;
    for (const { id, tagsOn } of candidates) {
      for (const [day, names] of wanted) {
        for (const tag of tagsOn(day)) {
          const name = `${day} ${tag}`;
          if (names.delete(name)) this.#known.set(name, id);
        }
        made += 1;
        if (made % tagsAtOnce === 0) await this.#deps.clock.turn();
      }
    }
  }

  #isTag(of: 'account' | 'key', tagsOn: (day: number) => readonly Tag[]): (row: Tagged) => boolean {
    const byDay = new Map<number, readonly Tag[]>();
    return (row) => {
      const { tagDay, gateway } = row;
      if (tagDay === 0 && gateway !== this.#deps.self) return false;
      const tags = byDay.get(tagDay) ?? tagsOn(tagDay);
      byDay.set(tagDay, tags);
      return tags.includes(row[of]);
    };
  }

  isAccount(issuer: IssuerId, account: AccountId): (row: Tagged) => boolean {
    return this.#isTag('account', (day) => this.#deps.tags.accountTags(issuer, account, day));
  }

  isKey(issuer: IssuerId, key: KeyId): (row: Tagged) => boolean {
    return this.#isTag('key', (day) => this.#deps.tags.keyTags(issuer, key, day));
  }
}

export const createOwners = (deps: OwnersDeps): Owners => new LiveOwners(deps);
