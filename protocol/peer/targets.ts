/** Peers worth reaching, and when to try each: pure bookkeeping with capped, jittered backoff. */

import type { Role } from '../grants.ts';
import type { PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { Contact } from '../ports.ts';
import { type Ms, ms } from '../units.ts';

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
  failures: number;
  nextTryMs: Ms;
}

const backoffFirstMs = 500;
const backoffMaxMs = 30_000;
/** A target that nothing speaks for any more is dropped after this long. */
const forgetMs = 600_000;

/** Doubling from half a second to half a minute, plus up to as much again by `chance` (0 to 1). */
export const backoffMs = (failures: number, chance: number): Ms =>
  ms(Math.min(backoffFirstMs * 2 ** Math.min(failures, 10), backoffMaxMs) * (0.5 + chance / 2));

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

  /** It worked: the next loss is followed by a quick try. */
  reached(peer: PeerId, nowMs: Ms): void {
    const target = this.#targets.get(peer);
    if (target === undefined) return;
    target.failures = 0;
    target.lastHeardMs = nowMs;
    target.nextTryMs = nowMs;
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
