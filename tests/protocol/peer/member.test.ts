/** Members on simulated machines: they find each other again after a loss, and from memory alone. */

import { test } from 'vitest';
import { keyFromSeed } from '../../../protocol/crypto.ts';
import { type Credentials, issuerIdOf, type Role, signMembership } from '../../../protocol/grants.ts';
import type { IssuerId, MeshId, PeerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { createMesh, issuerOf, type NewMesh } from '../../../protocol/mesh.ts';
import { createRoots } from '../../../protocol/peer/create-roots.ts';
import { createMember, type Member, type MemberOptions } from '../../../protocol/peer/member.ts';
import type { Clock, Contact, SigningKey } from '../../../protocol/ports.ts';
import { signRevocation } from '../../../protocol/root-tokens.ts';
import { unixMs } from '../../../protocol/units.ts';
import { SimClock } from '../../../sim/clock.ts';
import { SimDirectory } from '../../../sim/directory.ts';
import { createSimTokens } from '../../../sim/tokens.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import { type SimPeer, SimPeers } from '../../support/sim-peers.ts';
import { owner, quietLog, seededRandom, startMs } from '../mesh-fixture.ts';

/** Signed and checked within a turn, so that real time plays no part. */
const tokens = createSimTokens({ mode: 'real' });

interface Running {
  readonly member: Member;
  /** Peers, in the order their sessions became the ones to use. */
  readonly ready: PeerId[];
  readonly gone: PeerId[];
  /** Peers whose connections were admitted, in order. */
  readonly admitted: PeerId[];
}

type Gate = Pick<MemberOptions, 'isMember' | 'roots'>;

const newMesh = (): Promise<NewMesh> => {
  const clock = { wallMs: () => startMs } as Clock;
  return createMesh({ tokens, random: seededRandom('member'), clock }, { name: 'member', network: 'lan' });
};

/** A gateway that can be dialled, and a node that cannot. */
class Stage implements AsyncDisposable {
  readonly peers = new SimPeers(7);
  readonly #mesh: NewMesh;
  readonly #running: Member[] = [];

  constructor(mesh: NewMesh) {
    this.#mesh = mesh;
  }

  get root(): { readonly meshId: MeshId; readonly rootPublicKey: Uint8Array; readonly key: SigningKey } {
    return { ...this.#mesh.mesh, key: this.#mesh.root.key };
  }

  get issuer(): IssuerId {
    return issuerOf(this.#mesh.issuer).issuer;
  }

  async run(
    role: Role,
    peer: SimPeer,
    bootstrap: readonly Contact[],
    { store = new MemoryStore(), gate = {} }: { store?: MemoryStore; gate?: Gate } = {},
  ): Promise<Running> {
    const { network, seed } = peer;
    const { meshId } = this.#mesh.mesh;
    const clock = new SimClock(this.peers.kernel, network.lifeline);
    const random = this.peers.kernel.random.fork(`member ${this.#running.length}`);
    const directory = new SimDirectory({ network, clock, random, meshId });
    const credentials = await this.#credentials(network.self, role);
    const [ready, gone, admitted] = [[], [], []] as [PeerId[], PeerId[], PeerId[]];
    const member = createMember(
      { clock, random, network, directory, store, tokens, log: quietLog },
      { role, meshId, key: keyFromSeed(seed), credentials: () => credentials, bootstrap, models: () => [], ...gate },
      {
        admitted: (connection, info) =>
          admitted.push(info.membership.peer === connection.peer ? connection.peer : network.self),
        ready: (session) => ready.push(session.peer),
        gone: (session) => gone.push(session.peer),
        changed: () => {},
        opened: () => {},
        offered: () => {},
        tab: () => {},
      },
    );
    this.#running.push(member);
    await this.peers.run(member.start());
    return { member, ready, gone, admitted };
  }

  async #credentials(peer: PeerId, role: Role): Promise<Credentials> {
    const { mesh, issuer } = this.#mesh;
    const { meshId } = issuerOf(issuer);
    const expiresMs = unixMs(startMs + 86_400_000);
    const grant = { meshId, issuer: issuerIdOf(issuer.key.publicKey), peer, role, owner, expiresMs };
    const membership = await signMembership(grant, issuer.key, { tokens, nowMs: startMs });
    return { rootPublicKey: mesh.rootPublicKey, certificate: issuer.certificate, membership };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { discovery } of this.#running) discovery.stop();
    await this.peers[Symbol.asyncDispose]();
  }
}

const contactOf = ({ network }: SimPeer): Contact => ({ peer: network.self, addresses: network.addresses() });

test('a node that lost its gateway is back before a new connection would have settled', async ({ expect }) => {
  await using stage = new Stage(await newMesh());
  const { peers } = stage;
  const [gatewayPeer, nodePeer] = [peers.add(), peers.add(false)];
  await stage.run('gateway', gatewayPeer, []);
  const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
  await peers.until(() => node.ready.length === 1);
  await node.member.admitted()[0]?.[0].close();
  await peers.until(() => node.ready.length === 2, limits.sessionSettleMs / 2);
  expect([node.ready, node.gone]).toEqual([
    [gatewayPeer.network.self, gatewayPeer.network.self],
    [gatewayPeer.network.self],
  ]);
});

test('a node that starts again without bootstrap finds the gateway it knew', async ({ expect }) => {
  await using stage = new Stage(await newMesh());
  const { peers } = stage;
  const [gatewayPeer, nodePeer] = [peers.add(), peers.add(false)];
  const store = new MemoryStore();
  await stage.run('gateway', gatewayPeer, []);
  const first = await stage.run('node', nodePeer, [contactOf(gatewayPeer)], { store });
  await peers.until(() => first.ready.length === 1);
  peers.kill(nodePeer.network);
  const again = { network: peers.on(peers.fabric.host(false), nodePeer.network.self), seed: nodePeer.seed };
  const second = await stage.run('node', again, [], { store });
  await peers.until(() => second.ready.length === 1);
  expect(second.ready).toEqual([gatewayPeer.network.self]);
});

test('a member that is banned loses its connection and session at once, is not dialled, and cannot come back', async ({
  expect,
}) => {
  await using stage = new Stage(await newMesh());
  const { peers } = stage;
  const [gatewayPeer, nodePeer, otherPeer] = [peers.add(), peers.add(), peers.add()];
  const banned = new Set<PeerId>();
  const gate = { isMember: ({ peer }: { readonly peer: PeerId }) => !banned.has(peer) };
  const gateway = await stage.run('gateway', gatewayPeer, [], { gate });
  const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
  await stage.run('node', otherPeer, [contactOf(gatewayPeer)]);
  await peers.until(() => gateway.ready.length === 2 && node.ready.length === 1);
  expect(new Set(gateway.admitted)).toEqual(new Set([nodePeer.network.self, otherPeer.network.self]));

  banned.add(nodePeer.network.self);
  gateway.member.review();
  await peers.until(() => gateway.gone.length === 1 && node.gone.length === 1, 1_000);
  expect(gateway.gone).toEqual([nodePeer.network.self]);
  expect(gateway.member.discovery.known().map(({ peer }) => peer)).toEqual([otherPeer.network.self]);
  await peers.pass(120_000);
  expect([gateway.admitted.length, node.ready.length, gateway.member.sessions.all().length]).toEqual([2, 1, 1]);
});

test('a word of the root that comes by any hello parts a gateway from all members of that issuer', async ({
  expect,
}) => {
  await using stage = new Stage(await newMesh());
  const { peers, root } = stage;
  const [gatewayPeer, nodePeer] = [peers.add(), peers.add()];
  const roots = createRoots({ tokens }, root);
  const gateway = await stage.run('gateway', gatewayPeer, [], { gate: { roots } });
  const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
  await peers.until(() => node.ready.length === 1 && gateway.ready.length === 1);
  const grant = { meshId: root.meshId, issuer: stage.issuer };
  const token = await signRevocation(grant, root.key, { tokens, nowMs: startMs });
  await peers.run(roots.take({ kind: 'revocation', token }));
  await peers.until(() => node.gone.length === 1, 1_000);
  expect(gateway.member.admitted()).toEqual([]);
});
