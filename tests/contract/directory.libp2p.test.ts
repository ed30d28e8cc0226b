/** Kademlia as a `Directory`. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import type { Network } from '../../protocol/ports.ts';
import { nextSeed, openNetwork, testMeshId, untilTrue } from '../support/libp2p-world.ts';
import { type DirectoryPeer, type DirectoryWorld, directoryContract } from './directory.ts';

class World implements DirectoryWorld {
  readonly meshId = testMeshId;
  readonly #networks: Network[] = [];
  /** Peers whose connections are admitted as they come. */
  readonly #strangers = new Set<string>();

  wallMs(): number {
    return systemClock().wallMs();
  }

  async peer(): Promise<DirectoryPeer> {
    const seed = nextSeed();
    const network = await openNetwork({ seed });
    network.onConnection((connection) => {
      if (!this.#strangers.has(connection.peer) && !this.#strangers.has(network.self)) connection.admit();
    });
    await network.start();
    this.#networks.push(network);
    return { network, directory: network.directory, seed };
  }

  async link(a: DirectoryPeer, b: DirectoryPeer, admitted = true): Promise<void> {
    if (!admitted) this.#strangers.add(a.network.self);
    await a.network.connect(b.network.self, b.network.addresses(), new AbortController().signal);
  }

  run<T>(work: Promise<T>): Promise<T> {
    return work;
  }

  until(condition: () => boolean): Promise<void> {
    return untilTrue(condition);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#networks.map((network) => network.close()));
  }
}

directoryContract('Kademlia', async () => new World());
