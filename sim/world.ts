/** A simulated world: machines, and the processes that live and die on them, each with ports of its own. */

import { keyFromSeed } from '../protocol/crypto.ts';
import type { MeshId, PeerId } from '../protocol/ids.ts';
import { assert } from '../protocol/invariant.ts';
import { peerIdOf } from '../protocol/peer/identity.ts';
import type { MemberPorts } from '../protocol/peer/member.ts';
import type { SigningKey } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import { type ClockError, SimClock } from './clock.ts';
import { SimDirectory } from './directory.ts';
import { FaultCounts } from './effects.ts';
import { Fabric, type Host } from './fabric.ts';
import { Kernel, type Lifeline } from './kernel.ts';
import { type LinkOptions, Links } from './links.ts';
import { WorldLog } from './log.ts';
import { SimNetwork } from './network.ts';
import type { SimRandom } from './random.ts';
import { openSimStore, SimDisk } from './store.ts';
import { createSimTokens } from './tokens.ts';

/** Ports of one run of one process, with what checkers look at. */
export interface SimPorts extends MemberPorts {
  readonly clock: SimClock;
  readonly random: SimRandom;
  readonly network: SimNetwork;
  readonly lifeline: Lifeline;
}

export interface WorldOptions {
  readonly seed: number;
  readonly tokens: 'real' | 'fast';
  readonly links?: LinkOptions;
}

/** Everything that exists in one run. */
export class World {
  readonly kernel: Kernel;
  readonly counts = new FaultCounts();
  readonly links: Links;
  readonly fabric: Fabric;
  readonly log: WorldLog;
  readonly tokens: WorldOptions['tokens'];

  constructor(options: WorldOptions) {
    this.kernel = new Kernel(options.seed);
    this.links = new Links(this.kernel.random.fork('links'), this.counts, options.links);
    this.fabric = new Fabric(this.kernel, this.links, this.counts);
    this.log = new WorldLog(this.kernel);
    this.tokens = options.tokens;
  }

  /** Another machine, with nothing running on it. */
  machine(name: string, meshId: MeshId, isReachable = true): Machine {
    return new Machine(this, name, meshId, isReachable);
  }
}

/** A machine: its address, its disk, its identity and its clock's fault outlive its processes. */
export class Machine {
  readonly name: string;
  readonly host: Host;
  readonly disk: SimDisk;
  readonly key: SigningKey;
  readonly peer: PeerId;
  readonly clockError: ClockError = { skewMs: 0, rate: 1 };
  readonly #world: World;
  readonly #meshId: MeshId;
  readonly #random: SimRandom;
  #ports: SimPorts | undefined;
  #runs = 0;

  constructor(world: World, name: string, meshId: MeshId, isReachable: boolean) {
    this.#world = world;
    this.#meshId = meshId;
    this.#random = world.kernel.random.fork(name);
    this.name = name;
    this.host = world.fabric.host(isReachable);
    this.disk = new SimDisk(this.#random.fork('disk'), world.counts);
    this.key = keyFromSeed(this.#random.fork('identity').bytes(32));
    this.peer = peerIdOf(this.key.publicKey);
  }

  /** The process that runs now. */
  get ports(): SimPorts | undefined {
    return this.#ports;
  }

  /** Runs of a process so far. */
  get runs(): number {
    return this.#runs;
  }

  /** Starts a process: a new run with the disk of the last one. */
  boot(): SimPorts {
    assert(this.#ports === undefined, 'one process at a time');
    const { kernel, fabric, counts, log } = this.#world;
    this.#runs += 1;
    this.host.isPowered = true;
    const lifeline = kernel.lifeline(`${this.name}/${this.#runs}`);
    const random = this.#random.fork(`run ${this.#runs}`);
    const clock = new SimClock(kernel, lifeline, this.clockError);
    const network = new SimNetwork(fabric, lifeline, this.host, { self: this.peer, kind: 'lan' });
    const directory = new SimDirectory({ network, clock, random: random.fork('directory'), meshId: this.#meshId });
    const jitter = random.fork('tokens');
    this.#ports = {
      lifeline,
      random,
      clock,
      network,
      directory,
      store: openSimStore(kernel, lifeline, this.disk, counts),
      tokens: createSimTokens({
        mode: this.#world.tokens,
        delay: () => clock.sleep(ms(0.05 + 0.2 * jitter.float())),
      }),
      log: log.port(this.name),
    };
    return this.#ports;
  }

  /** The process is gone at once; without power, the machine says nothing about it. */
  kill(hasPower = true): void {
    const ports = this.#ports;
    if (ports === undefined) return;
    this.#ports = undefined;
    const hadWork = ports.lifeline.timersPending > 0 || ports.network.connections().length > 0;
    this.#world.counts.add('crash', hadWork ? 1 : 0);
    this.host.isPowered = hasPower;
    ports.lifeline.end();
    this.#world.fabric.died(ports.network);
    this.disk.crash();
  }

  /** Stops the process where it is. */
  pause(): void {
    this.#ports?.lifeline.pause();
  }

  resume(): void {
    const held = this.#ports?.lifeline.resume() ?? 0;
    this.#world.counts.add('pause', held > 0 ? 1 : 0);
  }

  /** The wall clock is wrong by this much from now on. */
  setSkew(skewMs: number): void {
    this.clockError.skewMs = skewMs;
    this.#world.counts.add('clockSkew', 1);
  }
}
