/** What nodes say to a gateway: countersignatures and claims, right ones, forged ones, and too many. */

import { test } from 'vitest';
import { encodeUsage, signCountersign } from '../../ledger/statement.ts';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import type { EpochId, PeerId } from '../../protocol/ids.ts';
import type { ClaimFrame, CountersignFrame } from '../../protocol/messages/tab.ts';
import { Disk, DiskStore } from './feed-stage.ts';
import { GatewayStage, gatewayPeer, meshId, NodeStage, runNamed, startAt } from './gateway-tab-stage.ts';

async function stated(count = 1) {
  const stage = await GatewayStage.open();
  const node = new NodeStage('a');
  stage.tabs.ready(node);
  for (let at = 0; at < count; at += 1) {
    await stage.attempt(startAt(node.peer, at)).durable;
    await second(stage);
  }
  return { stage, node, frame: node.frames[0]! };
}

async function second(stage: GatewayStage, count = 1): Promise<void> {
  for (let at = 0; at < count; at += 1) {
    await stage.clock.advance(1_000);
    await stage.settle();
  }
}

const codeOf = (work: () => void): string => {
  try {
    work();
    return 'taken';
  } catch (error) {
    return isHelixFlowError(error) ? error.code : `not typed: ${error}`;
  }
};

test('a countersignature stands in the next block, and what it refuses is told', async ({ expect }) => {
  const { stage, node, frame } = await stated();
  stage.tabs.received(node.peer, node.answer(frame, [{ index: 0, reason: 'unknown' }]));
  expect([stage.refused, stage.countersigns]).toEqual([[[node.peer, [{ index: 0, reason: 'unknown' }]]], []]);
  await second(stage);
  expect(stage.countersigns).toEqual([node.sign(frame, [{ index: 0, reason: 'unknown' }])]);
  expect(stage.tabs.status()[0]).toMatchObject({ refused: 1, waiting: 0, unattested: 0 });
});

test('countersignatures share a block with statements', async ({ expect }) => {
  const { stage, node, frame } = await stated();
  stage.tabs.received(node.peer, node.answer(frame));
  await stage.attempt(startAt(node.peer, 'next')).durable;
  await second(stage);
  expect(stage.held.map(({ entry, place }) => [entry.kind, place.number])).toEqual([
    ['author', 0],
    ['statement', 0],
    ['statement', 1],
    ['countersign', 1],
  ]);
});

test('one that is unknown or repeated is harmless', async ({ expect }) => {
  const { stage, node, frame } = await stated();
  const unknown: CountersignFrame[] = [
    { type: 'countersign', entry: encodeUsage(node.sign(frame, [], { number: 7 })) },
    { type: 'countersign', entry: encodeUsage(node.sign(frame, [], { epoch: '7'.repeat(32) as EpochId })) },
  ];
  for (let at = 0; at < 100; at += 1) {
    for (const word of [...unknown, node.answer(frame)]) stage.tabs.received(node.peer, word);
  }
  await second(stage, 2);
  for (let at = 0; at < 100; at += 1) stage.tabs.received(node.peer, node.answer(frame));
  await second(stage, 2);
  expect(stage.countersigns.length).toBe(1);
});

test('forged, of another node, of another statement, of a line that is not there: the session ends', async ({
  expect,
}) => {
  const { stage, node, frame } = await stated();
  const other = new NodeStage('other');
  const word = (entry: Uint8Array): CountersignFrame => ({ type: 'countersign', entry });
  const good = node.sign(frame);
  const wrong: readonly (readonly [string, CountersignFrame | ClaimFrame])[] = [
    ['signature', word(encodeUsage({ ...good, signature: new Uint8Array(64) }))],
    ['time', word(encodeUsage({ ...good, timeMs: (good.timeMs + 1) as typeof good.timeMs }))],
    ['gateway', word(encodeUsage(signCountersign(good, { meshId, gateway: other.peer }, node.key)))],
    ['key', word(encodeUsage(signCountersign(good, { meshId, gateway: gatewayPeer }, other.key)))],
    ['node', word(encodeUsage(node.sign(frame, [], { node: other.peer })))],
    ['statement', word(encodeUsage(node.sign(frame, [], { statement: new Uint8Array(32) })))],
    ['line', word(encodeUsage(node.sign(frame, [{ index: 1, reason: 'count' }])))],
    ['kind', { type: 'claim', entry: encodeUsage(good) }],
    ['kind', word(frame.entry)],
  ];
  expect(wrong.map(([what, frame]) => [what, codeOf(() => stage.tabs.received(node.peer, frame))])).toEqual(
    wrong.map(([what]) => [what, 'PROTOCOL_VIOLATION']),
  );
  expect(codeOf(() => stage.tabs.received(node.peer, word(Uint8Array.of(1, 2, 3))))).toBe('FRAME_MALFORMED');
  await second(stage, 2);
  expect([stage.countersigns, stage.tabs.status()[0]?.waiting]).toEqual([[], 1]);
  stage.tabs.received(node.peer, word(encodeUsage(good)));
  await second(stage);
  expect(stage.countersigns).toEqual([good]);
});

test('a node that says something else of a statement than before contradicts itself', async ({ expect }) => {
  const { stage, node, frame } = await stated();
  stage.tabs.received(node.peer, node.answer(frame));
  const other = node.answer(frame, [{ index: 0, reason: 'unknown' }]);
  expect(codeOf(() => stage.tabs.received(node.peer, other))).toBe('PROTOCOL_VIOLATION');
});

test('countersignatures that could not be written are written later, each once', async ({ expect }) => {
  const { stage, node } = await stated(3);
  stage.mayWrite = () => Promise.reject(new HelixFlowError('LEDGER_UNREADY', { reason: 'test' }));
  node.answerAll(stage.tabs);
  await second(stage, 5);
  expect(stage.countersigns).toEqual([]);
  stage.mayWrite = async () => {};
  await second(stage, 10);
  expect(stage.countersigns.map(({ number }) => number)).toEqual([0, 1, 2]);
});

test('claims are written once, whoever they are about, and told', async ({ expect }) => {
  const { stage, node } = await stated();
  const about = new NodeStage('another gateway').peer;
  for (let at = 0; at < 3; at += 1) {
    stage.tabs.received(node.peer, node.claim([1, 2]));
    stage.tabs.received(node.peer, node.claim([1, 2], { gateway: about }));
    // A later signature over the same work says nothing new.
    stage.tabs.received(node.peer, node.claim([2, 1], { timeMs: 1_700_000_000_000 + at }));
  }
  await second(stage);
  expect(stage.claimed).toEqual([
    [node.peer, gatewayPeer, 2],
    [node.peer, about, 2],
  ]);
  expect(stage.held.filter(({ entry }) => entry.kind === 'claim').length).toBe(2);
});

test('a claim that stands in a feed is not written again by the next process', async ({ expect }) => {
  const disk = new Disk();
  const node = new NodeStage('a');
  for (const run of ['one', 'two']) {
    const stage = await GatewayStage.open({ store: new DiskStore(disk), run });
    stage.tabs.received(node.peer, node.claim([1, 2, 3]));
    await second(stage);
    await stage.tabs.close();
    expect(stage.held.filter(({ entry }) => entry.kind === 'claim').length).toBe(1);
  }
});

test('a forged claim, or that of another node, ends the session', async ({ expect }) => {
  const { stage, node } = await stated();
  const other = new NodeStage('other');
  const forged = node.claim([1]);
  forged.entry[forged.entry.length - 1]! ^= 1;
  expect([
    codeOf(() => stage.tabs.received(node.peer, other.claim([1]))),
    codeOf(() => stage.tabs.received(node.peer, forged)),
  ]).toEqual(['PROTOCOL_VIOLATION', 'PROTOCOL_VIOLATION']);
  await second(stage);
  expect(stage.claimed).toEqual([]);
});

test('a node makes no more than 16 claims a minute, all nodes together no more than 256', async ({ expect }) => {
  const { stage, node } = await stated();
  for (let at = 1; at <= 40; at += 1) stage.tabs.received(node.peer, node.claim([at]));
  expect(stage.claimed.length).toBe(16);
  for (let at = 0; at < 30; at += 1) {
    const other = new NodeStage(`other ${at}`);
    for (let serial = 1; serial <= 10; serial += 1) stage.tabs.received(other.peer, other.claim([serial]));
  }
  expect(stage.claimed.length).toBe(256);
  await second(stage, 61);
  stage.tabs.received(node.peer, node.claim([40], { run: runNamed('another') }));
  await second(stage);
  expect([stage.claimed.length, stage.held.filter(({ entry }) => entry.kind === 'claim').length]).toEqual([257, 257]);
});

test('a node that nothing is known of may say what it likes', async ({ expect }) => {
  const { stage, frame } = await stated();
  const stranger = new NodeStage('stranger');
  stage.tabs.received(stranger.peer, stranger.answer(frame));
  stage.tabs.gone(stranger);
  await second(stage, 2);
  expect([stage.countersigns, stage.tabs.status().map(({ node }: { node: PeerId }) => node)]).toEqual([
    [],
    [stage.statements[0]?.node, stranger.peer],
  ]);
});
