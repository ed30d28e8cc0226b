/** Tabs of a gateway: what becomes durable, what is stated when, and what nodes may say of it. */

import { test } from 'vitest';
import { isHelixFlowError } from '../../protocol/errors.ts';
import { codeOf } from './feed-stage.ts';
import { ended, GatewayStage, linesOf, NodeStage, startAt, wholeEnd } from './gateway-tab-stage.ts';

test('a line is durable before its client hears of the end, and stated within a second', async ({ expect }) => {
  const stage = await GatewayStage.open();
  const node = new NodeStage('a');
  stage.tabs.ready(node);
  await stage.attempt(startAt(node.peer, 1)).durable;
  expect([stage.statements.length, node.frames.length]).toEqual([0, 0]);
  await stage.clock.advance(1_000);
  await stage.settle();
  expect(linesOf(stage.statements)).toEqual(linesOf(node.statements));
  expect(node.wrong).toEqual([]);
  expect(linesOf(stage.statements).map(({ serial, completionTokens }) => [serial, completionTokens])).toEqual([
    [1, 20],
  ]);
  node.answerAll(stage.tabs);
  await stage.clock.advance(1_000);
  await stage.settle();
  expect(stage.countersigns.length).toBe(1);
  expect(stage.tabs.status()).toEqual([
    { node: node.peer, running: 0, unstated: 0, waiting: 0, unattested: 0, statements: 1, lines: 1, refused: 0 },
  ]);
  expect([...stage.store.disk.rows.keys()].filter((key) => key.startsWith('6c2f'))).toEqual([]);
});

test('256 lines are stated without waiting for the second to pass', async ({ expect }) => {
  const stage = await GatewayStage.open();
  const node = new NodeStage('a');
  stage.tabs.ready(node);
  await Promise.all(Array.from({ length: 600 }, (_, at) => stage.attempt(startAt(node.peer, at)).durable));
  await stage.settle();
  expect(stage.statements.map(({ number, lines }) => [number, lines.length])).toEqual([
    [0, 256],
    [1, 256],
  ]);
  await stage.clock.advance(1_000);
  await stage.settle();
  expect(stage.statements.at(-1)?.lines.length).toBe(88);
  expect([node.wrong, linesOf(node.statements).length]).toEqual([[], 600]);
});
