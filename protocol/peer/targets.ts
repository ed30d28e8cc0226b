/** Peers worth reaching, and when to try each: pure bookkeeping with capped, jittered backoff. */

import type { Role } from '../grants.ts';
import type { PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { Contact } from '../ports.ts';
import { type Ms, ms } from '../units.ts';
import { isRelayed } from './address.ts';

/** Who told of a contact: it itself, an invite or the operator, or somebody else. */
export type Source = 'self' | 'anchor' | 'hearsay';

/** A peer worth reaching. */
export interface Target {
  readonly peer: PeerId;
  role: Role;
  addresses: readonly string[];
  /** When it was first heard of. */
  readonly foundMs: Ms;
  /** When it was last heard of, or connected. */
  lastHeardMs: Ms;
  /** Given by an invite or an operator, or among those seen last before the start: never forgotten. */
  isAnchor: boolean;
  /** Its own hello has told role and addresses; hearsay only adds to them. */
  isProven: boolean;
  reachedMs: Ms | undefined;
  failures: number;
  nextTryMs: Ms;
}

const backoffFirstMs = 500;
const backoffMaxMs = 30_000;
/** A connection that held for this long was a good one. */
const lastedMs = 10_000;
/** A target that nothing speaks for any more is dropped after this long. */
const forgetMs = 600_000;

/** Doubling from half a second to half a minute, half to all of it by `chance` (0 to 1). */
export const backoffMs = (failures: number, chance: number): Ms =>
  ms(Math.min(backoffFirstMs * 2 ** Math.min(failures, 10), backoffMaxMs) * (0.5 + chance / 2));

/** What was known stays before what is new, but for ways through relays: those come and go. */
function joined(known: readonly string[], heard: readonly string[]): readonly string[] {
  const isDirect = (address: string): boolean => !isRelayed(address);
  const all = [...known.filter(isDirect), ...heard.filter(isDirect), ...heard.filter(isRelayed), ...known];
  return [...new Set(all)].slice(0, limits.peerAddressesMax);
}

/** All of them, bounded, each with its next moment to be tried. */
export class Targets {
  readonly #self: PeerId;
  readonly #targets = new Map<PeerId, Target>();

  constructor(self: PeerId) {
    this.#self = self;
  }

  get(peer: PeerId): Target | undefined {
    return this.#targets.get(peer);
  }

  /** In the order they were found. */
  all(): readonly Target[] {
    return [...this.#targets.values()];
  }

  /**
   * Adds or refreshes a contact. What its own hello told (`self`), or what was given at the start (`anchor`), is not
   * replaced by what others say: that adds addresses where there is room.
   */
  hear(contact: Contact, role: Role, nowMs: Ms, source: Source): void {
    const { peer } = contact;
    if (peer === this.#self) return;
    const addresses = contact.addresses.slice(0, limits.peerAddressesMax);
    const known = this.#targets.get(peer);
    const isAnchor = source === 'anchor';
    const isProven = source === 'self';
    if (known === undefined) {
      if (this.#targets.size >= limits.peersRememberedMax && !this.#makeRoom()) return;
      const times = { foundMs: nowMs, lastHeardMs: nowMs, reachedMs: undefined, nextTryMs: nowMs };
      this.#targets.set(peer, { peer, role, addresses, isAnchor, isProven, failures: 0, ...times });
      return;
    }
    known.lastHeardMs = nowMs;
    if (isProven) {
      known.role = role;
      if (addresses.length > 0) known.addresses = addresses;
    } else {
      if (!known.isProven && !known.isAnchor) known.role = role;
      known.addresses = joined(known.addresses, addresses);
    }
    known.isAnchor ||= isAnchor;
    known.isProven ||= isProven;
  }

  /** Drops the one that has failed most and was never reached, if there is one. */
  #makeRoom(): boolean {
    let worst: Target | undefined;
    for (const target of this.#targets.values()) {
      if (target.isAnchor || target.reachedMs !== undefined) continue;
      if (worst === undefined || target.failures > worst.failures) worst = target;
    }
    return worst !== undefined && this.#targets.delete(worst.peer);
  }

  forget(peer: PeerId): void {
    this.#targets.delete(peer);
  }

  /** Connected, by somebody who wants no session; it is tried when its time comes. */
  connected(peer: PeerId, nowMs: Ms): void {
    const target = this.#targets.get(peer);
    if (target === undefined) return;
    target.reachedMs = nowMs;
    target.lastHeardMs = nowMs;
  }

  /** Connected: leave it alone until that has settled. */
  reached(peer: PeerId, nowMs: Ms): void {
    this.connected(peer, nowMs);
    const target = this.#targets.get(peer);
    if (target !== undefined) target.nextTryMs = ms(nowMs + limits.sessionSettleMs);
  }

  /** Was connected and is no more: soon tried again, later each time when it never lasts. */
  lost(peer: PeerId, nowMs: Ms, chance: number): void {
    const target = this.#targets.get(peer);
    if (target === undefined) return;
    if (target.reachedMs !== undefined && nowMs - target.reachedMs >= lastedMs) target.failures = 0;
    this.failed(peer, nowMs, chance);
  }

  /** Puts off the next try; drops a target that keeps failing and that nobody names any more. */
  failed(peer: PeerId, nowMs: Ms, chance: number): void {
    const target = this.#targets.get(peer);
    if (target === undefined) return;
    target.nextTryMs = ms(nowMs + backoffMs(target.failures, chance));
    target.failures += 1;
    if (this.#isForgotten(target, nowMs)) this.#targets.delete(peer);
  }

  /** Who has been reached is kept while nobody else can be: it may be the only way back into the mesh. */
  #isForgotten(target: Target, nowMs: Ms): boolean {
    const isSilent = ({ lastHeardMs }: Target): boolean => nowMs - lastHeardMs > forgetMs;
    if (target.isAnchor || !isSilent(target)) return false;
    return target.reachedMs === undefined || this.all().some((other) => !isSilent(other));
  }
}
