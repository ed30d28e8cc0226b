/** Who shares limits out: what gateways may use of them at a time never comes to more than the whole. */

import type { IssuerId, PeerId } from '../protocol/ids.ts';
import type { ShareAsk, ShareRow, ShareSubject, Shares } from '../protocol/messages/lease.ts';
import type { Clock } from '../protocol/ports.ts';

export interface WindowDeps {
  readonly clock: Clock;
  /** True for issuers whose accounts and keys are looked after here. */
  readonly keeps: (issuer: IssuerId) => boolean;
  /** The limit as the issuer's own entries have it; undefined where they do not tell. */
  readonly totalOf: (subject: ShareSubject) => number | undefined;
  /** Other gateways that may have shares of an earlier process. */
  readonly others: () => readonly PeerId[];
  /** Asks a holder to ask again. */
  readonly poke: (holder: PeerId, subjects: readonly ShareSubject[]) => void;
}

/** The authority's side of shared limits: soft state, nothing of it is kept. */
export interface WindowAuthority {
  ask(from: PeerId, ask: ShareAsk): Shares;
}

/** A share counts for this long, and what was used under it for a minute more; a place among those under way lapses at once. */
const terms = {
  rpm: { forMs: 60_000, lagMs: 61_000 },
  tpm: { forMs: 60_000, lagMs: 61_000 },
  concurrency: { forMs: 30_000, lagMs: 0 },
} as const;
/** Limits shared out at a time; about 1 kB each at three gateways. */
const subjectsMax = 65_536;
const pokeAgainMs = 200;
/** While others lack something, holders are asked this often what they still use. */
const oldMs = 1_000;
const givenMax = 8;

interface Given {
  /** The answer that gave it. */
  readonly answer: number;
  readonly share: number;
  readonly untilMs: number;
}

interface Holder {
  given: Given[];
  used: number;
  wanted: number;
  askedMs: number;
  pokedMs: number;
}

interface Limit {
  readonly subject: ShareSubject;
  total: number;
  readonly holders: Map<PeerId, Holder>;
}

/** Shares that the holder may still keep to, or may yet; of many, one. */
function stillGiven(given: readonly Given[], answer: number, overMs: number): Given[] {
  const still = given.filter((one) => one.untilMs > overMs && one.answer >= answer);
  if (still.length < givenMax) return still;
  const most = (of: (one: Given) => number): number => Math.max(...still.map(of));
  return [
    { answer: most((one) => one.answer), share: most(({ share }) => share), untilMs: most(({ untilMs }) => untilMs) },
  ];
}

/** Names a limit of a key or an account. */
export const shareName = ({ issuer, subject, limit }: ShareSubject): string =>
  `${limit}/${subject.kind === 'key' ? `k${subject.key}` : `a${subject.account}`}/${issuer}`;

/** Everyone gets what it wants, or, where that is too much, no more than the others; what nobody wants is shared evenly. */
export function shareOut(total: number, wants: readonly number[]): readonly number[] {
  const order = wants.map((want, at) => ({ want, at })).sort((a, b) => a.want - b.want || a.at - b.at);
  const shares = wants.map(() => 0);
  let left = total;
  for (const [done, { want, at }] of order.entries()) {
    const even = Math.floor(left / (order.length - done));
    // The last to be served has the most use for what does not divide.
    shares[at] = done === order.length - 1 ? Math.min(want, left) : Math.min(want, even);
    left -= shares[at] ?? 0;
  }
  const extra = wants.length === 0 ? 0 : Math.floor(left / wants.length);
  return shares.map((share, at) => share + extra + (at === 0 ? left - extra * wants.length : 0));
}

class SharedWindows implements WindowAuthority {
  readonly #deps: WindowDeps;
  readonly #limits = new Map<string, Limit>();
  readonly #whole = new Set<PeerId>();
  readonly #startMs: number;
  #sweptMs: number;

  constructor(deps: WindowDeps) {
    this.#deps = deps;
    this.#startMs = deps.clock.nowMs();
    this.#sweptMs = this.#startMs;
  }

  ask(from: PeerId, { id, isWhole, rows }: ShareAsk): Shares {
    const nowMs = this.#deps.clock.nowMs();
    this.#sweep(nowMs);
    const shares = rows.map((row) => this.#one(from, row, { id, nowMs }));
    if (isWhole) this.#whole.add(from);
    return { type: 'shares', id, rows: shares };
  }

  #one(from: PeerId, row: ShareRow, at: { readonly id: number; readonly nowMs: number }) {
    const { id, nowMs } = at;
    if (!this.#deps.keeps(row.issuer)) return { share: 0, forMs: 0 };
    const { forMs } = terms[row.limit];
    const limit = this.#limit(row);
    if (limit === undefined) return { share: 0, forMs };
    const holder = this.#holder(limit, from, row, nowMs);
    holder.given = stillGiven(holder.given, row.answer, nowMs - terms[row.limit].lagMs);
    const share = this.#shareOf(limit, from, row, nowMs);
    if (share === undefined) return { share: 0, forMs: 0 };
    if (row.wanted > 0 || share > 0) holder.given.push({ answer: id, share, untilMs: nowMs + forMs });
    this.#poke(limit, from, nowMs);
    return { share, forMs };
  }

  #limit(row: ShareRow): Limit | undefined {
    const name = shareName(row);
    let limit = this.#limits.get(name);
    if (limit === undefined && this.#limits.size < subjectsMax) {
      limit = { subject: row, total: row.total, holders: new Map() };
      this.#limits.set(name, limit);
    }
    if (limit !== undefined) limit.total = this.#deps.totalOf(row) ?? row.total;
    return limit;
  }

  #holder(limit: Limit, from: PeerId, row: ShareRow, nowMs: number): Holder {
    let holder = limit.holders.get(from);
    if (holder === undefined) {
      // An earlier process of this authority has given it that.
      const given = row.forMs > 0 ? [{ answer: row.answer, share: row.share, untilMs: nowMs + row.forMs }] : [];
      holder = { given, used: 0, wanted: 0, askedMs: nowMs, pokedMs: Number.NEGATIVE_INFINITY };
      limit.holders.set(from, holder);
    }
    Object.assign(holder, { used: row.used, wanted: Math.min(row.wanted, limit.total), askedMs: nowMs });
    return holder;
  }

  /** What a holder may have used, or may still use, at this moment. */
  #committed({ subject: { limit } }: Limit, holder: Holder, nowMs: number): number {
    const { forMs, lagMs } = terms[limit];
    const shares = holder.given.filter(({ untilMs }) => nowMs < untilMs + lagMs).map(({ share }) => share);
    const isHeard = nowMs < holder.askedMs + forMs + lagMs;
    return Math.max(0, isHeard ? holder.used : 0, ...shares);
  }

  /** Undefined while that cannot be told. */
  #shareOf(limit: Limit, from: PeerId, row: ShareRow, nowMs: number): number | undefined {
    const others = [...limit.holders].filter(([peer]) => peer !== from);
    const taken = others.reduce((sum, [, holder]) => sum + this.#committed(limit, holder, nowMs), 0);
    const free = Math.max(0, limit.total - taken);
    // What an earlier process has shared out is not known yet: everyone keeps what it has.
    if (!this.#knowsAll(limit, nowMs)) return row.forMs > 0 ? Math.min(free, row.share) : undefined;
    return Math.min(free, this.#targets(limit, nowMs).get(from) ?? 0);
  }

  #knowsAll({ subject: { limit } }: Limit, nowMs: number): boolean {
    if (nowMs >= this.#startMs + terms[limit].forMs) return true;
    return this.#deps.others().every((peer) => this.#whole.has(peer));
  }

  /** What everyone who is active should have. */
  #targets(limit: Limit, nowMs: number): ReadonlyMap<PeerId, number> {
    const { forMs } = terms[limit.subject.limit];
    const active = [...limit.holders].filter(([, { wanted, askedMs }]) => wanted > 0 && nowMs < askedMs + forMs);
    const shares = shareOut(
      limit.total,
      active.map(([, { wanted }]) => wanted),
    );
    return new Map(active.map(([peer], at) => [peer, shares[at] ?? 0]));
  }

  /** Whoever has more than it should, while somebody has less; and those, once there is something. */
  #poke(limit: Limit, from: PeerId, nowMs: number): void {
    const targets = this.#targets(limit, nowMs);
    const rows = [...limit.holders].map(([peer, holder]) => {
      const committed = this.#committed(limit, holder, nowMs);
      const targeted = targets.get(peer) ?? 0;
      const has = holder.given.at(-1)?.share ?? 0;
      const lacks = Math.min(targeted, holder.wanted) > has;
      // What it had used by its last word may be a minute old by now.
      const isOld = nowMs - holder.askedMs >= oldMs;
      const hasTooMuch = committed > targeted && (committed > holder.used || isOld);
      return { peer, holder, committed, lacks, hasTooMuch };
    });
    const isFree = rows.reduce((sum, { committed }) => sum + committed, 0) < limit.total;
    const isShort = rows.some(({ lacks }) => lacks);
    for (const { peer, holder, lacks, hasTooMuch } of rows) {
      const isDue = (isShort && hasTooMuch) || (lacks && isFree && peer !== from);
      if (!isDue || nowMs - holder.pokedMs < pokeAgainMs) continue;
      holder.pokedMs = nowMs;
      this.#deps.poke(peer, [limit.subject]);
    }
  }

  #sweep(nowMs: number): void {
    if (nowMs - this.#sweptMs < 10_000 && this.#limits.size < subjectsMax) return;
    if (nowMs - this.#sweptMs < 1_000) return;
    this.#sweptMs = nowMs;
    for (const [name, limit] of this.#limits) {
      const { forMs, lagMs } = terms[limit.subject.limit];
      for (const [peer, holder] of limit.holders) {
        holder.given = holder.given.filter(({ untilMs }) => nowMs < untilMs + lagMs);
        if (holder.given.length === 0 && nowMs >= holder.askedMs + forMs + lagMs) limit.holders.delete(peer);
      }
      if (limit.holders.size === 0) this.#limits.delete(name);
    }
  }
}

export const createWindowAuthority = (deps: WindowDeps): WindowAuthority => new SharedWindows(deps);
