/** What this gateway may use of limits that all gateways share: asked for in the background, told at once. */

import type { IssuerId, PeerId } from '../protocol/ids.ts';
import {
  leaseRowsMax,
  type ShareAsk,
  type ShareRow,
  type ShareSubject,
  type Shares,
} from '../protocol/messages/lease.ts';
import type { Clock } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import type { ShareQuery, ShareStatus } from './budgets.ts';
import { shareName } from './lease-windows.ts';

/** Whom to ask about an issuer's limits: `here` is this process, `alone` that there is nobody to share with. */
export type Sharer = PeerId | 'here' | 'alone' | undefined;

export interface ShareDeps {
  readonly clock: Clock;
  readonly sharerOf: (issuer: IssuerId) => Sharer;
  readonly askHere: (ask: ShareAsk) => Shares;
  /** @returns false where the peer cannot be reached. */
  readonly ask: (peer: PeerId, ask: ShareAsk) => Promise<boolean>;
}

/** The holder's side of shared limits. */
export interface ShareHolder {
  /** As `Budgets.share`. */
  share(query: ShareQuery): number;
  told(peer: PeerId, shares: Shares): void;
  poked(subjects: readonly ShareSubject[]): void;
  /** A channel to this peer is new: it is told of everything that is in force here. */
  report(peer: PeerId): void;
  status(): ShareStatus;
  close(): void;
}

/** Limits in use here; about 0.5 kB each. */
const subjectsMax = 65_536;
/** Of the time that a share counts, after a third it is asked for again, and after two thirds nothing more begins. */
const parts = 3;
const tidyEveryMs = ms(2_000);
/** Somebody who was refused gets an answer soon, but not with each request. */
const askAgainMs = 100;
/** What nobody has asked for in this time is given back; strict keys keep a little for longer, since without it they wait. */
const idleMs = 60_000;
const strictIdleMs = 600_000;
/** Whoever has not answered for this long cannot be reached. */
const silentMs = 2_000;

interface Held {
  readonly subject: ShareSubject;
  readonly name: string;
  total: number;
  isStrict: boolean;
  share: number;
  /** That gave the share. */
  answer: number;
  /** From when it is renewed, and until when it counts for what begins. */
  renewMs: number;
  untilMs: number;
  /** The end of the authority's time. */
  endMs: number;
  used: () => number;
  /** What could not pass since the last question. */
  missed: number;
  usedMs: number;
  askedMs: number;
  /** The answer that is awaited; 0 none. */
  awaits: number;
}

interface Asked {
  readonly rows: readonly Held[];
  readonly sentMs: number;
}

const keepMsOf = ({ isStrict }: Held): number => (isStrict ? strictIdleMs : idleMs);

/** Twice as much where something was refused, a quarter more where it is used. */
function wantedOf(held: Held, used: number, nowMs: number): number {
  const { share, missed, usedMs } = held;
  const quietMs = nowMs - usedMs;
  if (used === 0 && quietMs >= idleMs) return quietMs < keepMsOf(held) ? 1 : 0;
  return missed > 0 ? Math.max(2 * share, used + missed) : Math.ceil(1.25 * used) + 1;
}

class SharesHeld implements ShareHolder {
  readonly #deps: ShareDeps;
  readonly #all = new Map<string, Held>();
  readonly #due = new Set<Held>();
  readonly #asked = new Map<number, Asked>();
  #ids = 0;
  #isFlushing = false;
  #cancelTidy: () => void = () => {};
  #isClosed = false;

  constructor(deps: ShareDeps) {
    this.#deps = deps;
    this.#tidyLater();
  }

  #tidyLater(): void {
    this.#cancelTidy = this.#deps.clock.timer(tidyEveryMs, () => {
      this.#tidy();
      this.#tidyLater();
    });
  }

  share(query: ShareQuery): number {
    const sharer = this.#deps.sharerOf(query.issuer);
    if (sharer === 'alone') return query.total;
    const held = this.#held(query);
    if (held === undefined) return query.strict ? 0 : query.total;
    const nowMs = this.#deps.clock.nowMs();
    held.total = query.total;
    held.isStrict = query.strict;
    held.used = query.used;
    if (query.need > 0) held.usedMs = nowMs;
    const first = this.#inForce(held, nowMs);
    if (query.need === 0 || query.used() + query.need <= first) {
      if (nowMs >= held.renewMs) this.#want(held, sharer, nowMs);
      return first;
    }
    held.missed += query.need;
    this.#want(held, sharer, nowMs);
    return this.#inForce(held, nowMs);
  }

  #held(query: ShareQuery): Held | undefined {
    const name = shareName(query);
    const known = this.#all.get(name);
    if (known !== undefined || this.#all.size >= subjectsMax) return known;
    const { issuer, subject, limit, total, used, strict: isStrict } = query;
    const made: Held = {
      ...{ subject: { issuer, subject, limit }, name, total, isStrict, share: 0, answer: 0 },
      ...{
        renewMs: 0,
        untilMs: 0,
        endMs: 0,
        used,
        missed: 0,
        usedMs: 0,
        askedMs: Number.NEGATIVE_INFINITY,
        awaits: 0,
      },
    };
    this.#all.set(name, made);
    return made;
  }

  /** While it cannot be shared, only what must never be passed is refused. */
  #inForce(held: Held, nowMs: number): number {
    if (nowMs < held.untilMs) return Math.min(held.share, held.total);
    return held.isStrict ? 0 : held.total;
  }

  #want(held: Held, sharer: Sharer, nowMs: number): void {
    if (sharer === 'here') {
      this.#askHere([held]);
      return;
    }
    if (held.awaits !== 0 && nowMs - held.askedMs < silentMs) return;
    if (nowMs - held.askedMs < askAgainMs) return;
    this.#due.add(held);
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#isFlushing || this.#isClosed) return;
    this.#isFlushing = true;
    void this.#deps.clock.turn().then(() => {
      this.#isFlushing = false;
      this.#flush();
    });
  }

  #flush(): void {
    const byPeer = new Map<PeerId, Held[]>();
    // Whoever is asked here answers at once, and an answer may be the reason for the next question.
    const due = [...this.#due];
    this.#due.clear();
    for (const held of due) {
      const sharer = this.#deps.sharerOf(held.subject.issuer);
      if (sharer === 'here') this.#askHere([held]);
      else if (sharer !== undefined && sharer !== 'alone') byPeer.set(sharer, [...(byPeer.get(sharer) ?? []), held]);
    }
    for (const [peer, all] of byPeer) this.#askOf(peer, all, false);
  }

  #askHere(rows: readonly Held[]): void {
    const ask = this.#asking(rows, false);
    this.#apply('here', this.#deps.askHere(ask));
  }

  #askOf(peer: PeerId, all: readonly Held[], isReport: boolean): void {
    for (let from = 0; from === 0 || from < all.length; from += leaseRowsMax) {
      const rows = all.slice(from, from + leaseRowsMax);
      const ask = this.#asking(rows, isReport && from + leaseRowsMax >= all.length);
      void this.#deps.ask(peer, ask).then((isSent) => {
        if (!isSent) this.#forget(ask.id);
      });
    }
  }

  #asking(rows: readonly Held[], isWhole: boolean): ShareAsk {
    const nowMs = this.#deps.clock.nowMs();
    this.#ids += 1;
    const id = this.#ids;
    this.#asked.set(id, { rows, sentMs: nowMs });
    const asked = rows.map((held): ShareRow => {
      const { subject, total, share, answer, endMs } = held;
      const used = held.used();
      const wanted = wantedOf(held, used, nowMs);
      Object.assign(held, { missed: 0, askedMs: nowMs, awaits: id });
      const forMs = Math.max(0, Math.ceil(endMs - nowMs));
      return { ...subject, total, share, answer, forMs, used, wanted: Math.min(wanted, total) };
    });
    return { type: 'shareAsk', id, isWhole, rows: asked };
  }

  #forget(id: number): void {
    for (const held of this.#asked.get(id)?.rows ?? []) if (held.awaits === id) held.awaits = 0;
    this.#asked.delete(id);
  }

  told(peer: PeerId, shares: Shares): void {
    this.#apply(peer, shares);
  }

  #apply(from: PeerId | 'here', { id, rows }: Shares): void {
    const asked = this.#asked.get(id);
    if (asked === undefined || asked.rows.length !== rows.length) return;
    this.#forget(id);
    let hasLess = false;
    for (const [at, held] of asked.rows.entries()) {
      const { share = 0, forMs = 0 } = rows[at] ?? {};
      const sharer = this.#deps.sharerOf(held.subject.issuer);
      // It is in office no more, and its successor does not know of what it gives.
      if (sharer !== from || held.answer > id) continue;
      hasLess ||= share < held.share;
      const isBrief = held.subject.limit === 'concurrency';
      Object.assign(held, {
        share,
        answer: id,
        renewMs: asked.sentMs + forMs / parts,
        untilMs: asked.sentMs + (isBrief ? (forMs * (parts - 1)) / parts : forMs),
        endMs: asked.sentMs + forMs,
      });
    }
    // What was given up may go to others once it is known that it was.
    if (hasLess) for (const held of asked.rows) this.#due.add(held);
    if (hasLess) this.#flushSoon();
  }

  poked(subjects: readonly ShareSubject[]): void {
    for (const subject of subjects) {
      const held = this.#all.get(shareName(subject));
      if (held !== undefined && held.awaits === 0) this.#due.add(held);
    }
    this.#flushSoon();
  }

  report(peer: PeerId): void {
    const all = [...this.#all.values()].filter(({ subject }) => this.#deps.sharerOf(subject.issuer) === peer);
    this.#askOf(peer, all, true);
  }

  #tidy(): void {
    const nowMs = this.#deps.clock.nowMs();
    for (const [id, { sentMs }] of this.#asked) if (nowMs - sentMs > silentMs) this.#forget(id);
    for (const held of this.#all.values()) {
      const isIdle = nowMs - held.usedMs >= keepMsOf(held);
      if (isIdle && nowMs >= held.endMs) this.#all.delete(held.name);
      else if (nowMs >= held.renewMs && held.awaits === 0 && !(isIdle && held.share === 0)) this.#due.add(held);
    }
    if (this.#due.size > 0) this.#flushSoon();
  }

  status(): ShareStatus {
    const nowMs = this.#deps.clock.nowMs();
    const unshared = [...this.#all.values()].filter((held) => !held.isStrict && nowMs >= held.untilMs);
    return { shared: this.#all.size, unshared: unshared.length };
  }

  close(): void {
    this.#isClosed = true;
    this.#cancelTidy();
  }
}

export const createShareHolder = (deps: ShareDeps): ShareHolder => new SharesHeld(deps);
