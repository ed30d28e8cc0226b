/** Tabs of a gateway: what becomes durable, what is stated when, and how it reaches its node. */

import { test } from 'vitest';
import type { StatementEntry } from '../../ledger/statement.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { codeOf, Disk, DiskStore } from './feed-stage.ts';
import { ended, GatewayStage, linesOf, NodeStage, startAt, wholeEnd } from './gateway-tab-stage.ts';

const unready = new HelixFlowError('LEDGER_UNREADY', { reason: 'test' });
const failed = new HelixFlowError('STORE_FAILED', { reason: 'test' });

async function connected(): Promise<{ readonly stage: GatewayStage; readonly node: NodeStage }> {
  const stage = await GatewayStage.open();
  const node = new NodeStage('a');
  stage.tabs.ready(node);
  return { stage, node };
}

/** Lets a second pass, and what it brings about. */
async function second(stage: GatewayStage, count = 1): Promise<void> {
  for (let at = 0; at < count; at += 1) {
    await stage.clock.advance(1_000);
    await stage.settle();
  }
}

const many = (stage: GatewayStage, node: NodeStage, count: number): Promise<unknown> =>
  Promise.all(Array.from({ length: count }, (_, at) => stage.attempt(startAt(node.peer, at)).durable));

const logRows = ({ store }: GatewayStage): string[] =>
  [...store.disk.rows.keys()].filter((key) => key.startsWith('6c2f'));

const progressOf = ({ lines, running, progress }: StatementEntry) => ({
  lines: lines.map(({ serial, completionTokens }) => [serial, completionTokens]),
  running: running.map(({ serial, completionTokens, outcome }) => [serial, completionTokens, outcome]),
  progress: progress.map(({ serial, completionTokens }) => [serial, completionTokens]),
});

test('a line is durable before its client hears of the end, and stated within a second', async ({ expect }) => {
  const { stage, node } = await connected();
  const { durable } = stage.attempt(startAt(node.peer, 1));
  expect(logRows(stage)).toEqual([]);
  await durable;
  expect([logRows(stage).length, stage.statements.length, node.frames.length]).toEqual([1, 0, 0]);
  await second(stage);
  expect(linesOf(stage.statements)).toEqual(linesOf(node.statements));
  expect(linesOf(stage.statements)).toEqual([
    {
      run: stage.run,
      serial: 1,
      first: 1,
      request: startAt(node.peer, 1).request,
      model: 'tiny',
      digest: startAt(node.peer, 1).digest,
      caller: startAt(node.peer, 1).caller,
      price: startAt(node.peer, 1).price,
      payer: 'account',
      startMs: stage.clock.wallMs() - 1_000,
      firstMs: 12,
      durationMs: 0,
      promptTokens: 100,
      cachedTokens: 10,
      completionTokens: 20,
      nodeTokens: 20,
      outcome: 'done',
    },
  ]);
  node.answerAll(stage.tabs);
  await second(stage, 2);
  expect(stage.tabs.status()).toEqual([
    { node: node.peer, running: 0, unstated: 0, waiting: 0, unattested: 0, statements: 1, lines: 1, refused: 0 },
  ]);
  expect([node.wrong, stage.countersigns.length, logRows(stage), stage.clock.timers]).toEqual([[], 1, [], 0]);
});

test('256 lines are stated without waiting for the second to pass', async ({ expect }) => {
  const { stage, node } = await connected();
  await many(stage, node, 600);
  await stage.settle();
  expect(stage.statements.map(({ number, lines }) => [number, lines.length])).toEqual([
    [0, 256],
    [1, 256],
  ]);
  await second(stage);
  expect(stage.statements.at(-1)?.lines.length).toBe(88);
  expect([node.wrong, linesOf(node.statements).length]).toEqual([[], 600]);
});

test('lines that come during a write share the next one', async ({ expect }) => {
  const { stage, node } = await connected();
  let open = (): void => {};
  stage.store.gate = new Promise((resolve) => {
    open = resolve;
  });
  const first = many(stage, node, 3);
  await stage.settle();
  expect(stage.store.batches).toBe(1);
  const later = Array.from({ length: 40 }, (_, at) => stage.attempt(startAt(node.peer, `later ${at}`)).durable);
  await stage.settle();
  expect(stage.store.batches).toBe(1);
  open();
  await Promise.all([first, ...later]);
  expect([stage.store.batches, logRows(stage).length]).toEqual([2, 2]);
});

test('statements of several tabs that fall due together share one block and its signature', async ({ expect }) => {
  const stage = await GatewayStage.open();
  const nodes = ['a', 'b', 'c', 'd'].map((name) => new NodeStage(name));
  for (const node of nodes) stage.tabs.ready(node);
  await Promise.all(nodes.map((node) => stage.attempt(startAt(node.peer, node.peer)).durable));
  await second(stage);
  expect(stage.blocks.length).toBe(1);
  expect(new Set(nodes.flatMap(({ frames }) => frames.map(({ signature }) => signature.join()))).size).toBe(1);
  expect(nodes.map(({ wrong, statements }) => [wrong, statements.length])).toEqual(nodes.map(() => [[], 1]));
});

test('what runs for a second is told once in full, then how far it has come, then by its line', async ({ expect }) => {
  const { stage, node } = await connected();
  const line = stage.tabs.begin(startAt(node.peer, 1));
  const short = stage.tabs.begin(startAt(node.peer, 2));
  const dropped = stage.tabs.begin(startAt(node.peer, 3));
  line.received(5);
  await stage.clock.advance(500);
  dropped.drop();
  await ended(short);
  const young = stage.tabs.begin(startAt(node.peer, 4));
  await stage.clock.advance(500);
  await stage.settle();
  young.drop();
  line.received(9);
  await second(stage);
  await second(stage);
  line.received(30);
  await second(stage);
  line.received(31);
  await ended(line, wholeEnd({ completionTokens: 31 }));
  await second(stage, 3);
  expect(stage.statements.map(progressOf)).toEqual([
    { lines: [[2, 20]], running: [[1, 5, 'running']], progress: [] },
    { lines: [], running: [], progress: [[1, 9]] },
    { lines: [], running: [], progress: [[1, 30]] },
    { lines: [[1, 31]], running: [], progress: [] },
  ]);
  expect([node.wrong, node.statements.length, stage.clock.timers]).toEqual([[], 4, 0]);
});

test('an attempt that is over ends no second time', async ({ expect }) => {
  const { stage, node } = await connected();
  const { line, durable } = stage.attempt(startAt(node.peer, 1));
  line.end(wholeEnd({ completionTokens: 99 }), () => expect.unreachable('told twice'));
  line.drop();
  await durable;
  await second(stage);
  expect(linesOf(stage.statements).map(({ completionTokens }) => completionTokens)).toEqual([20]);
});

test('numbers that no line may carry are brought within their bounds', async ({ expect }) => {
  const { stage, node } = await connected();
  const odd = { promptTokens: 1e12, cachedTokens: Number.POSITIVE_INFINITY, completionTokens: Number.NaN };
  await stage.attempt(startAt(node.peer, 1), wholeEnd({ ...odd, nodeTokens: -5 })).durable;
  await second(stage);
  expect(
    linesOf(node.statements).map(({ promptTokens, cachedTokens, completionTokens, nodeTokens }) => [
      promptTokens,
      cachedTokens,
      completionTokens,
      nodeTokens,
    ]),
  ).toEqual([[100_000_000, 100_000_000, 0, 0]]);
});

test('a write that fails fails every line that waits, and no new work is taken from then on', async ({ expect }) => {
  const { stage, node } = await connected();
  expect(stage.tabs.refusal()).toBe(undefined);
  stage.store.failure = failed;
  const running = stage.tabs.begin(startAt(node.peer, 'running'));
  const codes = [1, 2, 3].map((at) => codeOf(stage.attempt(startAt(node.peer, at)).durable));
  expect(await Promise.all(codes)).toEqual(['STORE_FAILED', 'STORE_FAILED', 'STORE_FAILED']);
  expect(stage.tabs.refusal()?.code).toBe('USAGE_UNRECORDED');
  // A disk that has room again may have lost what was being written.
  stage.store.failure = undefined;
  expect(await codeOf(ended(running))).toBe('STORE_FAILED');
  await second(stage, 3);
  expect([stage.statements, stage.tabs.refusal()?.code, stage.clock.timers]).toEqual([[], 'USAGE_UNRECORDED', 0]);
});

test('a feed that cannot be written refuses new work, and what is on disk is stated by the next process', async ({
  expect,
}) => {
  const { stage, node } = await connected();
  await many(stage, node, 3);
  stage.store.failure = failed;
  await second(stage, 2);
  expect(stage.tabs.refusal()?.code).toBe('USAGE_UNRECORDED');
  const next = await GatewayStage.open({ store: new DiskStore(stage.store.disk) });
  await second(next);
  expect(linesOf(next.statements).map(({ run, serial }) => [run, serial])).toEqual(
    [1, 2, 3].map((at) => [stage.run, at]),
  );
});

test('lines wait in the log while this process may not sign; nothing is lost, and nothing stated twice', async ({
  expect,
}) => {
  const { stage, node } = await connected();
  stage.mayWrite = () => Promise.reject(unready);
  await many(stage, node, 300);
  await second(stage, 20);
  // Asked again after 1, 2, 4 and 8 seconds, at the first tick after each.
  expect([stage.statements, logRows(stage).length > 0, stage.appends.length]).toEqual([[], true, 5]);
  stage.mayWrite = async () => {};
  await second(stage, 31);
  expect(linesOf(stage.statements).map(({ serial }) => serial)).toEqual(Array.from({ length: 300 }, (_, at) => at + 1));
  expect([node.wrong, logRows(stage)]).toEqual([[], []]);
});

test('no new work is taken while too many lines wait to be stated', async ({ expect }) => {
  const { stage, node } = await connected();
  stage.mayWrite = () => Promise.reject(unready);
  await many(stage, node, 16_384);
  expect(stage.tabs.refusal()).toBe(undefined);
  const waiting = many(stage, node, 16_384);
  expect(stage.tabs.refusal()?.code).toBe('USAGE_UNRECORDED');
  await waiting;
  expect(stage.tabs.refusal()).toBe(undefined);
  for (let at = 0; at < 2; at += 1) await many(stage, node, 16_384);
  expect(stage.tabs.refusal()?.code).toBe('USAGE_UNRECORDED');
  stage.mayWrite = async () => {};
  await second(stage, 2);
  expect(stage.tabs.refusal()).toBe(undefined);
  for (let at = 0; at < 4; at += 1) {
    node.answerAll(stage.tabs);
    await second(stage);
  }
  expect([stage.tabs.refusal(), linesOf(node.statements).length]).toEqual([undefined, 65_536]);
});

test('a node that is there and says nothing gets no more than it may leave unanswered', async ({ expect }) => {
  const { stage, node } = await connected();
  for (let at = 0; at < 59; at += 1) {
    await stage.attempt(startAt(node.peer, at)).durable;
    await second(stage);
  }
  await many(stage, node, 256 * 8);
  await stage.settle();
  expect([stage.statements.length, node.frames.length]).toEqual([64, 64]);
  const [status] = stage.tabs.status();
  expect([status?.waiting, status?.unattested, status?.unstated]).toEqual([64, 0, 768]);
  node.answerAll(stage.tabs);
  await second(stage);
  expect([stage.statements.length, node.frames.length, stage.tabs.status()[0]?.unstated, node.wrong]).toEqual([
    67,
    3,
    0,
    [],
  ]);
});

test('a node that never answers keeps neither the gateway nor other nodes from being stated', async ({ expect }) => {
  const { stage, node } = await connected();
  await many(stage, node, 256 * 64);
  await stage.settle();
  expect(stage.statements.length).toBe(64);
  await many(stage, node, 256 * 20);
  await stage.settle();
  expect(stage.tabs.status()[0]?.unstated).toBeLessThan(4_096);
  await second(stage, 61);
  const [status] = stage.tabs.status();
  expect([status?.unstated, status?.waiting, status?.unattested]).toEqual([0, 15, 69]);
  expect([stage.tabs.refusal(), linesOf(stage.statements).length]).toEqual([undefined, 256 * 84]);
});

test('a node that is away stops no statement; they stand alone until it is back, then all are sent', async ({
  expect,
}) => {
  const stage = await GatewayStage.open();
  const node = new NodeStage('a');
  const other = new NodeStage('b');
  stage.tabs.ready(other);
  for (let at = 0; at < 150; at += 1) {
    await Promise.all([stage.attempt(startAt(node.peer, at)).durable, stage.attempt(startAt(other.peer, at)).durable]);
    await second(stage);
    other.answerAll(stage.tabs);
  }
  const [, away] = stage.tabs.status();
  expect([away?.statements, away?.waiting, away?.unattested]).toEqual([150, 60, 90]);
  stage.tabs.ready(node);
  await stage.settle();
  expect(node.frames.length).toBe(64);
  for (let at = 0; at < 3; at += 1) {
    node.answerAll(stage.tabs);
    await stage.settle();
  }
  await second(stage, 2);
  expect([node.statements.length, node.wrong, stage.countersigns.length]).toEqual([150, [], 300]);
  expect(stage.tabs.status().map(({ waiting, unattested }) => [waiting, unattested])).toEqual([
    [0, 0],
    [0, 0],
  ]);
});

test('a new session is sent again what was not countersigned in the one before', async ({ expect }) => {
  const { stage, node } = await connected();
  for (let at = 0; at < 3; at += 1) {
    await stage.attempt(startAt(node.peer, at)).durable;
    await second(stage);
  }
  const [first] = node.frames;
  if (first !== undefined) stage.tabs.received(node.peer, node.answer(first));
  stage.tabs.gone(node);
  node.frames.length = 0;
  stage.tabs.ready(node);
  await stage.settle();
  expect(node.frames.map((frame) => node.sign(frame).number)).toEqual([1, 2]);
  node.answerAll(stage.tabs);
  await second(stage);
  expect(stage.countersigns.map(({ number }) => number)).toEqual([0, 1, 2]);
});

test('a channel that is backed up gets no more before it has emptied', async ({ expect }) => {
  const stage = await GatewayStage.open();
  const node = new NodeStage('a');
  for (let at = 0; at < 5; at += 1) {
    await stage.attempt(startAt(node.peer, at)).durable;
    await second(stage);
  }
  node.isBackedUp = true;
  stage.tabs.ready(node);
  await stage.settle();
  expect(node.frames.length).toBe(1);
  node.isBackedUp = false;
  await second(stage);
  expect([node.frames.length, node.wrong]).toEqual([5, []]);
});

test('the next process sends what no process before it has had countersigned, of any epoch', async ({ expect }) => {
  const disk = new Disk();
  const node = new NodeStage('a');
  const told: string[] = [];
  for (let life = 0; life < 4; life += 1) {
    const stage = await GatewayStage.open({ store: new DiskStore(disk), run: `life ${life}` });
    for (let at = 0; at < 4; at += 1) {
      await stage.attempt(startAt(node.peer, `${life}.${at}`)).durable;
      await second(stage);
    }
    told.push(...stage.statements.slice(-4).map((_, at) => `${stage.epoch}/${at}`));
    stage.tabs.ready(node);
    await stage.settle();
    // Answers the second of each life only.
    for (const frame of node.frames.splice(0)) {
      const { number } = node.sign(frame);
      if (number === 1) stage.tabs.received(node.peer, node.answer(frame));
    }
    await second(stage);
    await stage.tabs.close();
  }
  const last = await GatewayStage.open({ store: new DiskStore(disk) });
  last.tabs.ready(node);
  await last.settle();
  const asked = node.frames.map((frame) => node.sign(frame)).map(({ epoch, number }) => `${epoch}/${number}`);
  expect(asked).toEqual(told.filter((name) => !name.endsWith('/1')));
  expect([last.tabs.status()[0]?.unattested, last.countersigns.length, node.wrong]).toEqual([12, 4, []]);
});

test('statements of earlier epochs that a node has forgotten keep no new ones from it', async ({ expect }) => {
  const disk = new Disk();
  const node = new NodeStage('a');
  const first = await GatewayStage.open({ store: new DiskStore(disk) });
  for (let at = 0; at < 200; at += 1) {
    await first.attempt(startAt(node.peer, at)).durable;
    await second(first);
  }
  await first.tabs.close();
  const stage = await GatewayStage.open({ store: new DiskStore(disk) });
  stage.tabs.ready(node);
  await stage.settle();
  // None of these will ever be answered.
  expect(node.frames.splice(0).length).toBe(32);
  for (let at = 0; at < 70; at += 1) {
    await stage.attempt(startAt(node.peer, `new ${at}`)).durable;
    await second(stage);
    for (const frame of node.frames.splice(0)) {
      const { epoch } = node.sign(frame);
      if (epoch === stage.epoch) stage.tabs.received(node.peer, node.answer(frame));
    }
  }
  await second(stage);
  expect([stage.countersigns.length, node.wrong]).toEqual([70, []]);
  // What is left unanswered for a minute makes room for those behind it.
  expect(stage.tabs.status()[0]).toMatchObject({ waiting: 0, unattested: 200 });
  expect(new Set(node.statements.map(({ lines }) => lines[0]?.serial)).size).toBeGreaterThan(64);
});

test('close states what is left where this process may sign, and leaves the rest on disk', async ({ expect }) => {
  const { stage, node } = await connected();
  await many(stage, node, 300);
  const late = stage.attempt(startAt(node.peer, 'late')).durable;
  await stage.tabs.close();
  await late;
  expect([linesOf(stage.statements).length, logRows(stage), stage.tabs.refusal()?.code]).toEqual([
    301,
    [],
    'USAGE_UNRECORDED',
  ]);
  const waiting = await GatewayStage.open({ writing: 'recovering', mayWrite: () => new Promise(() => {}) });
  await many(waiting, node, 2);
  await second(waiting);
  await waiting.tabs.close();
  expect([waiting.statements, logRows(waiting).length]).toEqual([[], 1]);
});
