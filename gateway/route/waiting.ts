/** Requests that wait for a node: bounded, and fair to accounts whatever each of them asks for. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest } from '../../protocol/ids.ts';
import type { Cancel, Clock } from '../../protocol/ports.ts';
import { Departures } from './departures.ts';

type Overloaded = HelixFlowError<'GATEWAY_OVERLOADED' | 'ACCOUNT_OVERLOADED'>;

/** One request that waits. */
export interface Waiter {
  /** Whose it is; places and turns are shared between accounts. */
  readonly account: string;
  /** Not every node will do for it: that it finds no place says nothing of those behind it. Read when `go` was false. */
  readonly isPicky?: boolean;
  /** Its client has part of the answer already: it goes before all that have nothing. */
  readonly isUrgent?: boolean;
  /** How many attempts of this account run in this group now: who has fewest is next. */
  readonly running: () => number;
  /** A place may be free: tries to take it. @returns false when there was none for it after all; it keeps its turn. */
  go(): boolean;
  /** It has to give up its place to others: it ends with this error. */
  refused(error: Overloaded): void;
}

/** The requests of one gateway that wait, by model. */
export interface WaitingRoom {
  readonly size: number;
  /** How many wait for this model. */
  sizeOf(digest: ModelDigest): number;
  /**
   * Takes a place. When all are taken, an account that holds more than its share loses its newest one to this one;
   * to an urgent one, whoever holds the most.
   * @returns how to leave, or why there is no place: GATEWAY_OVERLOADED, or ACCOUNT_OVERLOADED when that is the account's own doing.
   */
  enter(digest: ModelDigest, waiter: Waiter): Cancel | Overloaded;
  /**
   * Something changed at a node of this model: whoever is next goes, and the next, until one that is not picky finds
   * no place. May be called from within `go`, which then goes on first; one that returns false has seen its own changes.
   */
  changed(digest: ModelDigest): void;
  /** An attempt of this model has ended: what an honest `retryAfterMs` is made of. */
  left(digest: ModelDigest): void;
  /** When a request that comes now should find a place: from those that wait, and how fast they went lately. */
  retryAfterMs(digest: ModelDigest): number;
}

export interface WaitingOptions {
  /** Requests that wait at this gateway, of all models together. */
  readonly placesMax: number;
  /** Of those places, the part that one account may hold even while others are free: above 0, at most 1. */
  readonly accountShare: number;
}

/** Picky requests of one account that are asked in vain at one change: each of them looks at all nodes. */
const vainMax = 32;
/** The same of all accounts together, as long as each is asked once. */
const vainSum = 128;
/** Models whose pace is remembered. */
const groupsMax = 1_024;

interface Place {
  readonly queue: Queue;
  readonly waiter: Waiter;
  /** In the order they came. */
  readonly number: number;
  before: Place | undefined;
  after: Place | undefined;
  isIn: boolean;
  isGoing: boolean;
}

/** The places of one account for one model, in the order they came. */
interface Queue {
  readonly group: Group;
  readonly account: string;
  first: Place | undefined;
  last: Place | undefined;
  /** When it last had a turn: the least is next among equals. */
  turn: number;
}

interface Group {
  readonly digest: ModelDigest;
  readonly queues: Map<string, Queue>;
  readonly departures: Departures;
  size: number;
}

class Room implements WaitingRoom {
  readonly #clock: Pick<Clock, 'nowMs'>;
  readonly #placesMax: number;
  readonly #accountMax: number;
  readonly #groups = new Map<ModelDigest, Group>();
  /** Places of each account that has any, of all models. */
  readonly #held = new Map<string, number>();
  /** Models to offer turns of; one at a time, so that nobody is asked twice at once. */
  readonly #changed = new Set<ModelDigest>();
  #isOffering = false;
  #number = 0;
  #turn = 0;
  size = 0;

  constructor(clock: Pick<Clock, 'nowMs'>, { placesMax, accountShare }: WaitingOptions) {
    this.#clock = clock;
    this.#placesMax = placesMax;
    this.#accountMax = Math.max(1, Math.floor(placesMax * accountShare));
  }

  sizeOf(digest: ModelDigest): number {
    return this.#groups.get(digest)?.size ?? 0;
  }

  enter(digest: ModelDigest, waiter: Waiter): Cancel | Overloaded {
    const loser = this.#loserTo(waiter);
    if (typeof loser === 'string') return this.#overloaded(loser, digest);
    if (loser !== undefined) this.#remove(loser);
    const place = this.#add(digest, waiter);
    loser?.waiter.refused(this.#overloaded('ACCOUNT_OVERLOADED', loser.queue.group.digest));
    return () => this.#remove(place);
  }

  changed(digest: ModelDigest): void {
    if (this.sizeOf(digest) === 0) return;
    this.#changed.add(digest);
    if (this.#isOffering) return;
    this.#isOffering = true;
    try {
      for (const next of this.#changed) {
        this.#changed.delete(next);
        this.#offer(next);
      }
    } finally {
      this.#isOffering = false;
    }
  }

  left(digest: ModelDigest): void {
    this.#groups.get(digest)?.departures.left(this.#clock.nowMs());
  }

  retryAfterMs(digest: ModelDigest): number {
    const group = this.#groupOf(digest);
    return group.departures.untilMs(group.size, this.#clock.nowMs());
  }

  /** Whose place a newcomer takes, or why there is none for it; undefined when one is free. */
  #loserTo({ account, isUrgent }: Waiter): Place | Overloaded['code'] | undefined {
    const own = this.#held.get(account) ?? 0;
    const isFull = this.size >= this.#placesMax;
    if (isUrgent) return isFull ? (this.#excess(0) ?? 'GATEWAY_OVERLOADED') : undefined;
    if (own >= this.#accountMax) return 'ACCOUNT_OVERLOADED';
    if (!isFull) return undefined;
    const accounts = this.#held.size + (own === 0 ? 1 : 0);
    const share = Math.max(1, Math.floor(this.#placesMax / accounts));
    if (own > share) return 'ACCOUNT_OVERLOADED';
    return (own < share ? this.#excess(share) : undefined) ?? 'GATEWAY_OVERLOADED';
  }

  /** The newest place of whoever holds the most, if that is more than `share`. */
  #excess(share: number): Place | undefined {
    let [most, account]: [number, string | undefined] = [share, undefined];
    for (const [name, held] of this.#held) if (held > most) [most, account] = [held, name];
    if (account === undefined) return undefined;
    let newest: Place | undefined;
    for (const { queues } of this.#groups.values()) {
      const last = queues.get(account)?.last;
      // Who is just being asked may have gone already.
      const place = last?.isGoing ? last.before : last;
      if (place === undefined || place.waiter.isUrgent) continue;
      if (newest === undefined || place.number > newest.number) newest = place;
    }
    return newest;
  }

  #overloaded(code: Overloaded['code'], digest: ModelDigest): Overloaded {
    return new HelixFlowError(code, { retryAfterMs: this.retryAfterMs(digest) });
  }

  /** Lets them go, one by one. */
  #offer(digest: ModelDigest): void {
    const group = this.#groups.get(digest);
    if (group === undefined) return;
    /** Accounts that have been asked in vain. */
    const vain = new Set<Queue>();
    for (let queue = next(group, vain); queue !== undefined; queue = next(group, vain)) {
      const outcome = this.#ask(queue);
      const hasChanged = this.#changed.delete(digest);
      if (outcome === 'full') return;
      if (outcome === 'vain') vain.add(queue);
      else if (hasChanged) vain.clear();
    }
  }

  /** Asks an account's requests until one goes. @returns `full` where nobody's would, `vain` where only these would not. */
  #ask(queue: Queue): 'went' | 'vain' | 'full' {
    let asked = 0;
    const most = Math.min(vainMax, Math.max(1, Math.floor(vainSum / queue.group.queues.size)));
    for (let place = queue.first; place !== undefined && asked < most; place = place.after) {
      asked += 1;
      place.isGoing = true;
      const went = place.waiter.go();
      place.isGoing = false;
      if (went || !place.isIn) {
        this.#turn += 1;
        queue.turn = this.#turn;
        this.#remove(place);
        return 'went';
      }
      if (!place.waiter.isPicky) return 'full';
    }
    return 'vain';
  }

  #add(digest: ModelDigest, waiter: Waiter): Place {
    const { account } = waiter;
    const group = this.#groupOf(digest);
    let queue = group.queues.get(account);
    if (queue === undefined) {
      // Whoever comes anew comes last: else to leave and come again would be a way to be first.
      this.#turn += 1;
      queue = { group, account, first: undefined, last: undefined, turn: this.#turn };
      group.queues.set(account, queue);
    }
    this.#number += 1;
    let before = queue.last;
    if (waiter.isUrgent) while (before !== undefined && !before.waiter.isUrgent) before = before.before;
    const after = before === undefined ? queue.first : before.after;
    const place: Place = { queue, waiter, number: this.#number, before, after, isIn: true, isGoing: false };
    if (before === undefined) queue.first = place;
    else before.after = place;
    if (after === undefined) queue.last = place;
    else after.before = place;
    this.#held.set(account, (this.#held.get(account) ?? 0) + 1);
    this.#sized(group, 1);
    return place;
  }

  #remove(place: Place): void {
    if (!place.isIn) return;
    place.isIn = false;
    const { queue, before, after } = place;
    if (before === undefined) queue.first = after;
    else before.after = after;
    if (after === undefined) queue.last = before;
    else after.before = before;
    if (queue.first === undefined) queue.group.queues.delete(queue.account);
    const held = (this.#held.get(queue.account) ?? 0) - 1;
    if (held > 0) this.#held.set(queue.account, held);
    else this.#held.delete(queue.account);
    this.#sized(queue.group, -1);
  }

  #sized(group: Group, more: number): void {
    group.size += more;
    this.size += more;
    group.departures.waiting(group.size, this.#clock.nowMs());
  }

  #groupOf(digest: ModelDigest): Group {
    let group = this.#groups.get(digest);
    if (group === undefined) {
      this.#forget();
      group = { digest, queues: new Map(), departures: new Departures(), size: 0 };
      this.#groups.set(digest, group);
    }
    return group;
  }

  /** Makes room for another model: the oldest for which nobody waits. */
  #forget(): void {
    if (this.#groups.size < groupsMax) return;
    for (const [digest, { size }] of this.#groups) {
      if (size > 0) continue;
      this.#groups.delete(digest);
      return;
    }
  }
}

/**
 * Of those not asked in vain: an account with something urgent, else the one with the fewest attempts under way; of
 * several, the one that has waited longest for a turn.
 */
function next({ queues }: Group, vain: ReadonlySet<Queue>): Queue | undefined {
  let best: Queue | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const queue of queues.values()) {
    if (queue.first === undefined || vain.has(queue)) continue;
    const { isUrgent, running } = queue.first.waiter;
    const rank = isUrgent ? -1 : running();
    if (rank > least || (rank === least && best !== undefined && queue.turn > best.turn)) continue;
    [best, least] = [queue, rank];
  }
  return best;
}

/** Creates an empty room. */
export const createWaitingRoom = (
  { clock }: { readonly clock: Pick<Clock, 'nowMs'> },
  options: WaitingOptions,
): WaitingRoom => new Room(clock, options);
