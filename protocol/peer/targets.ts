/** Peers worth reaching, and when to try each: pure bookkeeping with capped, jittered backoff. */

import type { Role } from '../grants.ts';
import type { PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { Contact } from '../ports.ts';
import { type Ms, ms } from '../units.ts';

/** A peer worth a connection, and how often that has failed. */
export interface Target {
  readonly peer: PeerId;
  role: Role;
  addresses: readonly string[];
  /** When it was first heard of. */
  readonly foundMs: Ms;
  /** When it was last heard of, or connected. */
  lastHeardMs: Ms;
  /** Given by an invite, an operator, or memory: never forgotten. */
  isAnchor: boolean;
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

  /** Adds or refreshes a contact. Known addresses are kept when the new word brings none. */
  hear(contact: Contact, role: Role, nowMs: Ms, isAnchor = false): void {
    if (contact.peer === this.#self) return;
    const addresses = contact.addresses.slice(0, limits.peerAddressesMax);
    const known = this.#targets.get(contact.peer);
    if (known === undefined) {
      if (this.#targets.size >= limits.peersRememberedMax && !isAnchor) return;
      const { peer } = contact;
      this.#targets.set(peer, {
        peer,
        role,
        addresses,
        foundMs: nowMs,
        lastHeardMs: nowMs,
        isAnchor,
        reachedMs: undefined,
        failures: 0,
        nextTryMs: nowMs,
      });
      return;
    }
    known.role = role;
    known.lastHeardMs = nowMs;
    known.isAnchor ||= isAnchor;
    if (addresses.length > 0) known.addresses = addresses;
  }

  /** Connected: leave it alone until that has settled. */
  reached(peer: PeerId, nowMs: Ms): void {
    const target = this.#targets.get(peer);
    if (target === undefined) return;
    target.reachedMs = nowMs;
    target.lastHeardMs = nowMs;
    target.nextTryMs = ms(nowMs + limits.sessionSettleMs);
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
    if (!target.isAnchor && nowMs - target.lastHeardMs > forgetMs) this.#targets.delete(peer);
  }
}
