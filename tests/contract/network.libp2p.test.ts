/** libp2p as a `Network`. */

import type { Network } from '../../protocol/ports.ts';
import { CuttableProxy, openNetwork, portIn, untilTrue } from '../support/libp2p-world.ts';
import { type NetworkWorld, networkContract, type PeerTraits } from './network.ts';
import { relayContract } from './relays.ts';

class World implements NetworkWorld {
  readonly #networks: Network[] = [];
  readonly #proxies = new Map<Network, CuttableProxy>();

  async network({ isHidden = false, relayReservationsMax = 0 }: PeerTraits = {}): Promise<Network> {
    const network = await openNetwork({ relayReservationsMax, ...(isHidden ? { listen: undefined } : {}) });
    if (isHidden) {
      this.#networks.push(network);
      return network;
    }
    const proxy = new CuttableProxy();
    const start = network.start.bind(network);
    network.start = async () => {
      await start();
      await proxy.listen(portIn(network.addresses()));
    };
    this.#networks.push(network);
    this.#proxies.set(network, proxy);
    return network;
  }

  addressesOf(network: Network): readonly string[] {
    return [`/ip4/127.0.0.1/tcp/${this.#proxies.get(network)?.port}`];
  }

  cut(): void {
    for (const proxy of this.#proxies.values()) proxy.cut();
  }

  run<T>(work: Promise<T>): Promise<T> {
    return work;
  }

  until(condition: () => boolean): Promise<void> {
    return untilTrue(condition);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#networks.map((network) => network.close()));
    for (const proxy of this.#proxies.values()) proxy.close();
  }
}

networkContract('libp2p', async () => new World());
relayContract('libp2p', async () => new World());
