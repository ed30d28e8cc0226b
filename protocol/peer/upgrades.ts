/** Takes connections off relays: who is told a direct address over a relayed connection dials it (connection reversal). */

import type { Role } from '../grants.ts';
import type { PeerId } from '../ids.ts';
import type { Clock, Connection, Contact, Random } from '../ports.ts';
import { type Ms, ms } from '../units.ts';
import { isRelayed } from './address.ts';

interface UpgradesDeps {
  readonly clock: Clock;
  readonly random: Random;
}

interface UpgradesOptions {
  /** Open, admitted connections to `peer`. */
  readonly connections: (peer: PeerId) => readonly Connection[];
  /** Dials these addresses and moves over what was on the relayed connection. @returns whether that worked. */
  readonly dial: (contact: Contact, role: Role) => Promise<boolean>;
}

interface Wanted {
  readonly contact: Contact;
  readonly role: Role;
  /** The connection over which the addresses were told. */
  readonly relayed: Connection;
  nextTryMs: Ms;
  waitMs: number;
  isTrying: boolean;
}

/** Both sides may have been told an address at the same moment: the one that comes second finds it done. */
const spreadMs = 1_000;
/** An address that could not be dialled is tried again after this long, then twice that, and so on. */
const againFirstMs = 60_000;
const againMaxMs = 3_600_000;

/** The relayed connections that could be direct; the caller calls `tick` often. */
export class Upgrades {
  readonly #deps: UpgradesDeps;
  readonly #options: UpgradesOptions;
  readonly #wanted = new Map<PeerId, Wanted>();

  constructor(deps: UpgradesDeps, options: UpgradesOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** A connection was admitted, and its peer told its addresses and role. */
  admitted(relayed: Connection, role: Role, addresses: readonly string[]): void {
    const { peer, path } = relayed;
    const direct = addresses.filter((address) => !isRelayed(address));
    if (path !== 'relayed' || direct.length === 0) return;
    const { clock, random } = this.#deps;
    this.#wanted.set(peer, {
      contact: { peer, addresses: direct },
      role,
      relayed,
      nextTryMs: ms(clock.nowMs() + spreadMs * random.float()),
      waitMs: againFirstMs,
      isTrying: false,
    });
  }

  tick(): void {
    const nowMs = this.#deps.clock.nowMs();
    for (const wanted of [...this.#wanted.values()]) {
      if (wanted.isTrying || nowMs < wanted.nextTryMs) continue;
      const { peer } = wanted.contact;
      const isDirect = this.#options.connections(peer).some(({ path }) => path !== 'relayed');
      if (isDirect || !wanted.relayed.isOpen) this.#wanted.delete(peer);
      else void this.#try(wanted);
    }
  }

  async #try(wanted: Wanted): Promise<void> {
    const { clock, random } = this.#deps;
    wanted.isTrying = true;
    const worked = await this.#options.dial(wanted.contact, wanted.role);
    wanted.isTrying = false;
    // What does not last is tried again: the relayed connection is still there then, or is made anew.
    if (worked && this.#wanted.get(wanted.contact.peer) === wanted) this.#wanted.delete(wanted.contact.peer);
    wanted.nextTryMs = ms(clock.nowMs() + wanted.waitMs * (0.75 + random.float() / 4));
    wanted.waitMs = Math.min(2 * wanted.waitMs, againMaxMs);
  }
}
