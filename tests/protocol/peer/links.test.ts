/** Which gateways a gateway links itself to: alone first, then a hundred of them on simulated machines. */

import { describe, test } from 'vitest';
import { keyFromSeed } from '../../../protocol/crypto.ts';
import type { PeerId } from '../../../protocol/ids.ts';
import { createMesh, issueCredentials } from '../../../protocol/mesh.ts';
import { Links, type LinkView, linksMax } from '../../../protocol/peer/links.ts';
import { createMember, type Member } from '../../../protocol/peer/member.ts';
import type { Target } from '../../../protocol/peer/targets.ts';
import type { Clock, Directory } from '../../../protocol/ports.ts';
import { ms } from '../../../protocol/units.ts';
import { SimClock } from '../../../sim/clock.ts';
import { partition } from '../../../sim/links.ts';
import { createSimTokens } from '../../../sim/tokens.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import { type SimPeer, SimPeers } from '../../support/sim-peers.ts';
import { owner, quietLog, seededRandom, startMs } from '../mesh-fixture.ts';

const named = (index: number): PeerId => `peer${String(index).padStart(4, 'z')}` as PeerId;
const target = (index: number): Target => ({ peer: named(index) }) as Target;
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, at) => from + at);
const newLinks = (): Links => new Links(seededRandom('links'), ms(0));
const view = (linked: number, more: Partial<LinkView> = {}): LinkView => ({
  nowMs: ms(0),
  linked: new Set(range(0, linked).map(named)),
  dialled: range(0, linked).map(named),
  trying: new Set(),
  candidates: range(linked, 100).map(target),
  ...more,
});

describe('a gateway alone', () => {
  test('links itself to sixteen others, a few at a time, and counts those who chose it', ({ expect }) => {
    const links = newLinks();
    expect(links.plan(view(0)).dial).toHaveLength(4);
    expect(links.plan(view(14)).dial).toHaveLength(2);
    expect(links.plan(view(14, { trying: new Set([named(20)]) })).dial).toHaveLength(1);
    expect(links.plan(view(14, { candidates: [target(50)] })).dial).toEqual([target(50)]);
    for (const linked of [linksMax, linksMax + 10])
      expect(links.plan(view(linked))).toEqual({ dial: [], close: undefined });
  });

  test('draws by chance whom to link to', ({ expect }) => {
    const drawn = new Set<PeerId>();
    const links = newLinks();
    for (let time = 0; time < 50; time += 1) for (const { peer } of links.plan(view(0)).dial) drawn.add(peer);
    expect(drawn.size).toBeGreaterThan(50);
  });

  test('exchanges one link in a minute or so once it has enough, and closes only what it dialled', ({ expect }) => {
    const links = newLinks();
    const later = { nowMs: ms(90_000) };
    const { dial, close } = links.plan(view(linksMax, later));
    expect([dial.length, close]).toEqual([1, undefined]);
    const newcomer = dial[0]?.peer as PeerId;
    expect(links.plan(view(linksMax, { ...later, trying: new Set([newcomer]) }))).toEqual({
      dial: [],
      close: undefined,
    });
    const linked = new Set([...range(0, linksMax).map(named), newcomer]);
    const dialled = [named(3), newcomer];
    expect(links.plan(view(0, { ...later, linked, dialled, candidates: [] }))).toEqual({ dial: [], close: named(3) });
    expect(links.plan(view(linksMax, later))).toEqual({ dial: [], close: undefined });
  });

  test('closes nothing for a newcomer that did not come', ({ expect }) => {
    const links = newLinks();
    const later = { nowMs: ms(90_000) };
    expect(links.plan(view(linksMax, later)).dial).toHaveLength(1);
    expect(links.plan(view(linksMax, later))).toEqual({ dial: [], close: undefined });
  });
});

const tokens = createSimTokens({ mode: 'fast' });

/** Gateways on machines of their own, the first of which all know. */
class Gateways implements AsyncDisposable {
  readonly peers = new SimPeers(11);
  readonly members: Member[] = [];
  readonly machines: SimPeer[] = [];
  /** Dials of each, by index. */
  readonly dials: number[] = [];

  async start(count: number): Promise<void> {
    const wall = { wallMs: () => startMs } as Clock;
    const deps = { tokens, random: seededRandom('links'), clock: wall };
    const made = await createMesh(deps, { name: 'links', network: 'lan' });
    const { kernel } = this.peers;
    const first = this.peers.add();
    for (const index of range(0, count)) {
      const machine = index === 0 ? first : this.peers.add();
      const { network, seed } = machine;
      const clock = new SimClock(kernel, network.lifeline);
      const random = kernel.random.fork(`gateway ${index}`);
      const { meshId } = made.mesh;
      const connect = network.connect.bind(network);
      this.dials.push(0);
      network.connect = (...args) => {
        this.dials[index] = (this.dials[index] ?? 0) + 1;
        return connect(...args);
      };
      const directory = this.#directory(network.self);
      const grant = { peer: network.self, role: 'gateway', owner } as const;
      const credentials = await issueCredentials(made, grant, { tokens, nowMs: startMs });
      const bootstrap = index === 0 ? [] : [{ peer: first.network.self, addresses: first.network.addresses() }];
      const member = createMember(
        { clock, random, network, directory, store: new MemoryStore(), tokens, log: quietLog },
        {
          role: 'gateway',
          meshId,
          key: keyFromSeed(seed),
          credentials: () => credentials,
          bootstrap,
          models: () => [],
        },
        { ready: () => {}, gone: () => {}, changed: () => {}, opened: () => {}, offered: () => {}, tab: () => {} },
      );
      this.members.push(member);
      this.machines.push(machine);
      await this.peers.run(member.start());
    }
  }

  /** Knows every gateway and dials nobody, which Kademlia does. */
  #directory(self: PeerId): Directory {
    const { machines } = this;
    return {
      provide: () => () => {},
      find: async function* () {
        for (const { network } of machines) {
          if (network.self !== self) yield { peer: network.self, addresses: network.addresses() };
        }
      },
      putAdvert: () => Promise.resolve(),
      getAdvert: () => Promise.resolve(undefined),
      size: () => machines.length,
      close: () => Promise.resolve(),
    };
  }

  /** Lets time go by until it holds; looked at once a second, since looking takes long. */
  async settle(holds: () => boolean, withinMs: number): Promise<void> {
    for (let passedMs = 0; !holds(); passedMs += 1_000) {
      if (passedMs >= withinMs) throw new Error(`not within ${withinMs} ms: ${holds}`);
      await this.peers.pass(1_000);
    }
  }

  /** Whom each is linked to, by index. */
  graph(): readonly ReadonlySet<number>[] {
    const index = new Map(this.machines.map(({ network }, at) => [network.self, at]));
    return this.members.map((member) => new Set(member.admitted().map(([{ peer }]) => index.get(peer) ?? -1)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { discovery } of this.members) discovery.stop();
    await this.peers[Symbol.asyncDispose]();
  }
}

/** Steps from `start` to the farthest that can be reached, and how many those are. */
function reachFrom(
  graph: readonly ReadonlySet<number>[],
  start: number,
): { readonly steps: number; readonly met: number } {
  const met = new Set([start]);
  let edge = [start];
  let steps = -1;
  while (edge.length > 0) {
    steps += 1;
    const next = edge.flatMap((at) => [...(graph[at] ?? [])]).filter((at) => !met.has(at));
    edge = [...new Set(next)];
    for (const at of edge) met.add(at);
  }
  return { steps, met: met.size };
}

test('a hundred gateways are three steps apart at most, without all being connected to all', async ({ expect }) => {
  await using gateways = new Gateways();
  await gateways.start(100);
  const isLinked = (): boolean => gateways.graph().every((others) => others.size >= linksMax);
  await gateways.settle(isLinked, 60_000);
  const graph = gateways.graph();
  const links = graph.reduce((sum, others) => sum + others.size, 0) / 2;
  expect(range(0, 100).map((start) => reachFrom(graph, start).met)).toEqual(range(0, 100).map(() => 100));
  expect(Math.max(...range(0, 100).map((start) => reachFrom(graph, start).steps))).toBeLessThanOrEqual(3);
  expect(links).toBeLessThan(100 * (linksMax + 4));
  const before = [...gateways.dials];
  await gateways.peers.pass(120_000);
  const dialled = gateways.dials.map((dials, index) => dials - (before[index] ?? 0));
  expect(Math.max(...dialled)).toBeLessThan(20);
  expect(gateways.graph().every((others) => others.size >= linksMax - 2)).toBe(true);
}, 60_000);

test('two halves that lost each other, and were both full, find together again', async ({ expect }) => {
  await using gateways = new Gateways();
  await gateways.start(40);
  const { peers } = gateways;
  await gateways.settle(() => gateways.graph().every((others) => others.size >= linksMax), 60_000);
  const half = gateways.machines.slice(0, 20);
  const heal = peers.links.add(partition(new Set(half.map(({ network }) => network.host.id))));
  gateways.members.forEach((member, at) => {
    for (const [connection] of member.admitted()) {
      if (half.some(({ network }) => network.self === connection.peer) !== at < 20) void connection.close();
    }
  });
  const sizes = (): readonly number[] => gateways.graph().map((_, start) => reachFrom(gateways.graph(), start).met);
  await gateways.settle(
    () => sizes().every((met) => met === 20) && gateways.graph().every(({ size }) => size >= linksMax),
    120_000,
  );
  heal();
  await gateways.settle(() => sizes().every((met) => met === 40), 180_000);
  expect(sizes()).toEqual(range(0, 40).map(() => 40));
}, 60_000);
