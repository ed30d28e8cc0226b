/** Money as an auditor reads it: prices that were in force, leases that their holders' lines do not overspend, closes that cover them. */

import { toHex } from '../protocol/crypto.ts';
import type { AuthorId, PeerId, Tag } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import { peerOf } from './authors.ts';
import type { HeldEntry } from './feeds.ts';
import type { UsageLine } from './line.ts';
import { type LeaseEntry, leaseTag } from './money.ts';
import { costMicro, type Price } from './price.ts';
import { createPrices, type Prices } from './prices.ts';
import type { CloseEntry, StatementEntry } from './statement.ts';
import { type EntrySpot, entryText, lineText, type Problems } from './verify-place.ts';
import { SerialSet } from './verify-serials.ts';

/** A line, by where it stands. */
interface LineSpot {
  readonly spot: EntrySpot;
  readonly at: number;
  readonly line: Pick<UsageLine, 'run' | 'serial' | 'startMs'>;
}

/** Lines that name one price for one model at one node: the first and the last moment at which it was used. */
interface PriceUse {
  readonly price: Price;
  readonly model: string;
  readonly node: PeerId;
  earliest: LineSpot;
  latest: LineSpot;
}

interface LeaseUse {
  spentMicro: number;
  newest: LineSpot;
  /** Requests, by process, whose prompt is counted: it is paid once. */
  readonly prompts: Map<string, SerialSet>;
}

/** The least that settlement can make of a line: what both sides say, the prompt where the attempt ended the request. */
function leastMicro(line: UsageLine, isPromptPaid: boolean): number {
  const { price, promptTokens, cachedTokens, completionTokens, nodeTokens } = line;
  return costMicro(price, {
    promptTokens: isPromptPaid ? promptTokens : 0,
    cachedTokens: isPromptPaid ? cachedTokens : 0,
    completionTokens: Math.min(nodeTokens ?? completionTokens, completionTokens),
  });
}

const placeOf = ({ spot, at, line }: LineSpot): string => lineText(spot, 'line', at, line);

/** Gathers while feeds are read, in any order of their authors; judges at the end. */
export class MoneyAudit {
  readonly #problems: Problems;
  readonly #prices: Prices;
  readonly #uses = new Map<string, PriceUse>();
  readonly #isIssuer: (author: AuthorId) => boolean;
  readonly #leases = new Map<Tag, { readonly by: AuthorId; readonly entry: LeaseEntry }[]>();
  readonly #spent = new Map<AuthorId, Map<Tag, LeaseUse>>();
  readonly #closes: { readonly spot: EntrySpot; readonly entry: CloseEntry }[] = [];

  /** @param isIssuer Whose word on prices and leases counts; asked at the end. */
  constructor(problems: Problems, isIssuer: (author: AuthorId) => boolean) {
    this.#problems = problems;
    this.#isIssuer = isIssuer;
    this.#prices = createPrices(isIssuer);
  }

  /** Entries of any kind. */
  apply(held: Pick<HeldEntry, 'entry' | 'place'>): void {
    const { entry, place } = held;
    if (entry.kind === 'author' || entry.kind === 'price') this.#prices.apply(held);
    if (entry.kind === 'lease') {
      const tag = leaseTag(entry.lease);
      const known = this.#leases.get(tag) ?? [];
      this.#leases.set(tag, known);
      known.push({ by: place.author, entry });
    }
    if (entry.kind === 'close') this.#closes.push({ spot: place, entry });
  }

  /** A line that was not stated before. */
  take(spot: EntrySpot, statement: StatementEntry, at: number): void {
    const line = statement.lines[at];
    if (line === undefined) return;
    this.#usePrice({ spot, at, line }, line, statement.node);
    if (line.lease !== undefined && line.payer === 'account') this.#spend({ spot, at, line }, line, line.lease);
  }

  #usePrice(place: LineSpot, { price, model }: UsageLine, node: PeerId): void {
    const { id, prompt, cached, completion } = price;
    const name = `${id} ${prompt} ${cached} ${completion} ${node} ${model}`;
    const use = this.#uses.get(name);
    if (use === undefined) this.#uses.set(name, { price, model, node, earliest: place, latest: place });
    else if (place.line.startMs < use.earliest.line.startMs) use.earliest = place;
    else if (place.line.startMs > use.latest.line.startMs) use.latest = place;
  }

  #spend(place: LineSpot, line: UsageLine, tag: Tag): void {
    const { author } = place.spot;
    const ofAuthor = this.#spent.get(author) ?? new Map<Tag, LeaseUse>();
    this.#spent.set(author, ofAuthor);
    const use = ofAuthor.get(tag) ?? { spentMicro: 0, newest: place, prompts: new Map() };
    ofAuthor.set(tag, use);
    const prompts = use.prompts.get(line.run) ?? new SerialSet();
    use.prompts.set(line.run, prompts);
    const hasEnded = line.outcome === 'done' || line.outcome === 'cancelled';
    use.spentMicro += leastMicro(line, hasEnded && prompts.add(line.first));
    use.newest = place;
  }

  finish(): void {
    for (const use of this.#uses.values()) this.#judgePrice(use);
    for (const [author, uses] of this.#spent) {
      for (const [tag, use] of uses) this.#judgeLease(author, tag, use);
    }
    for (const close of this.#closes) this.#judgeClose(close);
  }

  #judgePrice({ price, model, node, earliest, latest }: PriceUse): void {
    if (price.id !== '') {
      const rule = this.#prices.byId(price.id);
      if (rule === undefined) {
        this.#problems.add(placeOf(earliest), `its price ${price.id} is of no entry of an issuer that is held`);
        return;
      }
      const { prompt, cached, completion } = rule;
      if (prompt !== price.prompt || cached !== price.cached || completion !== price.completion) {
        this.#problems.add(placeOf(earliest), `its price ${price.id} has other numbers than its entry`);
        return;
      }
    }
    for (const use of new Set([earliest, latest])) {
      if (this.#isInForce(price, { model, node, atMs: use.line.startMs })) continue;
      const what = price.id === '' ? 'it has no price, and one was in force' : `its price ${price.id} was not in force`;
      this.#problems.add(placeOf(use), `${what} for ${model} at ${node} then`);
      return;
    }
  }

  /** Clocks of issuers and gateways differ. */
  #isInForce(price: Price, query: { readonly model: string; readonly node: PeerId; readonly atMs: UnixMs }): boolean {
    const { clockSkewMaxMs } = limits;
    return [0, clockSkewMaxMs, -clockSkewMaxMs].some((skewMs) =>
      this.#prices.allows(price, { ...query, atMs: unixMs(Math.max(0, query.atMs + skewMs)) }),
    );
  }

  #leaseOf(tag: Tag): LeaseEntry | undefined {
    const said = this.#leases.get(tag)?.filter(({ by }) => this.#isIssuer(by)) ?? [];
    // A lease is raised by a later entry of the same name.
    return said.map(({ entry }) => entry).sort((a, b) => b.amountMicro - a.amountMicro)[0];
  }

  #judgeLease(author: AuthorId, tag: Tag, { spentMicro, newest }: LeaseUse): void {
    const lease = this.#leaseOf(tag);
    const where = placeOf(newest);
    if (lease === undefined)
      this.#problems.add(where, `it is paid from a lease (tag ${tag}) of which no entry is held`);
    else if (lease.holder !== peerOf(author))
      this.#problems.add(where, `it is paid from another gateway’s lease ${lease.lease}`);
    else if (spentMicro > lease.amountMicro) {
      const what = `up to it lines spend ${spentMicro} micro-credits of lease ${lease.lease}, which is ${lease.amountMicro}`;
      this.#problems.add(where, what);
    }
  }

  #judgeClose({ spot, entry }: { readonly spot: EntrySpot; readonly entry: CloseEntry }): void {
    const tag = leaseTag(entry.lease);
    const lease = this.#leaseOf(tag);
    const spentMicro = this.#spent.get(spot.author)?.get(tag)?.spentMicro ?? 0;
    const where = entryText(spot);
    if (lease === undefined) this.#problems.add(where, `it closes a lease ${entry.lease} of which no entry is held`);
    else if (lease.holder !== peerOf(spot.author))
      this.#problems.add(where, `it closes another gateway’s lease ${entry.lease}`);
    else if (entry.spentMicro > lease.amountMicro) {
      this.#problems.add(where, `it closes lease ${entry.lease} with more spent than the lease is`);
    } else if (entry.spentMicro < spentMicro) {
      const what = `it closes lease ${entry.lease} with ${entry.spentMicro} micro-credits spent, and lines spend ${spentMicro}`;
      this.#problems.add(where, what);
    }
  }
}

/** For maps by statement: as good as the whole hash against anybody who would have to find another one. */
export const hashName = (hash: Uint8Array): string => toHex(hash.subarray(0, 16));
