/** When a peer is tried, searched for, and told of: discovery alone, with time in the test's hands. */

import { describe, test } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { Role } from '../../../protocol/grants.ts';
import type { PeerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import type { Remembered } from '../../../protocol/peer/book.ts';
import { createDiscovery, type Discovery, type DiscoveryOptions } from '../../../protocol/peer/discovery.ts';
import type { Connection, Contact, Directory, Network } from '../../../protocol/ports.ts';
import type { Sessions } from '../../../protocol/session/sessions.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { quietLog, seededRandom } from '../mesh-fixture.ts';

const self = '12D3KooWSelf' as PeerId;
const gateway: Contact = { peer: '12D3KooWGateway' as PeerId, addresses: ['/ip4/10.0.0.1/tcp/4101'] };
const remembered: Remembered = { ...gateway, role: 'gateway', lastSeenMs: 1 };

const connectionTo = (peer: PeerId): Connection => ({
  id: 1,
  peer,
  direction: 'outbound',
  path: 'direct',
  remoteAddress: gateway.addresses[0] ?? '',
  isOpen: true,
  isAdmitted: true,
  admit: () => {},
  open: () => Promise.reject(new HelixFlowError('CHANNEL_CLOSED', { reason: 'not used' })),
  onClose: () => {},
  close: () => Promise.resolve(),
});

const unavailable = (): HelixFlowError => new HelixFlowError('DIRECTORY_UNAVAILABLE', { reason: 'nobody to ask' });

/** Discovery among peers that the test makes up. */
class World {
  readonly clock = new ManualClock();
  /** Every dial, as peer and addresses. */
  readonly dials: Contact[] = [];
  readonly current = new Set<PeerId>();
  /** Connections that there are. */
  readonly connections: Connection[] = [];
  readonly adverts: Uint8Array[] = [];
  /** Peers that the directory could ask. */
  directorySize = 0;
  canPut = true;
  isReachable = true;
  searches = 0;
  readonly discovery: Discovery;

  constructor(options: Partial<DiscoveryOptions> = {}, book: readonly Remembered[] = []) {
    const network: Partial<Network> = {
      self,
      addresses: () => ['/ip4/10.0.0.9/tcp/4101'],
      connections: () => this.connections,
      handle: () => {},
      connect: (peer, addresses) => {
        this.dials.push({ peer, addresses });
        if (!this.isReachable) return Promise.reject(new HelixFlowError('CONNECT_FAILED', { peer }));
        return Promise.resolve(connectionTo(peer));
      },
    };
    const sessions: Partial<Sessions> = {
      has: (peer) => this.current.has(peer),
      all: () => [],
      open: ({ peer }) => {
        this.current.add(peer);
        return Promise.resolve();
      },
    };
    this.discovery = createDiscovery(
      {
        network: network as Network,
        sessions: sessions as Sessions,
        directory: this.#directory(),
        book: {
          remember: () => Promise.resolve(),
          forget: () => Promise.resolve(),
          recall: () => Promise.resolve(book),
        },
        clock: this.clock,
        random: seededRandom('discovery'),
        log: quietLog,
        advertiser: { next: () => Promise.resolve(Uint8Array.of(this.adverts.length)), addressesIn: () => [] },
      },
      { role: 'node', bootstrap: [], ...options },
    );
  }

  #directory(): Directory {
    return {
      provide: () => () => {},
      find: () => this.#find(),
      putAdvert: (advert) => {
        this.adverts.push(advert);
        return this.canPut ? Promise.resolve() : Promise.reject(unavailable());
      },
      getAdvert: () => Promise.resolve(undefined),
      size: () => this.directorySize,
      close: () => Promise.resolve(),
    };
  }

  // biome-ignore lint/correctness/useYield: nobody is ever found here.
  async *#find(): AsyncGenerator<Contact> {
    this.searches += 1;
    if (this.directorySize === 0) throw unavailable();
  }

  /** Starts, and lets the first look around happen. */
  async start(): Promise<void> {
    await this.discovery.start();
    await this.clock.turn();
  }
}

describe('a peer without bootstrap', () => {
  test('tries whom it remembers, where that was last', async ({ expect }) => {
    const world = new World({}, [remembered]);
    await world.start();
    expect(world.dials).toEqual([gateway]);
    expect([...world.current]).toEqual([gateway.peer]);
    await world.clock.advance(60_000);
    expect(world.dials).toHaveLength(1);
  });

  test('of the other role is left alone by a node', async ({ expect }) => {
    const world = new World({}, [{ ...remembered, role: 'node' }]);
    await world.start();
    await world.clock.advance(10_000);
    expect(world.dials).toEqual([]);
  });
});

describe('a connection that the directory has made', () => {
  const made = (world: World, connection: Connection, role: Role): void => {
    world.connections.push(connection);
    world.discovery.admitted(connection, role, gateway.addresses);
  };

  test('to a gateway has a session within half a second', async ({ expect }) => {
    const world = new World();
    await world.start();
    made(world, connectionTo(gateway.peer), 'gateway');
    await world.clock.advance(500);
    expect([[...world.current], world.dials]).toEqual([[gateway.peer], []]);
  });

  test('is left alone where the other side has dialled, which opens the session', async ({ expect }) => {
    const world = new World();
    await world.start();
    made(world, { ...connectionTo(gateway.peer), direction: 'inbound' }, 'gateway');
    await world.clock.advance(500);
    expect([...world.current]).toEqual([]);
  });

  test('to a node is left alone by a gateway until the node has had its time', async ({ expect }) => {
    const world = new World({ role: 'gateway' });
    await world.start();
    made(world, connectionTo(gateway.peer), 'node');
    await world.clock.advance(limits.gatewayDialDelayMs - 250);
    expect([...world.current]).toEqual([]);
    await world.clock.advance(500);
    expect([...world.current]).toEqual([gateway.peer]);
  });
});

describe('a peer that was connected', () => {
  test('is tried again soon after it is lost', async ({ expect }) => {
    const world = new World({ bootstrap: [gateway] });
    await world.start();
    world.current.clear();
    world.discovery.lost(gateway.peer);
    await world.clock.advance(1_000);
    expect(world.dials).toHaveLength(2);
  });

  test('is tried less and less often while it cannot be reached', async ({ expect }) => {
    const world = new World({ bootstrap: [gateway] });
    await world.start();
    world.current.clear();
    world.isReachable = false;
    world.discovery.lost(gateway.peer);
    await world.clock.advance(60_000);
    const firstMinute = world.dials.length;
    await world.clock.advance(60_000);
    expect(firstMinute).toBeGreaterThan(4);
    expect(world.dials.length - firstMinute).toBeLessThanOrEqual(5);
    expect(world.dials.length - firstMinute).toBeGreaterThanOrEqual(1);
  });

  test('brings the next search forward when it is lost', async ({ expect }) => {
    const world = new World({ bootstrap: [gateway] });
    world.directorySize = 1;
    await world.start();
    // By then searches are more than a minute apart.
    await world.clock.advance(600_000);
    const before = world.searches;
    await world.clock.advance(10_000);
    expect(world.searches).toBe(before);
    world.discovery.lost(gateway.peer);
    await world.clock.advance(6_000);
    expect(world.searches).toBe(before + 1);
  });
});

describe('a gateway', () => {
  test('that is alone has looked around after a few seconds', async ({ expect }) => {
    const world = new World({ role: 'gateway' });
    await world.start();
    await world.clock.advance(2_500);
    expect(world.discovery.isComplete()).toBe(false);
    await world.clock.advance(1_000);
    expect(world.discovery.isComplete()).toBe(true);
  });

  test('that knows another one is not alone', async ({ expect }) => {
    const world = new World({ role: 'gateway', bootstrap: [gateway] });
    world.isReachable = false;
    await world.start();
    await world.clock.advance(10_000);
    expect(world.discovery.isComplete()).toBe(false);
  });

  test('has looked around once a search has ended', async ({ expect }) => {
    const world = new World({ role: 'gateway', bootstrap: [gateway] });
    world.directorySize = 1;
    await world.start();
    expect(world.discovery.isComplete()).toBe(true);
  });
});

describe('the advert', () => {
  test('is put as soon as there is somebody to give it to, and again when it is due', async ({ expect }) => {
    const world = new World();
    await world.start();
    await world.clock.advance(5_000);
    expect(world.adverts).toEqual([]);
    world.directorySize = 1;
    await world.clock.advance(500);
    expect(world.adverts).toHaveLength(1);
    await world.clock.advance(limits.advertRenewMs - 1_000);
    expect(world.adverts).toHaveLength(1);
    await world.clock.advance(1_500);
    expect(world.adverts).toHaveLength(2);
  });

  test('that could not be put is tried again after ten seconds', async ({ expect }) => {
    const world = new World();
    world.directorySize = 1;
    world.canPut = false;
    await world.start();
    await world.clock.advance(9_000);
    expect(world.adverts).toHaveLength(1);
    await world.clock.advance(2_000);
    expect(world.adverts).toHaveLength(2);
  });

  test('is put at once when what it names changes', async ({ expect }) => {
    const world = new World();
    world.directorySize = 1;
    await world.start();
    world.discovery.provide(['model:x']);
    await world.clock.advance(500);
    expect(world.adverts).toHaveLength(2);
  });
});

test('nothing happens any more once it is stopped', async ({ expect }) => {
  const world = new World({}, [remembered]);
  await world.start();
  world.discovery.stop();
  world.current.clear();
  world.discovery.lost(gateway.peer);
  await world.clock.advance(60_000);
  expect([world.dials.length, world.clock.timers]).toEqual([1, 0]);
});

describe('reaching one peer on demand', () => {
  test('dials what is known of it, and what it is told, no more addresses than a peer may have', async ({ expect }) => {
    const world = new World();
    world.discovery.heard([gateway]);
    const told = ['/ip4/10.0.0.2/tcp/1', ...gateway.addresses, '/ip4/10.0.0.3/tcp/1', '/ip4/10.0.0.4/tcp/1'];
    const signal = new AbortController().signal;
    const connection = await world.discovery.reach(
      { peer: gateway.peer, addresses: [...told, '/ip4/10.0.0.5/tcp/1'] },
      signal,
    );
    expect(connection.peer).toBe(gateway.peer);
    expect(world.dials).toEqual([
      {
        peer: gateway.peer,
        addresses: [...gateway.addresses, ...told.filter((text) => text !== gateway.addresses[0])],
      },
    ]);
  });

  test('takes a connection that there is, and says when there is no way', async ({ expect }) => {
    const world = new World();
    const signal = new AbortController().signal;
    world.connections.push(connectionTo(gateway.peer));
    expect(await world.discovery.reach(gateway, signal)).toBe(world.connections[0]);
    world.connections.length = 0;
    world.isReachable = false;
    await expect(world.discovery.reach(gateway, signal)).rejects.toMatchObject({ code: 'CONNECT_FAILED' });
  });

  test('a peer that is forgotten is tried no more, until somebody names it', async ({ expect }) => {
    const world = new World({}, [remembered]);
    await world.discovery.start();
    world.discovery.forget(gateway.peer);
    expect(world.discovery.known()).toEqual([]);
    world.discovery.heard([gateway]);
    expect(world.discovery.known().map(({ peer }) => peer)).toEqual([gateway.peer]);
    world.discovery.stop();
  });
});
