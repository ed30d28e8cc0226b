/** Members that are banned, watched from outside: every gateway must learn of it and let go of them. */

import { toHex } from '../protocol/crypto.ts';
import { isHelixFlowError } from '../protocol/errors.ts';
import type { PeerId } from '../protocol/ids.ts';
import type { Violation } from './checkers.ts';
import type { SimConnection } from './connection.ts';
import type { SimRandom } from './random.ts';
import type { GatewaySite, NodeSite, Site, Sites } from './sites.ts';
import type { World } from './world.ts';

/** One number for each of what was measured, in milliseconds. */
export interface Times {
  readonly measured: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** How long bans took, from the moment when the issuer's own disk held them: one number for each ban and gateway. */
export interface BanCounts {
  readonly banned: number;
  /** Until the gateway refuses the member. */
  readonly known: Times;
  /** Until the connections of the two are closed, where there were any. */
  readonly cutOff: Times;
}

interface Banned {
  readonly peer: PeerId;
  atMs: number;
  /** By the gateway's name. */
  readonly knownAtMs: Map<string, number>;
  readonly cutOffAtMs: Map<string, number>;
  /** Gateways that were connected with it. */
  readonly connected: Set<string>;
}

/** What these come to, in whole milliseconds. */
export function timesOf(took: readonly number[]): Times {
  const sorted = took.map((oneMs) => Math.max(0, oneMs)).sort((a, b) => a - b);
  const at = (share: number): number => Math.round(sorted[Math.ceil(sorted.length * share) - 1] ?? 0);
  return { measured: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}

const openTo = ({ machine }: GatewaySite, peer: PeerId): readonly SimConnection[] =>
  machine.ports?.network
    .connections()
    .filter((connection) => connection.peer === peer && connection.isAdmitted && connection.isOpen) ?? [];

/** All bans of a run: of guests, nodes that came for a while and serve nothing. */
export class Bans {
  readonly #world: World;
  readonly #sites: Sites;
  readonly #withinMs: number;
  readonly #violate: (violation: Violation) => void;
  readonly #random: SimRandom;
  readonly #banned = new Map<PeerId, Banned>();

  constructor(world: World, sites: Sites, withinMs: number, violate: (violation: Violation) => void) {
    this.#world = world;
    this.#sites = sites;
    this.#withinMs = withinMs;
    this.#violate = violate;
    this.#random = world.kernel.random.fork('bans');
    sites.onBooted((site) => this.#watch(site));
  }

  #watch(site: Site): void {
    if (site.role !== 'gateway') return;
    site.gateway?.ledger.onChange((change) => {
      if (change.kind !== 'ban') return;
      const banned = this.#banned.get(change.peer);
      if (banned !== undefined) this.#first(banned.knownAtMs, site);
    });
  }

  #first(atMs: Map<string, number>, { machine }: GatewaySite): void {
    if (!atMs.has(machine.name)) atMs.set(machine.name, this.#world.kernel.nowMs);
  }

  /** Bans every guest, each at a random moment until `untilMs`. */
  banAround(untilMs: number): void {
    const { kernel } = this.#world;
    for (const guest of this.#sites.guests) {
      kernel.schedule((untilMs - kernel.nowMs) * this.#random.float(), () => void this.#ban(guest));
    }
  }

  async #ban({ machine: { peer } }: NodeSite): Promise<void> {
    const ledger = this.#sites.gateways[0]?.gateway?.ledger;
    if (ledger === undefined) return;
    const sets = { knownAtMs: new Map(), cutOffAtMs: new Map(), connected: new Set<string>() };
    const banned: Banned = { peer, atMs: Number.POSITIVE_INFINITY, ...sets };
    this.#banned.set(peer, banned);
    for (const site of this.#sites.gateways) this.#watchConnections(site, banned);
    try {
      await ledger.append('issuer', [{ kind: 'ban', peer, ban: toHex(this.#random.bytes(16)) }]);
      banned.atMs = this.#world.kernel.nowMs;
    } catch (error) {
      // Whoever asked was told so, and nothing was promised.
      this.#banned.delete(peer);
      if (!isHelixFlowError(error)) throw error;
    }
  }

  #watchConnections(site: GatewaySite, { peer, connected, cutOffAtMs }: Banned): void {
    const open = openTo(site, peer);
    if (open.length > 0) connected.add(site.machine.name);
    for (const connection of open) {
      connection.onClose(() => {
        if (!open.some(({ isOpen }) => isOpen)) this.#first(cutOffAtMs, site);
      });
    }
  }

  /** Nothing has been broken so far: every ban is known everywhere, and whoever was banned is connected with nobody. */
  checkCalm(): void {
    const { nowMs } = this.#world.kernel;
    for (const { peer, atMs, knownAtMs, cutOffAtMs, connected } of this.#banned.values()) {
      for (const site of this.#sites.gateways) {
        const { name } = site.machine;
        const knownMs = (knownAtMs.get(name) ?? nowMs) - atMs;
        if (knownMs > this.#withinMs)
          this.#break('banned in time', `${name} took ${Math.round(knownMs)} ms for ${peer}`);
        const cutMs = connected.has(name) ? (cutOffAtMs.get(name) ?? nowMs) - atMs : 0;
        const isLate = cutMs > this.#withinMs || openTo(site, peer).length > 0;
        if (isLate) this.#break('cut off in time', `${name} kept its connection with ${peer}`);
      }
    }
  }

  /** All faults are over: nobody has forgotten a ban. */
  checkSettled(): void {
    for (const { machine, gateway } of this.#sites.gateways) {
      for (const peer of this.#banned.keys()) {
        const isKnown = gateway?.ledger.standing.isBanned(peer) === true;
        if (!isKnown) this.#break('bans arrive', `${machine.name} takes ${peer}`);
      }
    }
  }

  #break(check: string, detail: string): void {
    this.#violate({ atMs: this.#world.kernel.nowMs, check, detail });
  }

  counts(): BanCounts {
    const all = [...this.#banned.values()];
    const took = (of: (banned: Banned) => Map<string, number>): Times =>
      timesOf(all.flatMap((banned) => [...of(banned).values()].map((thenMs) => thenMs - banned.atMs)));
    return { banned: all.length, known: took((one) => one.knownAtMs), cutOff: took((one) => one.cutOffAtMs) };
  }
}
