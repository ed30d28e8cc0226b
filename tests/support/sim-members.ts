/** Members on simulated machines: production hello, sessions and discovery under virtual time. */

import { keyFromSeed } from '../../protocol/crypto.ts';
import { type Credentials, issuerIdOf, type Role, signMembership } from '../../protocol/grants.ts';
import type { IssuerId, MeshId, PeerId } from '../../protocol/ids.ts';
import { createMesh, issuerOf, type NewMesh } from '../../protocol/mesh.ts';
import { createMember, type Member, type MemberOptions } from '../../protocol/peer/member.ts';
import type { Clock, Contact, Log, SigningKey } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';
import { SimClock } from '../../sim/clock.ts';
import { SimDirectory } from '../../sim/directory.ts';
import { createSimTokens } from '../../sim/tokens.ts';
import { owner, quietLog, seededRandom, startMs } from '../protocol/mesh-fixture.ts';
import { MemoryStore } from './memory-store.ts';
import { type SimPeer, SimPeers } from './sim-peers.ts';

/** Signed and checked within a turn, so that real time plays no part. */
export const tokens = createSimTokens({ mode: 'real' });

export interface Running {
  readonly member: Member;
  /** Peers, in the order their sessions became the ones to use. */
  readonly ready: PeerId[];
  readonly gone: PeerId[];
  /** Peers whose connections were admitted, in order. */
  readonly admitted: PeerId[];
}

type Gate = Pick<MemberOptions, 'isMember' | 'roots'>;

export const newMesh = (): Promise<NewMesh> => {
  const clock = { wallMs: () => startMs } as Clock;
  return createMesh({ tokens, random: seededRandom('member'), clock }, { name: 'member', network: 'lan' });
};

/** Peers of one mesh, each a process on a machine of its own. */
export class Stage implements AsyncDisposable {
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
    { store = new MemoryStore(), gate = {}, log = quietLog }: { store?: MemoryStore; gate?: Gate; log?: Log } = {},
  ): Promise<Running> {
    const { network, seed } = peer;
    const { meshId } = this.#mesh.mesh;
    const clock = new SimClock(this.peers.kernel, network.lifeline);
    const random = this.peers.kernel.random.fork(`member ${this.#running.length}`);
    const directory = new SimDirectory({ network, clock, random, meshId });
    const credentials = await this.#credentials(network.self, role);
    const [ready, gone, admitted] = [[], [], []] as [PeerId[], PeerId[], PeerId[]];
    const member = createMember(
      { clock, random, network, directory, store, tokens, log },
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

export const contactOf = ({ network }: SimPeer): Contact => ({ peer: network.self, addresses: network.addresses() });
