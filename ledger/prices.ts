/** What work costs: which of the prices that issuers have set is in force, whatever order they were heard in. */

import type { AuthorId, PriceId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import type { HeldEntry } from './feeds.ts';
import type { PriceEntry } from './money.ts';
import { comparePlaced, type Placed } from './placed.ts';
import type { Price, PriceQuery, PriceRule } from './price.ts';

/** Price entries of one author that are remembered: the newest. */
export const rulesPerAuthorMax = 16_384;

/** Live views; look-ups are cheap enough for each request. */
export interface Prices {
  /** Takes an entry of any kind; taking one twice changes nothing. */
  apply(held: Pick<HeldEntry, 'entry' | 'place'>): void;
  /**
   * The rule for a model at a node then: the most specific (model and node, model, `*` and node, `*`), of these the
   * newest; of two that begin in one moment the one of the smaller author, then of the smaller id.
   */
  inForce(query: PriceQuery): PriceRule | undefined;
  byId(id: PriceId): PriceRule | undefined;
  /** When another rule took the place of this one; undefined while it is in force, 0 where it never was, or not since. */
  supersededMs(rule: PriceRule, query: PriceQuery, sinceMs?: UnixMs): UnixMs | undefined;
  /** Whether work that begins then may cost this: the rule in force, or one superseded `limits.priceGraceMs` ago at most. */
  allows(price: Price, query: PriceQuery): boolean;
  /** By model, node and moment. */
  list(): readonly PriceRule[];
}

const compare = (a: string | number, b: string | number): number => (a < b ? -1 : a > b ? 1 : 0);
const subjectOf = (model: string, node: string | undefined): string => `${node ?? ''} ${model}`;

/** The one that counts comes last. */
const byRank = (a: PriceRule, b: PriceRule): number =>
  compare(a.fromMs, b.fromMs) || compare(b.by, a.by) || compare(b.id, a.id);
const forListing = (a: PriceRule, b: PriceRule): number =>
  compare(a.model, b.model) || compare(a.node ?? '', b.node ?? '') || byRank(a, b);

/** Nobody sets a price for work that has begun: a rule counts from when it was signed at the earliest. */
function ruleOf({ entry, place }: Placed<PriceEntry>): PriceRule {
  const { id, model, node, prompt, cached, completion, fromMs } = entry;
  const numbers = { id, by: place.author, model, prompt, cached, completion };
  return { ...numbers, ...(node === undefined ? {} : { node }), fromMs: unixMs(Math.max(fromMs, place.timeMs)) };
}

/** Entries of one author by their places; more than are remembered until the next look at them. */
class AuthorPrices {
  #all: Placed<PriceEntry>[] = [];

  add(placed: Placed<PriceEntry>): void {
    this.#all.push(placed);
    if (this.#all.length >= 2 * rulesPerAuthorMax) this.newest();
  }

  /** Each once, oldest first. */
  newest(): readonly Placed<PriceEntry>[] {
    this.#all.sort(comparePlaced);
    const once = this.#all.filter((placed, at) => at === 0 || comparePlaced(this.#all[at - 1] ?? placed, placed) !== 0);
    this.#all = once.slice(-rulesPerAuthorMax);
    return this.#all;
  }
}

class LivePrices implements Prices {
  readonly #counts: (author: AuthorId) => boolean;
  readonly #authors = new Map<AuthorId, AuthorPrices>();
  readonly #gateways = new Set<AuthorId>();
  #isStale = false;
  /** Of each author one; the smallest author that counts is the one that is meant. */
  readonly #byId = new Map<PriceId, PriceRule[]>();
  readonly #bySubject = new Map<string, PriceRule[]>();

  constructor(counts: (author: AuthorId) => boolean) {
    this.#counts = counts;
  }

  apply({ entry, place }: Pick<HeldEntry, 'entry' | 'place'>): void {
    const { author } = place;
    // A gateway's word on prices never counts, so a member cannot fill this memory with it.
    if (entry.kind === 'author' && entry.role === 'gateway') this.#gateways.add(author);
    if (entry.kind !== 'price' || (this.#gateways.has(author) && !this.#counts(author))) return;
    const prices = this.#authors.get(author) ?? new AuthorPrices();
    this.#authors.set(author, prices);
    prices.add({ entry, place: { ...place, isAfterFork: false } });
    this.#isStale = true;
  }

  #refresh(): void {
    if (!this.#isStale) return;
    this.#isStale = false;
    this.#byId.clear();
    this.#bySubject.clear();
    for (const [, prices] of [...this.#authors].sort(([a], [b]) => compare(a, b))) this.#index(prices.newest());
    for (const rules of this.#bySubject.values()) rules.sort(byRank);
  }

  /** What an author says first under an id is what the id means. */
  #index(entries: readonly Placed<PriceEntry>[]): void {
    for (const placed of entries) {
      const rule = ruleOf(placed);
      const named = this.#byId.get(rule.id) ?? [];
      if (named.some(({ by }) => by === rule.by)) continue;
      this.#byId.set(rule.id, [...named, rule]);
      const subject = subjectOf(rule.model, rule.node);
      const rules = this.#bySubject.get(subject);
      if (rules === undefined) this.#bySubject.set(subject, [rule]);
      else rules.push(rule);
    }
  }

  #isMeant(rule: PriceRule): boolean {
    return this.#counts(rule.by) && this.byId(rule.id) === rule;
  }

  byId(id: PriceId): PriceRule | undefined {
    this.#refresh();
    return this.#byId.get(id)?.find(({ by }) => this.#counts(by));
  }

  #subjects({ model, node }: PriceQuery): readonly (readonly PriceRule[])[] {
    this.#refresh();
    const subjects = [
      subjectOf(model, node),
      subjectOf(model, undefined),
      subjectOf('*', node),
      subjectOf('*', undefined),
    ];
    return subjects.flatMap((subject) => [this.#bySubject.get(subject) ?? []]);
  }

  inForce(query: PriceQuery): PriceRule | undefined {
    this.#refresh();
    if (this.#bySubject.size === 0) return undefined;
    for (const rules of this.#subjects(query)) {
      const found = rules.findLast((rule) => rule.fromMs <= query.atMs && this.#isMeant(rule));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  supersededMs(rule: PriceRule, query: PriceQuery, sinceMs = unixMs(0)): UnixMs | undefined {
    if (this.inForce(query)?.id === rule.id) return undefined;
    const moments = this.#subjects(query)
      .flatMap((rules) => rules.filter(({ fromMs }) => fromMs >= sinceMs && fromMs <= query.atMs))
      .map(({ fromMs }) => fromMs)
      .sort((a, b) => b - a);
    let endMs: UnixMs | undefined;
    // What ended at the very beginning was in force right before.
    for (const atMs of [...moments, unixMs(Math.max(0, sinceMs - 1))]) {
      if (this.inForce({ ...query, atMs })?.id === rule.id) return endMs;
      endMs = atMs;
    }
    return unixMs(0);
  }

  allows(price: Price, query: PriceQuery): boolean {
    const { id, prompt, cached, completion } = price;
    const graceFromMs = unixMs(Math.max(0, query.atMs - limits.priceGraceMs));
    if (id === '') {
      const isFree = prompt === 0 && cached === 0 && completion === 0;
      return isFree && this.inForce({ ...query, atMs: graceFromMs }) === undefined;
    }
    const rule = this.byId(id);
    const isSame = rule?.prompt === prompt && rule.cached === cached && rule.completion === completion;
    if (rule === undefined || !isSame) return false;
    return this.supersededMs(rule, query, graceFromMs) !== 0;
  }

  list(): readonly PriceRule[] {
    this.#refresh();
    return [...this.#byId.keys()].flatMap((id) => this.byId(id) ?? []).sort(forListing);
  }
}

/** Makes an empty table. @param counts An issuer that the root has named and not taken back; asked at every look-up. */
export const createPrices = (counts: (author: AuthorId) => boolean): Prices => new LivePrices(counts);
