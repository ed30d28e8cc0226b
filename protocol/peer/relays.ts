/** Keeps a peer that nobody can dial reachable: reserves with a few of the gateways that it is connected to. */

import { isHelixFlowError } from '../errors.ts';
import type { PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { Clock, Connection, Log, Network, Random } from '../ports.ts';
import { type Ms, ms } from '../units.ts';

interface RelaysDeps {
  readonly network: Network;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

interface RelaysOptions {
  /** Open, admitted, direct connections to gateways; asked only while a relay is needed. */
  readonly candidates: () => readonly Connection[];
  /** True while nobody can dial this peer itself. */
  readonly isNeeded: () => boolean;
  /** What `network.addresses()` tells is another. */
  readonly changed: () => void;
}

const askTimeoutMs = ms(5_000);
/** A relay that refused is asked again after this long, then twice that, and so on. */
const againFirstMs = 30_000;
const againMaxMs = 1_800_000;

/** The reservations of this peer; the caller calls `tick` often. */
export class Relays {
  readonly #deps: RelaysDeps;
  readonly #options: RelaysOptions;
  readonly #held = new Set<PeerId>();
  /** Who refused how often in a row, and when it may be asked again. */
  readonly #refusals = new Map<PeerId, { readonly count: number; readonly againMs: Ms }>();
  #isAsking = false;

  constructor(deps: RelaysDeps, options: RelaysOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  tick(): void {
    if (this.#isAsking || this.#held.size >= limits.relaysPerPeerMax || !this.#options.isNeeded()) return;
    const nowMs = this.#deps.clock.nowMs();
    const isFree = ({ peer }: Connection): boolean =>
      !this.#held.has(peer) && nowMs >= (this.#refusals.get(peer)?.againMs ?? 0);
    const free = this.#options.candidates().filter(isFree);
    // Drawn, so that the peers of a mesh spread over its relays.
    const drawn = free[this.#deps.random.int(Math.max(1, free.length))];
    if (drawn !== undefined) void this.#reserve(drawn);
  }

  async #reserve(connection: Connection): Promise<void> {
    const { network, clock, log } = this.#deps;
    const { peer } = connection;
    this.#isAsking = true;
    this.#held.add(peer);
    try {
      using deadline = clock.deadline(askTimeoutMs);
      await network.reserve(connection, () => this.#lost(peer), deadline.signal);
      this.#refusals.delete(peer);
      log.info('relay.reserved', { peer, addresses: network.addresses().join(' ') });
      this.#options.changed();
    } catch (error) {
      this.#held.delete(peer);
      if (!isHelixFlowError(error)) throw error;
      this.#refused(peer);
      log.debug('relay.refused', { peer, code: error.code });
    } finally {
      this.#isAsking = false;
    }
  }

  #refused(peer: PeerId): void {
    const { clock, random } = this.#deps;
    const count = (this.#refusals.get(peer)?.count ?? 0) + 1;
    const waitMs = Math.min(againFirstMs * 2 ** Math.min(count - 1, 16), againMaxMs) * (0.75 + random.float() / 4);
    this.#refusals.delete(peer);
    this.#refusals.set(peer, { count, againMs: ms(clock.nowMs() + waitMs) });
    const [oldest] = this.#refusals.keys();
    if (this.#refusals.size > limits.peersRememberedMax && oldest !== undefined) this.#refusals.delete(oldest);
  }

  #lost(peer: PeerId): void {
    if (!this.#held.delete(peer)) return;
    this.#deps.log.info('relay.lost', { peer });
    this.#options.changed();
  }
}
