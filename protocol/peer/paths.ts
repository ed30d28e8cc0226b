/** How this peer and others reach each other: directly, dialled back, or through relays; and what is done to come closer. */

import type { Role } from '../grants.ts';
import type { PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { Clock, Connection, Contact, Log, Network, Random } from '../ports.ts';
import type { Sessions } from '../session/sessions.ts';
import { ms } from '../units.ts';
import { Reach, type Reachability } from './reach.ts';
import { Relays } from './relays.ts';
import { Upgrades } from './upgrades.ts';

interface PathsDeps {
  readonly network: Network;
  readonly sessions: Sessions;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

interface PathsOptions {
  readonly role: Role;
  readonly isGateway: (peer: PeerId) => boolean;
  /** Dials these addresses, and opens a session there where there should be one. @returns whether that worked. */
  readonly dial: (contact: Contact, role: Role) => Promise<boolean>;
  /** Others are to be told other addresses of this peer. */
  readonly moved: () => void;
}

const isRelayed = ({ path }: Connection): boolean => path === 'relayed';

/** The caller feeds `admitted`, and calls `tick` often. Made before the network starts. */
export class Paths {
  readonly #deps: PathsDeps;
  readonly #relays: Relays;
  readonly #upgrades: Upgrades;
  readonly #reach: Reach;

  constructor(deps: PathsDeps, options: PathsOptions) {
    const { random } = deps;
    this.#deps = deps;
    const gateways = (): readonly Connection[] =>
      this.open().filter((connection) => !isRelayed(connection) && options.isGateway(connection.peer));
    this.#reach = new Reach({ ...deps, random: random.fork('reach') }, { role: options.role, gateways });
    this.#relays = new Relays(
      { ...deps, random: random.fork('relays') },
      { candidates: gateways, isNeeded: () => this.#reach.state === 'no', changed: options.moved },
    );
    this.#upgrades = new Upgrades(
      { ...deps, random: random.fork('upgrades') },
      { connections: (peer) => this.#with(peer), dial: options.dial },
    );
  }

  /** Whether others can dial this peer itself. */
  get reachable(): Reachability {
    return this.#reach.state;
  }

  /** Every connection that is open and admitted. */
  open(): readonly Connection[] {
    return this.#deps.network.connections().filter((other) => other.isOpen && other.isAdmitted);
  }

  /** The connection to use with `peer`: a direct one, where there is one. */
  to(peer: PeerId): Connection | undefined {
    const all = this.#with(peer);
    return all.find((other) => !isRelayed(other)) ?? all[0];
  }

  /** A connection has passed its hello. `addresses` is where the peer says it listens. */
  admitted(connection: Connection, role: Role, addresses: readonly string[]): void {
    if (connection.direction === 'inbound' && !isRelayed(connection)) this.#reach.dialled();
    this.#upgrades.admitted(connection, role, addresses);
    this.#replaceRelayed(connection.peer);
  }

  tick(): void {
    this.#reach.tick();
    this.#relays.tick();
    this.#upgrades.tick();
  }

  #with(peer: PeerId): readonly Connection[] {
    return this.open().filter((other) => other.peer === peer);
  }

  /** Closes relayed connections that a direct one makes idle; where a session lives, it closes its own when it ends. */
  #replaceRelayed(peer: PeerId): void {
    if (!this.#with(peer).some(isRelayed)) return;
    this.#deps.clock.timer(ms(limits.sessionSettleMs), () => {
      const all = this.#with(peer);
      if (all.every(isRelayed)) return;
      for (const other of all) if (isRelayed(other) && !this.#deps.sessions.livesOn(other)) void other.close();
    });
  }
}
