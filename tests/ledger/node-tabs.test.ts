/** Tabs at a node: what covers work, what is refused, what proves a fork, what is on disk before it is said. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { encodeEntry } from '../../ledger/entry.ts';
import { freePrice, type Price } from '../../ledger/price.ts';
import { createPrices } from '../../ledger/prices.ts';
import { statementPace, worksMax } from '../../ledger/work-tab.ts';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import type { PriceId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { StatementFrame } from '../../protocol/messages/tab.ts';
import { unixMs } from '../../protocol/units.ts';
import { authorNamed, ban, Disk, DiskStore, epochNamed, somePeer } from './feed-stage.ts';
import { frameOf, model, NodeStage, nodePeer, StagedGateway, StagedLink } from './node-tab-stage.ts';

const open = async (parts: Parameters<typeof NodeStage.open>[0] = {}) => {
  const node = await NodeStage.open(parts);
  const gateway = new StagedGateway();
  node.tabs.ready(gateway.link);
  return { node, gateway };
};

/** Does `act`; tells how it ended. */
function codeOf(act: () => void): string {
  try {
    act();
    return 'taken';
  } catch (error) {
    if (isHelixFlowError(error)) return error.code;
    throw error;
  }
}

describe('a statement', () => {
  test('that tells what was done is countersigned, and covers it', async ({ expect }) => {
    const { node, gateway } = await open();
    for (const serial of [1, 2, 3]) node.whole(gateway, serial);
    await node.clock.advance(1_000);
    expect(node.store.disk.rows.size).toBe(4);
    gateway.send(
      node,
      [1, 2, 3].map((serial) => gateway.line(serial)),
    );
    await node.settle();
    expect(gateway.words).toEqual([[]]);
    await node.clock.advance(1_000);
    // The record of the gateway, the word, and which attempts it was about.
    expect(node.store.disk.rows.size).toBe(3);
    expect(node.tabs.status()).toEqual([
      {
        gateway: gateway.peer,
        running: 0,
        uncovered: 0,
        uncoveredMs: 0,
        statements: 1,
        lines: 3,
        refused: 0,
        claimed: 0,
        newest: { epoch: gateway.epoch, number: 0 },
      },
    ]);
  });

  test('is countersigned but for the lines that are wrong', async ({ expect }) => {
    const { node, gateway } = await open();
    for (const serial of [1, 2, 3, 4]) node.whole(gateway, serial);
    gateway.send(node, [
      gateway.line(1),
      gateway.line(2, { completionTokens: 19 }),
      gateway.line(3, { price: { ...freePrice, id: '11'.repeat(8) as PriceId } }),
      gateway.line(5, { startMs: unixMs(1_700_000_001_001) }),
      gateway.line(4, { startMs: unixMs(1_800_000_000_000) }),
    ]);
    gateway.send(node, [gateway.line(4), gateway.line(6, { startMs: unixMs(1_600_000_000_000) })]);
    // A price that is not held is waited for.
    await node.clock.advance(6_000);
    await node.settle();
    expect(gateway.words).toEqual([
      [
        { index: 1, reason: 'count' },
        { index: 2, reason: 'price' },
        { index: 3, reason: 'unknown' },
      ],
      [{ index: 0, reason: 'repeated' }],
    ]);
    expect(node.tabs.status()[0]).toMatchObject({ uncovered: 2, lines: 7, refused: 4 });
  });

  test('is said to be right only once that is on disk, on the session that asked last', async ({ expect }) => {
    const { node, gateway } = await open();
    node.whole(gateway, 1);
    let release = (): void => {};
    node.store.gate = new Promise((resolve) => {
      release = resolve;
    });
    const frame = gateway.send(node, [gateway.line(1)]);
    await node.settle();
    expect(gateway.link.frames).toEqual([]);
    node.tabs.gone(gateway.link);
    const link = new StagedLink(gateway.peer, gateway.run);
    node.tabs.ready(link);
    node.tabs.received(link, frame);
    release();
    await node.settle();
    expect([gateway.link.frames.length, link.countersigns(gateway.peer).length]).toEqual([0, 1]);
  });

  test('that comes again gets the same word, from the next process too', async ({ expect }) => {
    const { node, gateway } = await open();
    node.whole(gateway, 1);
    const frame = gateway.send(node, [gateway.line(1, { completionTokens: 1 })]);
    await node.settle();
    await node.clock.advance(500);
    node.tabs.received(gateway.link, frame);
    await node.tabs.close();
    const next = await NodeStage.open({ store: new DiskStore(node.store.disk), clock: node.clock });
    next.tabs.ready(gateway.link);
    next.tabs.received(gateway.link, frame);
    await next.settle();
    const [first, ...others] = gateway.link.frames;
    expect(others).toEqual([first, first]);
  });

  test('that was never sent by this node’s gateway is a violation', async ({ expect }) => {
    const { node, gateway } = await open();
    const stranger = new StagedGateway('a stranger');
    const frame = gateway.frame(gateway.state([]));
    const other = gateway.frame(gateway.state([], { node: somePeer }));
    const bans = { ...frame, entry: encodeEntry(ban(1)) };
    const flipped = (bytes: Uint8Array): Uint8Array =>
      bytes.map((byte, at) => (at === bytes.length - 1 ? byte ^ 1 : byte));
    const wrong: readonly StatementFrame[] = [
      stranger.frame(stranger.state([])),
      other,
      bans,
      { ...frame, index: 0 },
      { ...frame, index: 2 },
      { ...frame, path: frame.path.slice(1) },
      { ...frame, path: frame.path.map(flipped) },
      { ...frame, signature: flipped(frame.signature) },
      { ...frame, header: flipped(frame.header) },
      { ...frame, entry: flipped(frame.entry) },
    ];
    expect(wrong.map((one) => codeOf(() => node.tabs.received(gateway.link, one)))).toEqual(
      wrong.map(() => 'PROTOCOL_VIOLATION'),
    );
    expect(codeOf(() => node.tabs.received(gateway.link, frame))).toBe('taken');
  });

  test('made of anything at all is refused with a code', async ({ expect }) => {
    const { node, gateway } = await open();
    const frame = gateway.frame(gateway.state([gateway.line(1), gateway.line(2)]));
    const bytes = fc.uint8Array({ maxLength: 400 });
    const garbled = (whole: Uint8Array) =>
      fc
        .tuple(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), fc.nat(whole.length))
        .map(([at, by, cut]) => {
          const copy = whole.slice(0, cut % 3 === 0 ? cut : whole.length);
          if (at < copy.length) copy[at] = (copy[at] ?? 0) ^ by;
          return copy;
        });
    const frames = fc.record({
      type: fc.constant('statement' as const),
      header: fc.oneof(bytes, garbled(frame.header), fc.constant(frame.header)),
      signature: fc.oneof(fc.uint8Array({ minLength: 64, maxLength: 64 }), fc.constant(frame.signature)),
      index: fc.oneof(fc.nat(1_023), fc.constant(frame.index)),
      entry: fc.oneof(bytes, garbled(frame.entry), fc.constant(frame.entry)),
      path: fc.oneof(
        fc.constant(frame.path),
        fc.array(fc.uint8Array({ minLength: 32, maxLength: 32 }), { maxLength: 10 }),
      ),
    });
    fc.assert(
      fc.property(frames, (one) => {
        const code = codeOf(() => node.tabs.received(gateway.link, one));
        expect(['taken', 'FRAME_MALFORMED', 'FRAME_TOO_LARGE', 'PROTOCOL_VIOLATION']).toContain(code);
      }),
      { numRuns: 2_000 },
    );
  });

  test('may hold anything that parses: no entry of a gateway makes a node fail', async ({ expect }) => {
    const { node, gateway } = await open();
    for (const serial of [1, 2, 3, 4]) node.begin(gateway, serial);
    const count = fc.oneof(fc.nat(30), fc.constant(100_000_000));
    const line = fc.record({
      serial: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.constant(Number.MAX_SAFE_INTEGER)),
      completionTokens: count,
      promptTokens: count,
      startMs: fc.oneof(fc.nat(10), fc.constant(1_800_000_000_000)).map(unixMs),
    });
    const lines = fc.uniqueArray(line, { selector: ({ serial }) => serial, maxLength: 5 });
    const progress = fc.uniqueArray(fc.record({ serial: fc.integer({ min: 1, max: 6 }), completionTokens: count }), {
      selector: ({ serial }) => serial,
      maxLength: 4,
    });
    await fc.assert(
      fc.asyncProperty(lines, lines, progress, async (ended, running, further) => {
        const told = running.filter(({ serial }) => !ended.some((one) => one.serial === serial));
        const said = further.filter(({ serial }) => ![...ended, ...told].some((one) => one.serial === serial));
        const written = (one: (typeof ended)[number]) =>
          gateway.line(one.serial, { ...one, cachedTokens: 0, nodeTokens: one.completionTokens });
        gateway.send(node, ended.map(written), {
          running: told.map((one) => ({ ...written(one), outcome: 'running' })),
          progress: [...said].sort((a, b) => a.serial - b.serial),
        });
        await node.settle(2);
      }),
      { numRuns: 100 },
    );
    await node.settle();
    expect(gateway.words.length).toBe(gateway.number);
  });
});

describe('the chain of statements', () => {
  test('goes on in order; each epoch has its own', async ({ expect }) => {
    const { node, gateway } = await open();
    const next = new StagedGateway('a gateway', 'second');
    for (const one of [gateway, gateway, next, gateway, next]) one.send(node, []);
    await node.settle();
    expect(gateway.words.length).toBe(3);
    expect(node.tabs.status()[0]).toMatchObject({ statements: 5, newest: { epoch: next.epoch, number: 1 } });
  });

  test('is broken by a statement that does not follow', async ({ expect }) => {
    const { node, gateway } = await open();
    gateway.send(node, [gateway.line(1, { startMs: unixMs(1) })]);
    const wrong = (more: object): string => codeOf(() => gateway.branch().send(node, [], more));
    expect([
      wrong({ previous: new Uint8Array(32) }),
      wrong({ totals: { lines: 2, promptTokens: 100, completionTokens: 20 } }),
      wrong({ totals: { lines: 1, promptTokens: 100, completionTokens: 19 } }),
      wrong({ number: 0 }),
      wrong({}),
    ]).toEqual(['PROTOCOL_VIOLATION', 'PROTOCOL_VIOLATION', 'PROTOCOL_VIOLATION', 'PROTOCOL_VIOLATION', 'taken']);
  });

  test('may have a gap, as for a node whose disk is an old one; what comes late is taken too', async ({ expect }) => {
    const { node, gateway } = await open();
    for (const serial of [1, 2, 3]) node.whole(gateway, serial);
    const frames = [1, 2, 3].map((serial) => gateway.frame(gateway.state([gateway.line(serial)])));
    for (const index of [0, 2, 1, 1]) node.tabs.received(gateway.link, frames[index] as StatementFrame);
    await node.settle();
    expect(gateway.link.countersigns(gateway.peer).map(({ number }) => number)).toEqual([0, 2, 1]);
    expect(node.tabs.status()[0]).toMatchObject({ uncovered: 0, statements: 3, refused: 0 });
  });

  test('is remembered for as long as statements may be in flight', async ({ expect }) => {
    const { node, gateway } = await open();
    const frames: StatementFrame[] = [];
    for (let number = 0; number < 140; number += 1) {
      frames.push(gateway.send(node, []));
      await node.settle(2);
    }
    await node.settle();
    const before = gateway.link.frames.length;
    for (const number of [0, 11, 12, 139]) node.tabs.received(gateway.link, frames[number] as StatementFrame);
    await node.settle();
    const again = gateway.link.countersigns(gateway.peer).slice(before);
    // What is forgotten may have been countersigned, and is not again.
    expect([before, again.map(({ number }) => number)]).toEqual([140, [12, 139]]);
    expect([...node.store.disk.rows.keys()].length).toBeLessThan(132);
  });
});

describe('many statements at once', () => {
  test('are all answered, however slow the disk', async ({ expect }) => {
    const { node, gateway } = await open();
    let release = (): void => {};
    node.store.gate = new Promise((resolve) => {
      release = resolve;
    });
    for (let number = 0; number < 150; number += 1) gateway.send(node, []);
    await node.settle();
    expect(gateway.words).toEqual([]);
    release();
    await node.settle(20);
    expect(gateway.link.countersigns(gateway.peer).map(({ number }) => number)).toEqual([...Array(150).keys()]);
  });

  test('of a gateway that sends no end of them take no more than their share of time', async ({ expect }) => {
    const { node, gateway } = await open();
    const [first] = [gateway.send(node, [])];
    await node.settle();
    for (let sent = 1; sent < statementPace.burst; sent += 1) node.tabs.received(gateway.link, first);
    await node.settle();
    expect(gateway.link.frames).toHaveLength(statementPace.burst);
    // What comes next waits, and what would fill the queue ends the session.
    const some = 2 * limits.statementsInFlightMax;
    for (let sent = 0; sent < some; sent += 1) node.tabs.received(gateway.link, first);
    expect(codeOf(() => node.tabs.received(gateway.link, first))).toBe('PROTOCOL_VIOLATION');
    expect(gateway.link.frames).toHaveLength(statementPace.burst);
    await node.clock.advance(5_000);
    expect(gateway.link.frames).toHaveLength(statementPace.burst + some);
  });

  test('that are wrong and waited for their turn are let go', async ({ expect }) => {
    const { node, gateway } = await open();
    const first = gateway.send(node, []);
    await node.settle();
    for (let sent = 1; sent < statementPace.burst; sent += 1) node.tabs.received(gateway.link, first);
    node.tabs.received(gateway.link, { ...first, entry: Uint8Array.of(0xff) });
    node.tabs.received(gateway.link, first);
    await node.clock.advance(5_000);
    expect([gateway.link.frames.length, node.clock.timers]).toEqual([statementPace.burst, 0]);
    node.tabs.received(gateway.link, first);
    expect(gateway.link.frames).toHaveLength(statementPace.burst + 1);
  });

  test('that never come let no gateway have more open than may be remembered', async ({ expect }) => {
    const { node, gateway } = await open();
    for (let serial = 1; serial < worksMax; serial += 1) node.begin(gateway, serial);
    expect(node.codeFor(gateway)).toBeUndefined();
    node.begin(gateway, worksMax);
    expect([node.codeFor(gateway), node.codeFor(new StagedGateway('another'))]).toEqual(['TAB_UNCOVERED', undefined]);
  });

  test('that wait are those of the present session only, and not too many of them', async ({ expect }) => {
    const { node, gateway } = await open();
    const price: Price = { id: '44'.repeat(8) as PriceId, prompt: 1, cached: 1, completion: 1 };
    const state = (): StatementFrame => gateway.frame(gateway.state([gateway.line(gateway.number + 1, { price })]));
    const frames = Array.from({ length: 128 }, state);
    for (let session = 0; session < 3; session += 1) {
      const link = new StagedLink(gateway.peer, gateway.run);
      node.tabs.ready(link);
      for (const frame of frames) node.tabs.received(link, frame);
      expect(codeOf(() => node.tabs.received(link, frames[0] as StatementFrame))).toBe('PROTOCOL_VIOLATION');
      node.tabs.gone(link);
    }
  });
});

describe('a gateway that forks', () => {
  test('by two headers of one place is reported', async ({ expect }) => {
    const { node, gateway } = await open();
    gateway.send(node, []);
    const branch = gateway.branch();
    gateway.send(node, []);
    const other = branch.sign(branch.state([], { run: gateway.run, progress: [{ serial: 9, completionTokens: 1 }] }));
    expect(codeOf(() => node.tabs.received(gateway.link, frameOf(other)))).toBe('PROTOCOL_VIOLATION');
    await node.settle();
    const [{ a, b } = { a: undefined, b: undefined }] = node.forks;
    expect([a?.header.number, b?.header.number, node.forks.length]).toEqual([1, 1, 1]);
    expect(a?.hash).not.toEqual(b?.hash);
  });

  test('by two statements of one number, elsewhere in its feed, is sent away', async ({ expect }) => {
    const { node, gateway } = await open();
    gateway.send(node, []);
    const branch = gateway.branch();
    gateway.send(node, []);
    branch.block = gateway.block;
    const other = branch.frame(branch.state([], { progress: [{ serial: 9, completionTokens: 1 }] }));
    expect(codeOf(() => node.tabs.received(gateway.link, other))).toBe('PROTOCOL_VIOLATION');
    expect(node.forks).toEqual([]);
  });
});

describe('a price', () => {
  const author = authorNamed('an issuer');
  const price: Price & { readonly id: PriceId } = {
    id: '22'.repeat(8) as PriceId,
    prompt: 10,
    cached: 5,
    completion: 20,
  };
  const place = { author, epoch: epochNamed('e'), generation: 0, number: 0, index: 0, isAfterFork: false };
  const held = (fromMs: number, named = price) => ({
    entry: { kind: 'price', model, fromMs: unixMs(fromMs), ...named } as const,
    place: { ...place, number: fromMs, timeMs: fromMs },
  });

  test('that is not known yet is waited for, and so is what comes after', async ({ expect }) => {
    const prices = createPrices(() => true);
    const { node, gateway } = await open({
      prices: { byId: (id) => prices.byId(id), allows: (...all) => prices.allows(...all) },
    });
    for (const serial of [1, 2]) node.whole(gateway, serial, 20, { price: price.id as PriceId });
    for (const serial of [1, 2]) gateway.send(node, [gateway.line(serial, { price })]);
    await node.clock.advance(3_000);
    expect(gateway.link.frames).toEqual([]);
    prices.apply(held(1));
    await node.clock.advance(1_000);
    expect(gateway.words).toEqual([[], []]);
  });

  test('that is never known makes its lines refused', async ({ expect }) => {
    const { node, gateway } = await open();
    node.whole(gateway, 1, 20, { price: price.id as PriceId });
    gateway.send(node, [gateway.line(1, { price })]);
    await node.clock.advance(4_900);
    expect(gateway.words).toEqual([]);
    await node.clock.advance(1_000);
    expect(gateway.words).toEqual([[{ index: 0, reason: 'price' }]]);
  });

  test('must be the one in force when work began, or one just superseded, with its own numbers', async ({ expect }) => {
    const prices = createPrices(() => true);
    const { node, gateway } = await open({ prices });
    const startMs = 1_700_000_001_000;
    const newer = { ...price, id: '33'.repeat(8) as PriceId, completion: 40 };
    prices.apply(held(1));
    prices.apply(held(startMs - limits.priceGraceMs / 2, newer));
    const stated: readonly [Price, number][] = [
      [price, startMs],
      [newer, startMs],
      [{ ...newer, completion: 39 }, startMs],
      [newer, startMs - limits.priceGraceMs],
      [freePrice, startMs],
      [price, startMs + limits.priceGraceMs],
    ];
    const lines = stated.map(([named, atMs], index) => {
      node.whole(gateway, index + 1, 20, { price: named.id as PriceId });
      return gateway.line(index + 1, { price: named, startMs: unixMs(atMs) });
    });
    gateway.send(node, lines);
    await node.settle();
    expect(gateway.words).toEqual([[2, 3, 4, 5].map((index) => ({ index, reason: 'price' }))]);
  });
});

describe('an attempt', () => {
  test('cannot be named like another', async ({ expect }) => {
    const { node, gateway } = await open();
    node.begin(gateway, 1);
    node.whole(gateway, 2);
    gateway.send(node, [gateway.line(2)]);
    await node.settle();
    expect([1, 2, 3].map((serial) => codeOf(() => node.begin(gateway, serial)))).toEqual([
      'PROTOCOL_VIOLATION',
      'PROTOCOL_VIOLATION',
      'taken',
    ]);
    await node.tabs.close();
    const next = await NodeStage.open({ store: new DiskStore(node.store.disk) });
    expect(codeOf(() => next.begin(gateway, 2))).toBe('PROTOCOL_VIOLATION');
  });

  test('that ended after its line keeps to what the line says', async ({ expect }) => {
    const { node, gateway } = await open();
    const staged = node.begin(gateway, 1);
    staged.send(20, 5);
    gateway.send(node, [
      gateway.line(1, {
        outcome: 'cancelled',
        completionTokens: 15,
        promptTokens: 30,
        cachedTokens: 0,
        nodeTokens: 20,
      }),
    ]);
    staged.work.end({ kind: 'cancelled', promptTokens: 100, completionTokens: 20 });
    await node.settle();
    expect([gateway.words, node.tabs.status()[0]]).toMatchObject([[[]], { uncovered: 0, running: 0, refused: 0 }]);
  });
});

describe('a disk', () => {
  test('that fails ends all work, and no word leaves', async ({ expect }) => {
    const { node, gateway } = await open();
    node.whole(gateway, 1);
    node.store.failure = new HelixFlowError('STORE_FAILED', { reason: 'full' });
    const frame = gateway.send(node, [gateway.line(1)]);
    await node.settle();
    node.tabs.received(gateway.link, frame);
    await node.settle();
    expect([gateway.link.frames, node.codeFor(gateway), node.codeFor(new StagedGateway('another'))]).toEqual([
      [],
      'TAB_UNCOVERED',
      'TAB_UNCOVERED',
    ]);
  });

  test('of which any byte has changed is read as far as it goes', async ({ expect }) => {
    const { node, gateway } = await open();
    for (const serial of [1, 2, 3]) node.whole(gateway, serial);
    gateway.send(node, [gateway.line(1)]);
    await node.clock.advance(300);
    await node.tabs.close();
    const { disk } = node.store;
    for (const [key, row] of [...disk.rows]) {
      for (let at = 0; at < row.length; at += 7) {
        const copy = disk.copy();
        copy.rows.set(
          key,
          row.map((byte, index) => (index === at ? byte ^ 0x20 : byte)),
        );
        const next = await NodeStage.open({ store: new DiskStore(copy) });
        const [{ uncovered } = { uncovered: 0 }] = next.tabs.status();
        expect(uncovered).toBeLessThanOrEqual(2);
      }
    }
    const next = await NodeStage.open({ store: new DiskStore(new Disk()) });
    expect(next.tabs.status()).toEqual([]);
  });
});

test('the node’s own id is what statements name', ({ expect }) => {
  expect(new StagedGateway().state([]).node).toBe(nodePeer);
});
