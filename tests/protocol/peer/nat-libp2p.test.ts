/** Members of one mesh on real libp2p, two of which listen nowhere: they meet through the others, and leave them when they can. */

import { afterEach, test } from 'vitest';
import { systemClock } from '../../../protocol/adapters/clock.ts';
import type { Libp2pNetwork, Libp2pOptions } from '../../../protocol/adapters/network-libp2p.ts';
import { systemRandom } from '../../../protocol/adapters/random.ts';
import { keyFromSeed } from '../../../protocol/crypto.ts';
import type { Role } from '../../../protocol/grants.ts';
import { createMesh, issueCredentials } from '../../../protocol/mesh.ts';
import { isRelayed } from '../../../protocol/peer/address.ts';
import { createMember, type Member } from '../../../protocol/peer/member.ts';
import type { ConnectionPath, Contact } from '../../../protocol/ports.ts';
import { nextSeed, openNetwork, silentLog, untilTrue } from '../../support/libp2p-world.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import { owner, tokens } from '../mesh-fixture.ts';

const clock = systemClock();
const random = systemRandom();
const mesh = await createMesh({ tokens, random, clock }, { name: 'nat', network: 'lan' });
const { meshId } = mesh.mesh;
const nothing = (): void => {};

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

interface Running {
  readonly member: Member;
  readonly network: Libp2pNetwork;
}

async function start(
  role: Role,
  bootstrap: readonly Running[],
  options: Partial<Libp2pOptions> = {},
): Promise<Running> {
  const seed = nextSeed();
  const network = await openNetwork({ seed, meshId, ...options });
  const credentials = await issueCredentials(
    mesh,
    { peer: network.self, role, owner },
    { tokens, nowMs: clock.wallMs() },
  );
  const contacts = bootstrap.map(
    (other): Contact => ({ peer: other.network.self, addresses: other.network.addresses() }),
  );
  const member = createMember(
    { clock, random, network, directory: network.directory, store: new MemoryStore(), tokens, log: silentLog },
    { role, meshId, key: keyFromSeed(seed), credentials: () => credentials, bootstrap: contacts, models: () => [] },
    { ready: nothing, gone: nothing, changed: nothing, opened: nothing, offered: nothing, tab: nothing },
  );
  closers.push(() => member.close());
  await member.start();
  return { member, network };
}

const hidden = { listen: undefined };
const relays = { relayReservationsMax: 8 };

const pathOf = ({ member }: Running, { network }: Running): ConnectionPath | undefined =>
  member.sessions.get(network.self)?.connection.path;

test('a gateway and a node that listen nowhere have a session through a relay, and another one when it goes', async ({
  expect,
}) => {
  const first = await start('gateway', [], relays);
  const second = await start('gateway', [first], relays);
  const node = await start('node', [first, second], hidden);
  await untilTrue(() => node.network.addresses().length > 0);
  const gateway = await start('gateway', [first, second], hidden);
  await untilTrue(() => pathOf(gateway, node) === 'relayed' && pathOf(node, gateway) === 'relayed');
  expect(gateway.member.discovery.reachable()).toBe('no');
  const through = gateway.member.sessions.get(node.network.self)?.connection.remoteAddress ?? '';
  const [gone, left] = through.includes(first.network.self) ? [first, second] : [second, first];
  await gone.member.close();
  await untilTrue(() => {
    const session = gateway.member.sessions.get(node.network.self);
    return session?.connection.remoteAddress.includes(left.network.self) === true;
  });
  expect([pathOf(gateway, node), pathOf(node, left)]).toEqual(['relayed', 'direct']);
});

test('a node that a gateway reaches through a relay dials it back, and their session is direct', async ({ expect }) => {
  const relay = await start('gateway', [], relays);
  const node = await start('node', [relay], hidden);
  await untilTrue(() => node.network.addresses().some(isRelayed));
  const gateway = await start('gateway', []);
  const contact = { peer: node.network.self, addresses: node.network.addresses() };
  const relayed = await gateway.member.discovery.reach(contact, new AbortController().signal);
  expect(relayed.path).toBe('relayed');
  await untilTrue(() => pathOf(gateway, node) === 'reversed' && pathOf(node, gateway) === 'reversed');
  await untilTrue(() => !relayed.isOpen);
  await untilTrue(() => gateway.member.discovery.reachable() === 'yes');
});
