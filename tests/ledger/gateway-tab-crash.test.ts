/** Crashes, restored backups and forks: no answered request loses its line, and an honest gateway states none twice. */

import fc from 'fast-check';
import { test } from 'vitest';
import { type Block, isFork, parseHeader, signBlock } from '../../ledger/block.ts';
import { encodeEntry } from '../../ledger/entry.ts';
import { attemptName } from '../../ledger/line.ts';
import type { ClaimFrame, CountersignFrame } from '../../protocol/messages/tab.ts';
import { SimRandom } from '../../sim/random.ts';
import { ban, type Death, Disk, DiskStore } from './feed-stage.ts';
import {
  ended,
  GatewayStage,
  gatewayAuthor,
  gatewayKey,
  linesOf,
  meshId,
  NodeStage,
  startAt,
  wholeEnd,
} from './gateway-tab-stage.ts';

/** What a client was answered, and the nodes that did the work; both outlive the gateway's processes. */
class Mesh {
  readonly disk: Disk;
  readonly nodes = ['a', 'b', 'c'].map((name) => new NodeStage(name));
  readonly answered = new Set<string>();
  lives = 0;
  #living: GatewayStage | undefined;

  constructor(disk = new Disk()) {
    this.disk = disk;
  }

  process(death?: Death): GatewayStage {
    this.lives += 1;
    return new GatewayStage({ store: new DiskStore(this.disk, death), run: `life ${this.lives}` });
  }

  /** Runs until the process dies, or all is done. */
  async run(stage: GatewayStage, work: () => Promise<unknown>): Promise<void> {
    this.#living = stage;
    for (const node of this.nodes) node.frames.length = 0;
    const whole = async (): Promise<void> => {
      await stage.open();
      for (const node of this.nodes) stage.tabs.ready(node);
      await work();
    };
    await Promise.race([stage.store.died, whole()]);
    this.#living = undefined;
  }

  /** Requests in waves, some of which run for seconds; nodes answer what they are sent. */
  async serve(stage: GatewayStage, requests: number, waveSize = 25): Promise<void> {
    const long: (() => void)[] = [];
    const finish = (serial: number, end: () => Promise<void>) => (): void => {
      const name = attemptName({ run: stage.run, serial });
      void end().then(() => this.answered.add(name));
    };
    for (let at = 0; at < requests; ) {
      for (const to = Math.min(requests, at + waveSize); at < to; at += 1) {
        const node = this.nodes[at % this.nodes.length]!;
        const line = stage.tabs.begin(startAt(node.peer, `${stage.run} ${at}`));
        line.received(at % 50);
        const end = finish(line.serial, () => ended(line, wholeEnd({ completionTokens: at % 50 })));
        if (at % 10 === 0) long.push(end);
        else end();
      }
      await this.#pass(stage, 300);
      if (long.length > 12) for (const end of long.splice(0, 6)) end();
    }
    for (const end of long) end();
    await this.rest(stage);
  }

  async #pass(stage: GatewayStage, delayMs: number): Promise<void> {
    await stage.settle(3);
    await stage.clock.advance(delayMs);
    await stage.settle(6);
    if (stage !== this.#living) await new Promise(() => {});
    for (const node of this.nodes) node.answerAll(stage.tabs);
  }

  /** Nothing more comes in; all that waits is said and answered. */
  async rest(stage: GatewayStage): Promise<void> {
    for (let at = 0; at < 4; at += 1) await this.#pass(stage, 1_000);
  }
}

interface Check {
  readonly lost: readonly string[];
  readonly twice: readonly string[];
  readonly uncovered: number;
  readonly signedTwice: number;
  readonly wrong: readonly string[];
  readonly rows: number;
}

const harmless: Check = { lost: [], twice: [], uncovered: 0, signedTwice: 0, wrong: [], rows: 0 };

function check(mesh: Mesh, stage: GatewayStage): Check {
  const names = linesOf(stage.statements).map(attemptName);
  const seen = new Set(names);
  const signed = stage.countersigns.map(({ epoch, node, number }) => `${epoch}/${node}/${number}`);
  return {
    lost: [...mesh.answered].filter((name) => !seen.has(name)),
    twice: names.filter((name, at) => names.indexOf(name) !== at),
    uncovered: stage.statements.length - new Set(signed).size,
    signedTwice: signed.length - new Set(signed).size,
    wrong: mesh.nodes.flatMap(({ wrong }) => wrong),
    rows: [...mesh.disk.rows.keys()].filter((key) => key.startsWith('6c2f')).length,
  };
}

test('a crash at every store operation of 1,000 requests loses no answered line and states none twice', {
  timeout: 240_000,
}, async ({ expect }) => {
  const requests = 1_000;
  const calm = new Mesh();
  const whole = calm.process();
  await calm.run(whole, () => calm.serve(whole, requests, 20));
  expect([calm.answered.size, check(calm, whole)]).toEqual([requests, harmless]);
  const operations = whole.store.operations;
  let answered = 0;
  let tried = 0;
  for (let after = 0; after < operations; after += 1) {
    for (const isApplied of [false, true]) {
      for (const end of ['power', 'kill'] as const) {
        const mesh = new Mesh();
        const first = mesh.process({ after, isApplied });
        await mesh.run(first, () => mesh.serve(first, requests, 20));
        // A process that is killed leaves what it had written, synced or not.
        if (end === 'kill') mesh.disk.sync();
        answered += mesh.answered.size;
        tried += 1;
        const next = mesh.process();
        await mesh.run(next, () => mesh.rest(next));
        expect([after, isApplied, end, check(mesh, next)]).toEqual([after, isApplied, end, harmless]);
      }
    }
  }
  console.info(`crashes: ${tried}; answered: ${answered}; lost 0, stated twice 0`);
  expect(operations).toBeGreaterThan(80);
});

test('process after process dies anywhere, also while it starts: nothing answered is lost, nothing stated twice', {
  timeout: 120_000,
}, async ({ expect }) => {
  const life = fc.record({
    after: fc.nat(40),
    isApplied: fc.boolean(),
    isKilled: fc.boolean(),
    requests: fc.integer({ min: 1, max: 120 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(life, { minLength: 1, maxLength: 8 }), async (lives) => {
      const mesh = new Mesh();
      for (const { requests, isKilled, ...death } of lives) {
        const stage = mesh.process(death);
        await mesh.run(stage, () => mesh.serve(stage, requests, 10));
        if (isKilled) mesh.disk.sync();
      }
      const last = mesh.process();
      await mesh.run(last, () => mesh.rest(last));
      expect(check(mesh, last)).toEqual(harmless);
    }),
    { numRuns: 60 },
  );
});

/** A backup that was made while lines waited, and the blocks of the process that went on from there. */
async function backedUp(): Promise<{ readonly backup: Disk; readonly first: GatewayStage; readonly mesh: Mesh }> {
  const mesh = new Mesh();
  const first = mesh.process();
  let backup = new Disk();
  await mesh.run(first, async () => {
    await mesh.serve(first, 30);
    await Promise.all(mesh.nodes.map((node, at) => first.attempt(startAt(node.peer, `kept ${at}`)).durable));
    backup = mesh.disk.copy();
    await mesh.rest(first);
    await mesh.serve(first, 30);
    await first.tabs.close();
  });
  return { backup, first, mesh };
}

test('a restored backup states again what was stated since, in an epoch of its own, as the same attempts', async ({
  expect,
}) => {
  const { backup, first, mesh } = await backedUp();
  const restored = new Mesh(backup);
  const next = new GatewayStage({ store: new DiskStore(backup), run: 'restored' });
  await restored.run(next, () => restored.rest(next));
  const again = linesOf(next.statements.filter(({ run }) => run === next.run));
  expect(again.length).toBe(3);
  expect(next.epoch).not.toBe(first.epoch);
  // What both say of an attempt is the same, so that it settles once.
  const before = new Map(linesOf(first.statements).map((line) => [attemptName(line), line]));
  expect(again).toEqual(again.map((line) => before.get(attemptName(line))));
  expect(mesh.nodes.flatMap(({ wrong }) => wrong)).toEqual([]);
});

test('a restored backup to which others give back what it lost states nothing again', async ({ expect }) => {
  const { backup, first } = await backedUp();
  let heal = (): void => {};
  const mayWrite = new Promise<void>((resolve) => {
    heal = resolve;
  });
  const restored = new Mesh(backup);
  const next = new GatewayStage({ store: new DiskStore(backup), run: 'restored', mayWrite: () => mayWrite });
  await restored.run(next, async () => {
    for (const block of first.blocks) await next.feeds.accept(block);
    heal();
    await restored.rest(next);
  });
  const names = linesOf(next.statements).map(attemptName);
  expect([names.length, new Set(names).size]).toEqual([63, 63]);
  expect(linesOf(first.statements).map(attemptName)).toEqual(names);
});

/** Two blocks of the same place, as only somebody who holds this gateway's key can make them. */
function forkAt(stage: GatewayStage, number: number) {
  const { root: _, count: __, openCount: ___, ...place } = (stage.blocks[0] as Block).head.header;
  const [a, b] = [1, 2].map((at) => {
    const { head } = signBlock({ ...place, number }, [ban(at)].map(encodeEntry), { meshId, key: gatewayKey });
    return parseHeader(head.bytes, head.signature);
  });
  return number === 0 ? { a: (stage.blocks[0] as Block).head, b: b! } : { a: a!, b: b! };
}

const forks = [
  { what: 'at a block that is held', number: 0, isUsed: true },
  { what: 'at a block that is not', number: 1_000, isUsed: true },
  { what: 'lifted before anything was to be written', number: 0, isUsed: false },
];

for (const { what, number, isUsed } of forks) {
  test(`after a fork that the root has lifted, statements begin anew in another epoch: ${what}`, async ({ expect }) => {
    const mesh = new Mesh();
    const stage = mesh.process();
    const [node] = mesh.nodes as [NodeStage];
    await mesh.run(stage, async () => {
      await mesh.serve(stage, 30);
      const running = stage.tabs.begin(startAt(node.peer, 'running'));
      running.received(7);
      await mesh.rest(stage);
      const written = stage.blocks.length;
      const proof = forkAt(stage, number);
      expect([isFork(proof, meshId), await stage.feeds.acceptProof(proof)]).toEqual([true, true]);
      const old = stage.epoch!;
      if (isUsed) {
        await stage.attempt(startAt(node.peer, 'after the fork')).durable;
        await mesh.rest(stage);
        expect([stage.tabs.refusal(), stage.blocks.length]).toEqual([undefined, written]);
      }
      await stage.feeds.lift(gatewayAuthor, old);
      if (!isUsed) await stage.attempt(startAt(node.peer, 'after the fork')).durable;
      await mesh.rest(stage);
      await mesh.rest(stage);
      expect(stage.epoch).not.toBe(old);
    });
    const fresh = stage.held.filter(({ place }) => place.epoch === stage.epoch).map(({ entry }) => entry);
    const statements = fresh.flatMap((entry) => (entry.kind === 'statement' ? [entry] : []));
    expect(statements.map(({ number, lines, running }) => [number, lines.length, running.length])).toEqual([[0, 1, 1]]);
    expect(mesh.nodes.flatMap(({ wrong }) => wrong)).toEqual([]);
  });
}

test('what others replay, reorder and repeat changes nothing', async ({ expect }) => {
  const mesh = new Mesh();
  const stage = mesh.process();
  const random = new SimRandom('replay');
  await mesh.run(stage, async () => {
    const frames: (readonly [NodeStage, ClaimFrame | CountersignFrame])[] = [];
    for (let at = 0; at < 40; at += 1) {
      const node = mesh.nodes[at % 3]!;
      await stage.attempt(startAt(node.peer, at)).durable;
      await stage.clock.advance(1_000);
      await stage.settle();
      for (const frame of node.frames.splice(0)) frames.push([node, node.answer(frame)], [node, node.claim([at + 1])]);
    }
    for (let at = 0; at < 100 * frames.length; at += 1) {
      const [node, frame] = frames[random.int(frames.length)]!;
      stage.tabs.received(node.peer, frame);
      if (at % 500 === 0) await stage.clock.advance(1_000);
    }
    for (const [node, frame] of frames) stage.tabs.received(node.peer, frame);
    await mesh.rest(stage);
  });
  const claims = stage.held.filter(({ entry }) => entry.kind === 'claim').length;
  expect([stage.countersigns.length, claims, check(mesh, stage)]).toEqual([40, 40, harmless]);
});
