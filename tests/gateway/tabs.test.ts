/** The hot path over real tabs of both sides: what a call leaves on disk, what is stated of it, and what its node says to that. */

import { describe, test } from 'vitest';
import { createAccounting } from '../../gateway/accounting.ts';
import type { UsageLine } from '../../ledger/line.ts';
import { LineLog } from '../../ledger/line-log.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { ProcessId, RequestId, Tag } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { Disk, DiskStore } from '../ledger/feed-stage.ts';
import { GatewayStage, gatewayPeer, linesOf } from '../ledger/gateway-tab-stage.ts';
import { NodeStage, nodePeer } from '../ledger/node-tab-stage.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { ScriptedEngine } from '../support/scripted-engine.ts';
import { endsOf, type MeshNodeUnderTest, type SeenCall, SmallMesh } from '../support/small-mesh.ts';

const tags = { day: 1, account: 'acacacacacacacac' as Tag, key: 'bcbcbcbcbcbcbcbc' as Tag };

class Books {
  readonly disk = new Disk();
  readonly clock = new ManualClock();
  readonly gateway: GatewayStage;
  readonly mesh: SmallMesh;
  #node: { stage: NodeStage; under: MeshNodeUnderTest } | undefined;
  #asked = 0;

  private constructor(gateway: GatewayStage) {
    this.gateway = gateway;
    this.disk = gateway.store.disk;
    this.clock = gateway.clock;
    const { tabs, clock } = gateway;
    const accounting = createAccounting({
      clock,
      tabs,
      tags: { callerOf: () => tags },
      prices: { inForce: () => undefined },
      budgets: { hold: () => undefined },
    });
    this.mesh = new SmallMesh(100, { clock, self: gatewayPeer, run: gateway.run, accounting, tabs });
  }

  static async open(): Promise<Books> {
    const clock = new ManualClock();
    const gateway = await GatewayStage.open({ clock, store: new DiskStore(new Disk()) });
    const books = new Books(gateway);
    const stage = await NodeStage.open({ clock });
    const under = books.mesh.add(new ScriptedEngine(8), 'owner', 8, { peer: nodePeer, tabs: stage.tabs });
    books.#node = { stage, under };
    return books;
  }

  get node(): { stage: NodeStage; under: MeshNodeUnderTest } {
    if (this.#node === undefined) throw new Error('not open');
    return this.#node;
  }

  ask(): Promise<SeenCall> {
    this.#asked += 1;
    return this.mesh.call('m', 60_000, { request: this.#asked.toString(16).padStart(32, '0') as RequestId });
  }

  async settle(): Promise<void> {
    for (let round = 0; round < 6; round += 1) await this.mesh.settle();
  }

  /** Long enough for statements and their countersignatures. */
  async pass(ms = 3 * limits.statementEveryMs): Promise<void> {
    for (let past = 0; past < ms; past += 250) {
      await this.clock.advance(250);
      await this.settle();
    }
  }
}

/** Lines that the next process would find, were there no power from now on. */
async function linesOn(disk: Disk): Promise<UsageLine[]> {
  const copy = disk.copy();
  copy.cut();
  const log = new LineLog({ clock: new ManualClock(), store: new DiskStore(copy) }, 'ff'.repeat(16) as ProcessId);
  return (await log.open()).lines.map(({ line }) => line);
}

/** How calls may end, and what their lines say. */
const endings: readonly (readonly [UsageLine['outcome'], (books: Books, seen: SeenCall) => unknown])[] = [
  ['done', ({ node }) => node.under.engine.running[0]?.finish()],
  ['cancelled', (_, { answer }) => answer.cancel()],
  ['failed', ({ node }) => node.under.engine.running[0]?.fail(new Error('broken'))],
  ['cut', (books) => books.pass(61_000)],
];

describe('a call', () => {
  test('has its line on disk, should the power fail, when its client hears of the end', async ({ expect }) => {
    const books = await Books.open();
    let found: Promise<UsageLine[]> | undefined;
    books.mesh.gateway.chat(
      {
        request: '01'.repeat(16) as RequestId,
        caller: { keyId: 'k', issuer: 'i', account: 'a', models: [], limits: {}, gateways: [] } as never,
        model: 'm',
        chat: { messages: [{ role: 'user', content: 'hi' }] },
        deadlineMs: 60_000 as never,
      },
      {
        committed: () => {},
        delta: () => {},
        done: () => {
          found = linesOn(books.disk);
        },
        failed: () => {},
      },
    );
    await books.settle();
    void books.node.under.engine.running[0]?.emit('x');
    books.node.under.engine.running[0]?.finish();
    await books.settle();
    expect(await found).toMatchObject([
      { serial: 1, outcome: 'done', promptTokens: 3, completionTokens: 2, nodeTokens: 2, caller: tags },
    ]);
  });

  test.for(endings)('that is %s is stated once, and its node countersigns it', async ([outcome, end], { expect }) => {
    const books = await Books.open();
    const seen = await books.ask();
    void books.node.under.engine.running[0]?.emit('a');
    void books.node.under.engine.running[0]?.emit('b');
    await books.settle();
    await end(books, seen);
    await books.settle();
    await books.pass();
    const { statements, countersigns, refused } = books.gateway;
    expect(linesOf(statements).map((line) => [line.serial, line.outcome, line.completionTokens])).toEqual([
      [1, outcome, 2],
    ]);
    expect([refused, countersigns.map((sign) => sign.refused)]).toEqual([[], statements.map(() => [])]);
    expect(books.node.stage.tabs.status()).toMatchObject([{ running: 0, uncovered: 0, refused: 0 }]);
    expect(await linesOn(books.disk)).toEqual([]);
  });

  test('that ended before its node began is stated, and nothing is said against it', async ({ expect }) => {
    const books = await Books.open();
    const calls: SeenCall[] = [];
    for (let call = 0; call < 5; call += 1) calls.push(await books.ask());
    for (const one of [...books.node.under.engine.running]) one.fail(new Error('broken'));
    await books.settle();
    await books.pass();
    const early = linesOf(books.gateway.statements);
    expect(
      early.map(({ outcome, promptTokens, completionTokens }) => [outcome, promptTokens, completionTokens]),
    ).toEqual(early.map(() => ['failed', 0, 0]));
    expect([early.length, books.gateway.refused]).toEqual([5, []]);
  });

  test('that runs for long is told of before it ends', async ({ expect }) => {
    const books = await Books.open();
    await books.ask();
    void books.node.under.engine.running[0]?.emit('a');
    await books.pass();
    expect(books.gateway.statements.flatMap(({ running }) => running)).toMatchObject([
      { serial: 1, outcome: 'running', completionTokens: 1 },
    ]);
  });
});

test('many calls at a time that end in every way leave a line each, of which none is refused', async ({ expect }) => {
  const books = await Books.open();
  const calls: SeenCall[] = [];
  for (let round = 0; round < 30; round += 1) {
    for (let call = 0; call < 6; call += 1) calls.push(await books.ask());
    const running = [...books.node.under.engine.running];
    for (const [at, one] of running.entries()) {
      for (let piece = 0; piece < (at + round) % 4; piece += 1) void one.emit('ab');
    }
    if (round % 2 === 0) await books.settle();
    for (const [at, one] of running.entries()) {
      if ((at + round) % 3 === 0) one.finish();
      else if ((at + round) % 3 === 1) one.fail(new Error('broken'));
    }
    for (const [at, { answer }] of calls.entries()) if ((at + round) % 5 === 0) answer.cancel();
    await books.clock.advance(300);
    await books.settle();
  }
  for (const { answer } of calls) answer.cancel();
  await books.settle();
  await books.mesh.gateway.drain();
  await books.pass(6_000);
  const lines = linesOf(books.gateway.statements);
  expect(new Set(lines.map(({ serial }) => serial)).size).toBe(lines.length);
  const attempts = books.mesh.gateway.nodes().reduce((sum, { counts }) => sum + counts.attempts, 0);
  expect([lines.length, books.gateway.refused]).toEqual([attempts, []]);
  expect(attempts).toBeGreaterThan(50);
  expect(books.node.stage.tabs.status()).toMatchObject([{ running: 0, uncovered: 0, refused: 0 }]);
  const told = calls.filter((seen) => endsOf(seen).includes('done')).length;
  expect(lines.filter(({ outcome }) => outcome === 'done').length).toBeGreaterThanOrEqual(told);
});

test('nothing is served, and nobody is told of an end, where lines cannot be written', async ({ expect }) => {
  const books = await Books.open();
  const seen = await books.ask();
  void books.node.under.engine.running[0]?.emit('x');
  await books.settle();
  books.gateway.store.failure = new HelixFlowError('STORE_FAILED', { reason: 'full' });
  books.node.under.engine.running[0]?.finish();
  await books.settle();
  expect([endsOf(seen), endsOf(await books.ask())]).toEqual([['STREAM_INTERRUPTED'], ['USAGE_UNRECORDED']]);
});
