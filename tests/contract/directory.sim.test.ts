/** The simulated directory under the contract. */

import type { MeshId, PeerId } from '../../protocol/ids.ts';
import { ms } from '../../protocol/units.ts';
import { epochMs, SimClock } from '../../sim/clock.ts';
import { SimDirectory } from '../../sim/directory.ts';
import type { SimNetwork } from '../../sim/network.ts';
import { SimPeers } from '../support/sim-peers.ts';
import { type DirectoryPeer, directoryContract } from './directory.ts';

const meshId = 'ee'.repeat(32) as MeshId;
const never = new AbortController().signal;

directoryContract('the simulated directory', async () => {
  const peers = new SimPeers(1);
  const wallMs = (): number => epochMs + peers.kernel.nowMs;
  /** Peers whose connections may be admitted: those linked so, and what the directory dials itself. */
  const strangers = new Set<PeerId>();
  const admits = (network: SimNetwork, clock: SimClock): void =>
    network.onConnection((connection) => {
      clock.timer(ms(10), () => {
        if (connection.isOpen && !strangers.has(connection.peer) && !strangers.has(network.self)) connection.admit();
      });
    });
  return {
    meshId,
    wallMs,
    peer: async () => {
      const { network, seed } = peers.add();
      const clock = new SimClock(peers.kernel, network.lifeline);
      const directory = new SimDirectory({ network, clock, random: peers.kernel.random.fork('directory'), meshId });
      admits(network, clock);
      await network.start();
      return { network, directory, seed };
    },
    link: async (a: DirectoryPeer, b: DirectoryPeer, admitted = true) => {
      if (!admitted) strangers.add(a.network.self).add(b.network.self);
      const connection = await peers.run(a.network.connect(b.network.self, b.network.addresses(), never));
      if (admitted) await peers.until(() => connection.isAdmitted);
    },
    run: (work) => peers.run(work),
    until: (condition) => peers.until(condition),
    [Symbol.asyncDispose]: () => peers[Symbol.asyncDispose](),
  };
});
