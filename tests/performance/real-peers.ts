/** Whole gateways and nodes of a bench, each over real sockets and a LevelDB of its own, without their HTTP doors. */

import { subscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';
import { createGatewayPeer, type GatewayPeer } from '../../gateway/peer.ts';
import { openLevelStore } from '../../ledger/adapters/store-level.ts';
import { createSyntheticEngine } from '../../node/engines/synthetic.ts';
import { createNode, type MeshNode } from '../../node/node.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { createLibp2pNetwork } from '../../protocol/adapters/network-libp2p.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { keyFromSeed, sha256 } from '../../protocol/crypto.ts';
import type { Credentials, Role } from '../../protocol/grants.ts';
import type { OwnerId, PeerId } from '../../protocol/ids.ts';
import { createMesh, issueCredentials, type NewMesh } from '../../protocol/mesh.ts';
import { createRoots } from '../../protocol/peer/create-roots.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import type { Contact, Network, SigningKey, Store } from '../../protocol/ports.ts';
import { type UnixMs, unixMs } from '../../protocol/units.ts';
import { SimRandom } from '../../sim/random.ts';
import { silentLog } from '../ledger/feed-stage.ts';

const clock = systemClock();
const tokens = createJoseTokens();

/** Older than any block of a bench: what is signed later proves nothing of the past. */
const agoMs = 2 * 86_400_000;
const signedMs = (): UnixMs => unixMs(clock.wallMs() - agoMs);

/** The mesh of this name has the same keys in every process. */
export const meshNamed = (name: string): Promise<NewMesh> =>
  createMesh({ tokens, random: new SimRandom(name), clock: { ...clock, wallMs: signedMs } }, { name, network: 'lan' });

export const keyNamed = (name: string): SigningKey => keyFromSeed(sha256(`bench peer ${name}`));

export const credentialsOf = (mesh: NewMesh, peer: PeerId, role: Role): Promise<Credentials> =>
  issueCredentials(mesh, { peer, role, owner: 'bench' as OwnerId }, { tokens, nowMs: signedMs() });

interface PeerStart {
  readonly mesh: NewMesh;
  readonly name: string;
  /** Of the store. */
  readonly dir: string;
  readonly bootstrap?: readonly Contact[];
  /** True for the gateway that holds the issuer's key. */
  readonly isIssuer?: boolean;
}

async function openPorts({ mesh, name, dir }: PeerStart) {
  const { meshId } = mesh.mesh;
  const key = keyNamed(name);
  const random = systemRandom();
  const network = await createLibp2pNetwork(
    { clock, random, log: silentLog },
    { seed: key.seed, listen: { host: '127.0.0.1', port: 0 }, announce: [], network: 'lan', meshId },
  );
  const store = await openLevelStore(dir);
  const roots = createRoots({ tokens }, mesh.mesh);
  await roots.take({ kind: 'issuer', token: mesh.issuer.certificate });
  return { key, roots, ports: { clock, random, tokens, log: silentLog, network, directory: network.directory, store } };
}

/** What every peer of a bench has. */
export interface Running extends AsyncDisposable {
  readonly network: Network;
  readonly store: Store;
  readonly contact: Contact;
}

const disposing = (close: () => Promise<void>, network: Network, store: Store) => async (): Promise<void> => {
  await close();
  await network.close();
  await store.close();
};

/** A gateway whose ledger is not read yet: `start` reads it, and looks for others. */
export async function makeGateway(start: PeerStart): Promise<Running & { readonly gateway: GatewayPeer }> {
  const { mesh, bootstrap = [], isIssuer = false } = start;
  const { key, roots, ports } = await openPorts(start);
  const credentials = await credentialsOf(mesh, peerIdOf(key.publicKey), 'gateway');
  const gateway: GatewayPeer = createGatewayPeer(ports, {
    ...{ meshId: mesh.mesh.meshId, key, bootstrap, roots, callsMax: 10_000 },
    credentials: () => credentials,
    ...(isIssuer ? { issuer: mesh.issuer } : {}),
    admission: { mesh: mesh.mesh, isMember: (member) => gateway.ledger.isMember(member) },
  });
  const { network, store } = ports;
  return {
    gateway,
    network,
    store,
    get contact() {
      return { peer: network.self, addresses: network.addresses() };
    },
    [Symbol.asyncDispose]: disposing(() => gateway.close(), network, store),
  };
}

/** A node that answers at once. */
export async function makeNode(start: PeerStart): Promise<Running & { readonly node: MeshNode }> {
  const { mesh, bootstrap = [] } = start;
  const { key, roots, ports } = await openPorts(start);
  const credentials = await credentialsOf(mesh, peerIdOf(key.publicKey), 'node');
  const node = createNode(ports, {
    ...{ meshId: mesh.mesh.meshId, key, bootstrap, roots, queueMax: 1_000, owner: 'bench', hardware: 'bench' },
    credentials: () => credentials,
    engines: [createSyntheticEngine({ clock })],
  });
  const { network, store } = ports;
  return {
    node,
    network,
    store,
    get contact() {
      return { peer: network.self, addresses: network.addresses() };
    },
    [Symbol.asyncDispose]: disposing(() => node.close(), network, store),
  };
}

/** Every TCP socket that this process opens or takes from now on, with what went through it. */
export function watchSockets(): ReadonlySet<Socket> {
  const sockets = new Set<Socket>();
  for (const channel of ['net.client.socket', 'net.server.socket']) {
    subscribe(channel, (message) => void sockets.add((message as { socket: Socket }).socket));
  }
  return sockets;
}
