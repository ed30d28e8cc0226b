/** What every `Network` keeps to where a peer cannot be dialled: reservations, circuits through a relay, and the way out of them. */

import { describe, type ExpectStatic, test } from 'vitest';
import { isRelayed } from '../../protocol/peer/address.ts';
import type { Connection } from '../../protocol/ports.ts';
import { codeOf, Ear, type NetworkWorld, never, PROTOCOL, type Side, startSide, usual } from './network.ts';

type Suite = (title: string, run: (world: NetworkWorld, expect: ExpectStatic) => Promise<void>) => void;

const nobody = (): void => {};

const startRelay = (world: NetworkWorld, relayReservationsMax = 8): Promise<Side> =>
  startSide(world, usual, true, { relayReservationsMax });
const startHidden = (world: NetworkWorld): Promise<Side> => startSide(world, usual, true, { isHidden: true });

/** A connection from `from` to the relay, admitted by both. */
async function join(world: NetworkWorld, from: Side, relay: Side): Promise<Connection> {
  const known = relay.connections.length;
  const connection = await world.run(from.network.connect(relay.network.self, world.addressesOf(relay.network), never));
  await world.until(() => relay.connections.length > known && relay.connections.every((other) => other.isAdmitted));
  return connection;
}

async function reserve(world: NetworkWorld, from: Side, relay: Side, lost = nobody): Promise<Connection> {
  const connection = await join(world, from, relay);
  await world.run(from.network.reserve(connection, lost, never));
  return connection;
}

interface Stage {
  readonly relay: Side;
  readonly hidden: Side;
  readonly far: Side;
  /** From `far` to `hidden`, through the relay. */
  readonly circuit: Connection;
}

/** Somebody who reached a hidden peer through a relay. */
async function stageOf(world: NetworkWorld): Promise<Stage> {
  const [relay, hidden, far] = [await startRelay(world), await startHidden(world), await startSide(world, usual, true)];
  await reserve(world, hidden, relay);
  const circuit = await world.run(far.network.connect(hidden.network.self, hidden.network.addresses(), never));
  await world.until(() => hidden.connections.length === 2);
  return { relay, hidden, far, circuit };
}

/** Runs the suite against `open`; each test opens a world of its own. */
export function relayContract(name: string, open: () => Promise<NetworkWorld>): void {
  const check: Suite = (title, run) => {
    test(title, async ({ expect }) => {
      await using world = await open();
      await run(world, expect);
    });
  };
  describe(`${name} keeps the contract of Network: reservations`, () => reservationTests(check));
  describe(`${name} keeps the contract of Network: trying an address`, () => tryTests(check));
  describe(`${name} keeps the contract of Network: circuits`, () => circuitTests(check));
}

function reservationTests(check: Suite): void {
  check(
    'a peer without an address has one once it has reserved, and none when the relay is gone',
    async (world, expect) => {
      const [relay, hidden] = [await startRelay(world), await startHidden(world)];
      expect(hidden.network.addresses()).toEqual([]);
      let losses = 0;
      await reserve(world, hidden, relay, () => {
        losses += 1;
      });
      const addresses = hidden.network.addresses();
      expect([addresses.length > 0, addresses.every(isRelayed), losses]).toEqual([true, true, 0]);
      await world.run(relay.network.close());
      await world.until(() => losses > 0);
      expect([hidden.network.addresses(), losses]).toEqual([[], 1]);
    },
  );

  check(
    'a relay takes no more than it has room for, renews, and has room again when one goes',
    async (world, expect) => {
      const relay = await startRelay(world, 1);
      const [first, second] = [await startHidden(world), await startHidden(world)];
      const held = await reserve(world, first, relay);
      const waiting = await join(world, second, relay);
      expect(await codeOf(world, second.network.reserve(waiting, nobody, never))).toBe('RELAY_REFUSED');
      await world.run(first.network.reserve(held, nobody, never));
      expect(second.network.addresses()).toEqual([]);
      await world.run(held.close());
      await world.until(() => relay.network.connections().length === 1);
      await world.run(second.network.reserve(waiting, nobody, never));
      expect(second.network.addresses().length).toBeGreaterThan(0);
    },
  );

  check('a peer that is no relay refuses', async (world, expect) => {
    const [other, hidden] = [await startSide(world, usual, true), await startHidden(world)];
    const connection = await join(world, hidden, other);
    expect(await codeOf(world, hidden.network.reserve(connection, nobody, never))).toBe('RELAY_REFUSED');
  });

  check('a peer that cannot be dialled itself relays to nobody', async (world, expect) => {
    const { hidden, circuit, far } = await stageOf(world);
    const [inbound] = hidden.connections.filter(({ path }) => path === 'relayed');
    for (const [side, connection] of [
      [far, circuit],
      [hidden, inbound as Connection],
    ] as const) {
      expect(await codeOf(world, side.network.reserve(connection, nobody, never))).toBe('RELAY_REFUSED');
    }
  });

  check('a stranger reserves nothing', async (world, expect) => {
    const relay = await startSide(world, usual, false, { relayReservationsMax: 8 });
    const hidden = await startHidden(world);
    const connection = await world.run(
      hidden.network.connect(relay.network.self, world.addressesOf(relay.network), never),
    );
    expect(await codeOf(world, hidden.network.reserve(connection, nobody, never))).toBe('RELAY_REFUSED');
    expect(hidden.network.addresses()).toEqual([]);
  });
}

function tryTests(check: Suite): void {
  check('tells whether a peer answers at an address, and leaves nothing behind', async (world, expect) => {
    const [a, b, c] = [await startRelay(world), await startSide(world, usual, true), await startHidden(world)];
    const held = await join(world, b, a);
    await reserve(world, c, a);
    const canDial = (peer: Side, address: string | undefined): Promise<boolean> =>
      world.run(a.network.canDial({ peer: peer.network.self, address: address ?? '' }, never));
    const [ofB] = world.addressesOf(b.network);
    expect(await canDial(b, ofB)).toBe(true);
    expect(await canDial(c, ofB)).toBe(false);
    expect(await canDial(c, c.network.addresses()[0])).toBe(false);
    expect(await canDial(b, '/ip4/169.254.169.254/tcp/80')).toBe(false);
    const left = (): readonly Connection[] => b.network.connections().filter(({ peer }) => peer === a.network.self);
    await world.until(() => left().length === 1);
    expect([held.isOpen, a.connections.length, left()]).toEqual([true, 2, [held]]);
    await world.run(b.network.close());
    expect(await canDial(b, ofB)).toBe(false);
    expect(a.connections).toHaveLength(2);
  });
}

function circuitTests(check: Suite): void {
  check(
    'a hidden peer is reached through a relay; both ends know, and admit each other anew',
    async (world, expect) => {
      const { relay, hidden, far, circuit } = await stageOf(world);
      const inbound = hidden.connections.find(({ peer }) => peer === far.network.self) as Connection;
      expect([circuit.peer, circuit.path, circuit.direction]).toEqual([hidden.network.self, 'relayed', 'outbound']);
      expect([inbound.path, inbound.direction]).toEqual(['relayed', 'inbound']);
      expect(isRelayed(circuit.remoteAddress) && isRelayed(inbound.remoteAddress)).toBe(true);
      const ours = new Ear(await world.run(circuit.open(PROTOCOL, never)));
      ours.channel.send(Uint8Array.of(1, 2, 3));
      await world.until(() => hidden.ears[0]?.frames.length === 1);
      hidden.ears[0]?.channel.send(new Uint8Array(50_000).fill(7));
      await world.until(() => ours.frames.length === 1);
      expect([hidden.ears[0]?.frames, ours.frames[0]?.length]).toEqual([[Uint8Array.of(1, 2, 3)], 50_000]);
      const seen = relay.connections.map(({ peer, path }) => [peer, path]);
      expect([relay.ears, seen]).toEqual([
        [],
        [
          [hidden.network.self, 'direct'],
          [far.network.self, 'direct'],
        ],
      ]);
    },
  );

  check('a second connect through a relay gives the connection there is', async (world, expect) => {
    const { hidden, far, circuit } = await stageOf(world);
    const again = await world.run(far.network.connect(hidden.network.self, hidden.network.addresses(), never));
    expect(again).toBe(circuit);
  });

  check('when the relay is gone, so is what went through it', async (world, expect) => {
    const { relay, hidden, far, circuit } = await stageOf(world);
    const ours = new Ear(await world.run(circuit.open(PROTOCOL, never)));
    await world.until(() => hidden.ears.length === 1);
    await world.run(relay.network.close());
    await world.until(() => !circuit.isOpen && hidden.network.connections().length === 0);
    await world.until(() => ours.isClosed && hidden.ears[0]?.isClosed === true);
    expect([ours.end, hidden.ears[0]?.end, far.network.connections()]).toEqual([
      'CHANNEL_CLOSED',
      'CHANNEL_CLOSED',
      [],
    ]);
  });

  check('a peer that has not reserved is not reached, nor one whose relay does not know us', async (world, expect) => {
    const hidden = await startHidden(world);
    const relay = await startSide(world, usual, ({ peer }) => peer === hidden.network.self, {
      relayReservationsMax: 8,
    });
    const [far, absent] = [await startSide(world, usual, true), await startHidden(world)];
    await reserve(world, hidden, relay);
    const through = hidden.network.addresses();
    expect(await codeOf(world, far.network.connect(hidden.network.self, through, never))).toBe('CONNECT_FAILED');
    expect(await codeOf(world, hidden.network.connect(absent.network.self, through, never))).toBe('CONNECT_FAILED');
    expect([hidden.connections.length, absent.connections.length]).toEqual([1, 0]);
  });

  check('a circuit through a circuit is refused', async (world, expect) => {
    const { hidden, far } = await stageOf(world);
    const [address = ''] = hidden.network.addresses();
    const nested = `${address}/p2p/${hidden.network.self}/p2p-circuit`;
    const absent = await startHidden(world);
    expect(await codeOf(world, far.network.connect(absent.network.self, [nested], never))).toBe('ADDRESS_REFUSED');
  });

  check(
    'who dials back a peer that came through a relay makes a direct connection, reversed',
    async (world, expect) => {
      const { hidden, far, circuit } = await stageOf(world);
      const back = await world.run(hidden.network.connect(far.network.self, world.addressesOf(far.network), never));
      await world.until(() => far.connections.length === 3);
      const inbound = far.connections.at(-1) as Connection;
      expect([back.path, back.direction, inbound.path, inbound.direction]).toEqual([
        'reversed',
        'outbound',
        'reversed',
        'inbound',
      ]);
      expect(circuit.isOpen).toBe(true);
      const again = await world.run(far.network.connect(hidden.network.self, hidden.network.addresses(), never));
      expect(again).toBe(inbound);
    },
  );
}
