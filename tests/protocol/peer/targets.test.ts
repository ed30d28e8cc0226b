/** Whom to reach, and when: backoff, anchors, bounds. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { PeerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { backoffMs, Targets } from '../../../protocol/peer/targets.ts';
import { ms } from '../../../protocol/units.ts';

const self = 'selfpeer1' as PeerId;
const peer = 'otherpeer' as PeerId;
const address = '/ip4/127.0.0.1/tcp/1';

describe('backoff', () => {
  test('never falls below a quarter of a second, never exceeds half a minute, and grows on average', ({ expect }) => {
    fc.assert(
      fc.property(fc.nat(1_000), fc.double({ min: 0, max: 1, noNaN: true }), (failures, chance) => {
        const delay = backoffMs(failures, chance);
        expect(delay).toBeGreaterThanOrEqual(250);
        expect(delay).toBeLessThanOrEqual(30_000);
        expect(backoffMs(failures + 1, chance)).toBeGreaterThanOrEqual(delay);
      }),
    );
  });
});

describe('targets', () => {
  test('believe a peer about itself, and an invite, more than what others say of them', ({ expect }) => {
    const targets = new Targets(self);
    const lie = { peer, addresses: ['/ip4/10.6.6.6/tcp/1'] };
    for (const source of ['self', 'anchor'] as const) {
      targets.hear({ peer, addresses: [address] }, 'gateway', ms(0), source);
      targets.hear(lie, 'node', ms(1), 'hearsay');
      expect(targets.get(peer)).toMatchObject({ role: 'gateway', addresses: [address, ...lie.addresses] });
    }
  });

  test('make room for a newcomer by dropping what failed most and was never reached', ({ expect }) => {
    const targets = new Targets(self);
    for (let index = 0; index < limits.peersRememberedMax; index += 1) {
      targets.hear({ peer: `peer${index}` as PeerId, addresses: [address] }, 'node', ms(0), 'hearsay');
    }
    targets.failed('peer7' as PeerId, ms(1), 0);
    targets.hear({ peer, addresses: [address] }, 'gateway', ms(2), 'hearsay');
    expect([targets.get(peer)?.role, targets.get('peer7' as PeerId), targets.all().length]).toEqual([
      'gateway',
      undefined,
      limits.peersRememberedMax,
    ]);
  });

  test('keep known addresses when a later word brings none, and never this peer itself', ({ expect }) => {
    const targets = new Targets(self);
    targets.hear({ peer: self, addresses: [address] }, 'node', ms(0), 'hearsay');
    targets.hear({ peer, addresses: [address] }, 'node', ms(0), 'hearsay');
    targets.hear({ peer, addresses: [] }, 'node', ms(5), 'hearsay');
    expect(targets.all()).toMatchObject([{ peer, addresses: [address], foundMs: 0, lastHeardMs: 5 }]);
  });

  test('are bounded in number and in addresses, whoever announces them', ({ expect }) => {
    const targets = new Targets(self);
    for (let index = 0; index < limits.peersRememberedMax + 100; index += 1) {
      targets.hear({ peer: `peer${index}` as PeerId, addresses: Array(50).fill(address) }, 'node', ms(0), 'hearsay');
    }
    expect(targets.all()).toHaveLength(limits.peersRememberedMax);
    expect(targets.all()[0]?.addresses).toHaveLength(limits.peerAddressesMax);
  });

  test('that nobody names any more are dropped when they keep failing; anchors never are', ({ expect }) => {
    const targets = new Targets(self);
    const anchor = 'anchorpeer' as PeerId;
    targets.hear({ peer, addresses: [address] }, 'node', ms(0), 'hearsay');
    targets.hear({ peer: anchor, addresses: [address] }, 'gateway', ms(0), 'anchor');
    for (let minute = 0; minute <= 11; minute += 1) {
      for (const { peer: each } of targets.all()) targets.failed(each, ms(minute * 60_000), 0.5);
    }
    expect(targets.all().map((target) => target.peer)).toEqual([anchor]);
  });

  test('that were reached before are kept while all are silent, and dropped once another is heard of', ({ expect }) => {
    const targets = new Targets(self);
    const other = 'yetanother' as PeerId;
    for (const each of [peer, other]) {
      targets.hear({ peer: each, addresses: [address] }, 'gateway', ms(0), 'hearsay');
      targets.reached(each, ms(1));
    }
    for (let hour = 1; hour <= 24; hour += 1) {
      for (const { peer: each } of targets.all()) targets.failed(each, ms(hour * 3_600_000), 0.5);
    }
    expect(targets.all().map((target) => target.peer)).toEqual([peer, other]);
    expect((targets.get(peer)?.nextTryMs ?? 0) - 24 * 3_600_000).toBeLessThanOrEqual(30_000);
    targets.reached(other, ms(25 * 3_600_000));
    targets.failed(peer, ms(25 * 3_600_000), 0.5);
    expect(targets.all().map((target) => target.peer)).toEqual([other]);
  });

  test('are reached through the relays that were named last, and at their own addresses before', ({ expect }) => {
    const relay = '12D3KooWSNhyUEmycmZ1aCFWWCXSJ4cBinm8bdMjZDYaYsoZfk3X';
    const through = (port: number): string => `/ip4/10.0.0.1/tcp/${port}/p2p/${relay}/p2p-circuit`;
    const targets = new Targets(self);
    targets.hear({ peer, addresses: [through(1), through(2)] }, 'node', ms(0), 'hearsay');
    targets.hear({ peer, addresses: [through(3), through(4), address] }, 'node', ms(1), 'hearsay');
    expect(targets.get(peer)?.addresses).toEqual([address, through(3), through(4), through(1)]);
  });

  test('that were lost after a good while are tried again at once, those that never last ever later', ({ expect }) => {
    const targets = new Targets(self);
    targets.hear({ peer, addresses: [address] }, 'node', ms(0), 'hearsay');
    const delays: number[] = [];
    for (let round = 0, nowMs = 0; round < 5; round += 1, nowMs += 1_000) {
      targets.reached(peer, ms(nowMs));
      targets.lost(peer, ms(nowMs + 500), 0);
      delays.push((targets.get(peer)?.nextTryMs ?? 0) - (nowMs + 500));
    }
    expect(delays).toEqual([250, 500, 1_000, 2_000, 4_000]);
    targets.reached(peer, ms(100_000));
    targets.lost(peer, ms(120_000), 0);
    expect((targets.get(peer)?.nextTryMs ?? 0) - 120_000).toBe(250);
  });
});
