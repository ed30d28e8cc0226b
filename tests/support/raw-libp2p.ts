/** A libp2p peer without our gate: what a stranger, or a member that means harm, can bring to a connection. */

import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { identify } from '@libp2p/identify';
import type { Connection } from '@libp2p/interface';
import { kadDHT, passthroughMapper, type SingleKadDHT } from '@libp2p/kad-dht';
import { ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p, type Libp2pInit } from 'libp2p';
import { kadProtocol } from '../../protocol/adapters/libp2p/kad-service.ts';
import type { Network } from '../../protocol/ports.ts';
import { nextSeed, testMeshId } from './libp2p-world.ts';

interface RawParts {
  readonly transports?: NonNullable<Libp2pInit['transports']>;
  readonly services?: NonNullable<Libp2pInit<Record<string, unknown>>['services']>;
}

/** A started peer that serves and speaks everything ungated. */
export async function openRaw(seed = nextSeed(), meshId = testMeshId, parts: RawParts = {}) {
  return await createLibp2p({
    privateKey: await generateKeyPairFromSeed('Ed25519', seed),
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp(), ...(parts.transports ?? [])],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false },
    services: {
      ...parts.services,
      ping: ping({ timeout: 2_000 }),
      identify: identify(),
      kad: kadDHT({
        protocol: kadProtocol(meshId),
        clientMode: false,
        peerInfoMapper: passthroughMapper,
        validators: { hx: () => {} },
        selectors: { hx: () => 0 },
        initialQuerySelfInterval: 1,
      }),
    },
  });
}

export type RawPeer = Awaited<ReturnType<typeof openRaw>>;

export const dialRaw = (raw: RawPeer, network: Network): Promise<Connection> =>
  raw.dial(network.addresses().map((address) => multiaddr(`${address}/p2p/${network.self}`)));

/** Peers in the routing table of `raw`. */
export const tableSize = (raw: RawPeer): number => (raw.services.kad as SingleKadDHT).routingTable.size;
