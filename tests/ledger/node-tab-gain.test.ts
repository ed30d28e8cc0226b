/** What a gateway gains by lying to a node, whatever it tries: about one window, then nothing more is done for it. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { authorIdOf } from '../../ledger/block.ts';
import { attemptName, type UsageLine } from '../../ledger/line.ts';
import { settleAll } from '../../ledger/settle.ts';
import type { AttemptFacts, Said } from '../../ledger/settlement.ts';
import type { RefusedLine, StatementEntry } from '../../ledger/statement.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { EpochId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { SimRandom } from '../../sim/random.ts';
import { DiskStore } from './feed-stage.ts';
import { doneWith, NodeStage, nodePeer, StagedGateway, type StagedWork } from './node-tab-stage.ts';

/** What the node does: so many answers at a time, of so many tokens each. */
const slots = 4;
const answerTokens = 200;
const promptTokens = 100;
const answerMs = 2_000;
const worthTokens = answerTokens + promptTokens;
/** Done before the node notices that nothing is covered: what it may wait, and what is under way by then. */
const windowTokens = ((slots * worthTokens) / answerMs) * (limits.uncoveredMaxMs + 2_000) + slots * worthTokens;

/** What a gateway does with an attempt of which it has everything. */
const acts = ['honest', 'drop', 'shave', 'cheap', 'running', 'repeat', 'cancel', 'crossed', 'hedge'] as const;
type Act = (typeof acts)[number];

interface Life {
  readonly acts: readonly Act[];
  /** What `shave` takes off. */
  readonly shaveTokens: number;
  /** A new process each time, which says nothing of what came before. */
  readonly restartEveryMs?: number;
  /** It goes back to its first statement, and goes on from there: its disk is an old one. */
  readonly forkAtMs?: number;
  /** The node's process dies each time, after what it had on disk. */
  readonly nodeDiesEveryMs?: number;
}

interface Running {
  readonly staged: StagedWork;
  readonly serial: number;
  readonly act: Act;
  readonly untilMs: number;
}

interface Stated {
  readonly epoch: EpochId;
  readonly entry: StatementEntry;
}

class Game {
  readonly #life: Life;
  readonly #random: SimRandom;
  readonly #lives: StagedGateway[] = [];
  readonly #statements: Stated[] = [];
  #node!: NodeStage;
  #serial = 0;
  #running: Running[] = [];
  #unstated: UsageLine[] = [];
  #covered: UsageLine[] = [];
  doneTokens = 0;
  refusedMs = 0;
  isThrownOut = false;

  constructor(life: Life, seed: number) {
    this.#life = life;
    this.#random = new SimRandom(`game ${seed}`);
  }

  get #gateway(): StagedGateway {
    return this.#lives.at(-1) as StagedGateway;
  }

  async play(forMs: number): Promise<this> {
    this.#node = await NodeStage.open();
    this.#begin();
    for (let nowMs = 0; nowMs < forMs; nowMs += 1_000) {
      await this.#change(nowMs);
      this.#finish(nowMs);
      this.#open(nowMs);
      await this.#node.clock.advance(500);
      this.#state();
      await this.#node.clock.advance(500);
    }
    return this;
  }

  #begin(): void {
    this.#lives.push(new StagedGateway('a liar', `${this.#lives.length}`));
    this.#node.tabs.ready(this.#gateway.link);
  }

  async #change(nowMs: number): Promise<void> {
    const isDue = (everyMs: number | undefined): boolean => everyMs !== undefined && nowMs > 0 && nowMs % everyMs === 0;
    const { restartEveryMs, forkAtMs, nodeDiesEveryMs } = this.#life;
    if (isDue(restartEveryMs)) {
      this.#node.tabs.gone(this.#gateway.link);
      for (const { staged } of this.#running) staged.work.end({ kind: 'cancelled', promptTokens, completionTokens: 0 });
      this.#running = [];
      this.#unstated = [];
      this.#begin();
    }
    if (nowMs === forkAtMs && this.#gateway.number > 2) {
      const [first] = this.#statements;
      const branch = new StagedGateway('a liar', `${this.#lives.length - 1}`);
      if (first !== undefined) branch.sign(branch.state(first.entry.lines, first.entry));
      const { block, previousBlock, number, previous, totals } = branch;
      Object.assign(this.#gateway, { block, previousBlock, number, previous, totals });
    }
    if (isDue(nodeDiesEveryMs)) {
      const { store, clock } = this.#node;
      this.#running = [];
      store.disk.cut();
      this.#node = await NodeStage.open({ store: new DiskStore(store.disk.copy()), clock });
      this.#node.tabs.ready(this.#gateway.link);
    }
  }

  #open(nowMs: number): void {
    if (this.isThrownOut) return;
    if (this.#node.codeFor(this.#gateway) !== undefined) {
      this.refusedMs += 1_000;
      return;
    }
    while (this.#running.length < slots) {
      this.#serial += 1;
      const { acts: drawn } = this.#life;
      const act = drawn[this.#random.int(drawn.length)] ?? 'honest';
      const staged = this.#node.begin(this.#gateway, this.#serial);
      this.#running.push({ staged, serial: this.#serial, act, untilMs: nowMs + answerMs });
    }
  }

  /** Answers are sent whole; nothing of them is acknowledged before they end. */
  #finish(nowMs: number): void {
    for (const running of this.#running.filter(({ untilMs }) => untilMs <= nowMs)) {
      const { staged, act } = running;
      staged.send(answerTokens, answerTokens);
      if (act === 'cancel') staged.work.end({ kind: 'cancelled', promptTokens, completionTokens: answerTokens });
      else staged.work.end(doneWith(answerTokens, { promptTokens, cachedTokens: 0 }));
      this.doneTokens += worthTokens;
      this.#unstated.push(...this.#linesOf(running));
    }
    this.#running = this.#running.filter(({ untilMs }) => untilMs > nowMs);
  }

  #linesOf({ serial, act }: Running): UsageLine[] {
    const counts = { promptTokens, cachedTokens: 0, completionTokens: answerTokens, nodeTokens: answerTokens };
    const line = this.#gateway.line(serial, { ...counts, startMs: this.#node.clock.wallMs() });
    const nothing = { promptTokens: 0, completionTokens: 0, nodeTokens: 0 };
    switch (act) {
      case 'honest':
        return [line];
      case 'drop':
      case 'running':
        return [];
      case 'shave':
        return [{ ...line, completionTokens: Math.max(0, answerTokens - this.#life.shaveTokens) }];
      case 'cheap':
        return [{ ...line, nodeTokens: 1 }];
      case 'repeat': {
        const earlier = this.#covered[this.#random.int(this.#covered.length + 1)];
        return earlier === undefined ? [line] : [line, { ...earlier, ...nothing }];
      }
      // It has it all, and says that it had left; nobody can tell when the cancel was sent.
      case 'cancel':
      case 'crossed':
        return [{ ...line, outcome: 'cancelled', completionTokens: 0 }];
      case 'hedge':
        return [{ ...line, ...nothing, outcome: 'hedged' }];
    }
  }

  #state(): void {
    if (this.isThrownOut) return;
    const lines = [...new Map(this.#unstated.map((line) => [attemptName(line), line])).values()];
    this.#unstated = [];
    const running = this.#running
      .filter(({ act }) => act === 'running')
      .map(({ serial }) =>
        this.#gateway.line(serial, { outcome: 'running', completionTokens: 0, nodeTokens: undefined as never }),
      );
    const entry = this.#gateway.state(lines, { running });
    this.#covered.push(...lines);
    this.#statements.push({ epoch: this.#gateway.epoch, entry });
    try {
      this.#node.tabs.received(this.#gateway.link, this.#gateway.frame(entry));
    } catch (error) {
      if (!isHelixFlowError(error, 'PROTOCOL_VIOLATION')) throw error;
      // Its session ends; what it forks is told to everyone.
      this.isThrownOut = true;
    }
  }

  /** What the ledger comes to once every statement is known, and each word on it. */
  paidTokens(): number {
    const words = new Map<string, readonly RefusedLine[]>();
    for (const { link, peer } of this.#lives) {
      for (const { epoch, number, refused } of link.countersigns(peer)) words.set(`${epoch} ${number}`, refused);
    }
    const facts = this.#statements.flatMap(({ epoch, entry }): AttemptFacts[] => {
      const refused = words.get(`${epoch} ${entry.number}`);
      return [...entry.lines, ...entry.running].map((line, index) => {
        const reason = refused?.find((one) => one.index === index)?.reason;
        const said: Said = {
          line,
          isCountersigned: refused !== undefined,
          ...(reason === undefined ? {} : { refused: reason }),
        };
        return { author: authorIdOf(this.#gateway.key.publicKey), node: nodePeer, said: [said] };
      });
    });
    return settleAll(facts).reduce((sum, one) => sum + one.promptTokens + one.completionTokens, 0);
  }
}

async function play(life: Partial<Life>, minutes = 10, seed = 1) {
  const game = await new Game({ acts: ['honest'], shaveTokens: 1, ...life }, seed).play(minutes * 60_000);
  const paidTokens = game.paidTokens();
  const { doneTokens, refusedMs, isThrownOut } = game;
  return { gainedTokens: doneTokens - paidTokens, doneTokens, paidTokens, refusedMs, isThrownOut };
}

const show = (what: string, { gainedTokens, doneTokens }: { gainedTokens: number; doneTokens: number }): void =>
  console.info(`${what}: ${gainedTokens} of ${doneTokens} tokens, ${(gainedTokens / windowTokens).toFixed(2)} windows`);

describe('a gateway', () => {
  test('that is honest is never refused anything', async ({ expect }) => {
    const { gainedTokens, doneTokens, refusedMs } = await play({});
    // What is under way when the game ends.
    expect([gainedTokens <= slots * worthTokens, refusedMs, doneTokens > 300_000]).toEqual([true, 0, true]);
  });

  test.for<[string, Partial<Life>]>([
    ['leaves out every line', { acts: ['drop'] }],
    ['leaves out one line of nine', { acts: [...Array<Act>(8).fill('honest'), 'drop'] }],
    ['shaves one token of each answer', { acts: ['shave'], shaveTokens: 1 }],
    ['shaves all', { acts: ['shave'], shaveTokens: answerTokens }],
    ['shaves one answer of nine', { acts: [...Array<Act>(8).fill('honest'), 'shave'], shaveTokens: answerTokens }],
    ['says that the node had counted less', { acts: ['cheap'] }],
    ['tells of answers as running for ever', { acts: ['running'] }],
    ['repeats earlier lines with less', { acts: ['repeat'] }],
    ['forks its feed', { acts: ['honest'], forkAtMs: 60_000 }],
    ['forks its feed and drops', { acts: ['honest', 'drop'], forkAtMs: 5_000 }],
  ])('gains one window at most when it %s', async ([what, life], { expect }) => {
    const result = await play(life);
    show(what, result);
    expect(result.gainedTokens).toBeLessThanOrEqual(windowTokens);
  });

  test.for<[string, Partial<Life>]>([
    ['cancels every answer at its end', { acts: ['cancel'] }],
    ['says that every answer crossed its cancel', { acts: ['crossed'] }],
    ['says that every answer had lost to another', { acts: ['hedge'] }],
    ['cancels half of them', { acts: ['cancel', 'honest'] }],
  ])('gains three windows, and a sixteenth of what it pays, when it %s', async ([what, life], { expect }) => {
    const result = await play(life, 30);
    show(what, result);
    expect(result.gainedTokens).toBeLessThanOrEqual(3 * windowTokens + result.paidTokens / 16);
  });

  test('gains less each time that it starts again', async ({ expect }) => {
    for (const restartEveryMs of [10_000, 20_000, 60_000]) {
      const result = await play({ acts: ['drop'], restartEveryMs }, 60);
      show(`starts again each ${restartEveryMs / 1_000} s, stating nothing, for an hour`, result);
      expect(result.gainedTokens).toBeLessThanOrEqual(10 * windowTokens);
    }
  });

  test('gains one window each time that the node dies', async ({ expect }) => {
    const result = await play({ acts: ['drop'], nodeDiesEveryMs: 60_000 }, 30);
    show('states nothing to a node that dies each minute, for half an hour', result);
    expect(result.gainedTokens).toBeLessThanOrEqual(10 * windowTokens);
  });

  test('gains no more by any mixture of these', { timeout: 120_000 }, async ({ expect }) => {
    const lives = fc.record(
      {
        acts: fc.array(fc.constantFrom(...acts), { minLength: 1, maxLength: 4 }),
        shaveTokens: fc.integer({ min: 1, max: answerTokens }),
        forkAtMs: fc.integer({ min: 3, max: 120 }).map((seconds) => seconds * 1_000),
      },
      { requiredKeys: ['acts', 'shaveTokens'] },
    );
    let most = { gainedTokens: 0, doneTokens: 1 };
    await fc.assert(
      fc.asyncProperty(lives, fc.nat(), async (life, seed) => {
        const result = await play(life, 5, seed);
        if (result.gainedTokens > most.gainedTokens) most = result;
        expect(result.gainedTokens).toBeLessThanOrEqual(3 * windowTokens + result.paidTokens / 16);
      }),
      { numRuns: 40 },
    );
    show('any mixture, five minutes', most);
  });
});
