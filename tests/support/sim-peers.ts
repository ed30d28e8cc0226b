/** Simulated machines on one kernel, with time that passes as a test asks for it. */

import { keyFromSeed } from '../../protocol/crypto.ts';
import type { PeerId } from '../../protocol/ids.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import { FaultCounts } from '../../sim/effects.ts';
import { Fabric, type Host } from '../../sim/fabric.ts';
import { Kernel } from '../../sim/kernel.ts';
import { Links } from '../../sim/links.ts';
import { SimNetwork, type SimNetworkOptions } from '../../sim/network.ts';

/** A peer and the seed of its identity. */
export interface SimPeer {
  readonly network: SimNetwork;
  readonly seed: Uint8Array;
}

const realTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class SimPeers implements AsyncDisposable {
  readonly kernel: Kernel;
  readonly counts = new FaultCounts();
  readonly links: Links;
  readonly fabric: Fabric;
  readonly #networks: SimNetwork[] = [];

  constructor(seed: number) {
    this.kernel = new Kernel(seed);
    this.links = new Links(this.kernel.random.fork('links'), this.counts);
    this.fabric = new Fabric(this.kernel, this.links, this.counts);
  }

  add(isReachable = true, more: Partial<SimNetworkOptions> = {}): SimPeer {
    const seed = this.kernel.random.fork('seed').bytes(32);
    const network = this.on(this.fabric.host(isReachable), peerIdOf(keyFromSeed(seed).publicKey), more);
    return { network, seed };
  }

  on(host: Host, self: PeerId, more: Partial<SimNetworkOptions> = {}): SimNetwork {
    const network = new SimNetwork(this.fabric, this.kernel.lifeline(self), host, { self, kind: 'lan', ...more });
    this.#networks.push(network);
    return network;
  }

  kill(network: SimNetwork): void {
    network.lifeline.end();
    this.fabric.died(network);
  }

  /** Lets `passMs` of virtual time go by; fails with whatever broke a promise meanwhile. */
  async pass(passMs: number): Promise<void> {
    await this.kernel.run(this.kernel.nowMs + passMs);
    if (this.kernel.failure !== undefined) throw this.kernel.failure.error;
  }

  async until(condition: () => boolean, withinMs = 15_000): Promise<void> {
    const endMs = this.kernel.nowMs + withinMs;
    while (!condition()) {
      if (this.kernel.nowMs >= endMs) throw new Error(`not within ${withinMs} ms: ${condition}`);
      await this.pass(1);
      await realTurn();
    }
  }

  async run<T>(work: Promise<T>): Promise<T> {
    let isSettled = false;
    const settled = work.finally(() => {
      isSettled = true;
    });
    settled.catch(() => {});
    await this.until(() => isSettled, 60_000);
    return await settled;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const network of this.#networks) if (network.lifeline.isAlive) await network.close();
    await this.pass(1_000);
  }
}
