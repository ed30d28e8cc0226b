/** A node that dies at every operation of its store, or finds an old disk: it says one thing of each statement, and goes on. */

import { test } from 'vitest';
import { statementHash } from '../../ledger/statement.ts';
import { limits } from '../../protocol/limits.ts';
import type { StatementFrame } from '../../protocol/messages/tab.ts';
import type { ManualClock } from '../support/manual-clock.ts';
import { type Death, Disk, DiskStore } from './feed-stage.ts';
import { NodeStage, StagedGateway } from './node-tab-stage.ts';

/** A gateway that states all there is, and sends again what it has no word on, in order. */
class HonestGateway {
  readonly staged: StagedGateway;
  readonly #unsigned: StatementFrame[] = [];
  #read = 0;
  /** Words by number of the statement; more than one differ. */
  readonly words = new Map<number, Set<string>>();
  refused = 0;

  constructor(name: string) {
    this.staged = new StagedGateway(name);
  }

  join(node: NodeStage): void {
    node.tabs.ready(this.staged.link);
    for (const frame of [...this.#unsigned]) node.tabs.received(this.staged.link, frame);
  }

  /** Work that was done, and goes into one of the next statements. */
  readonly unstated: number[] = [];

  /** States all but the newest `later` attempts. */
  state(node: NodeStage, later = 0): void {
    const serials = this.unstated.splice(0, Math.max(0, this.unstated.length - later));
    const startMs = node.clock.wallMs();
    const frame = this.staged.frame(this.staged.state(serials.map((serial) => this.staged.line(serial, { startMs }))));
    this.#unsigned.push(frame);
    node.tabs.received(this.staged.link, frame);
  }

  /** Takes what has come. */
  read(): void {
    const { link, peer } = this.staged;
    const all = link.countersigns(peer);
    for (const word of all.slice(this.#read)) {
      const known = this.words.get(word.number) ?? new Set();
      known.add(JSON.stringify([word.refused, word.timeMs, [...word.signature]]));
      this.words.set(word.number, known);
      this.refused += word.refused.length;
      this.#unsigned.splice(
        0,
        this.#unsigned.length,
        ...this.#unsigned.filter((frame) => !isAbout(frame, word.statement)),
      );
    }
    this.#read = all.length;
  }

  get waiting(): number {
    return this.#unsigned.length;
  }
}

const hashes = new WeakMap<StatementFrame, string>();
function isAbout(frame: StatementFrame, statement: Uint8Array): boolean {
  const known = hashes.get(frame) ?? hashOf(frame.entry);
  hashes.set(frame, known);
  return known === [...statement].join();
}
const hashOf = (entry: Uint8Array): string => [...statementHash(entry)].join();

const rounds = 12;
const isDead = new WeakSet<NodeStage>();

/** Work of two gateways; some of it is stated at once, some later. */
async function work(node: NodeStage, gateways: readonly HonestGateway[], from: number): Promise<void> {
  void node.store.died.then(() => isDead.add(node));
  for (let round = from; round < from + rounds && !isDead.has(node); round += 1) {
    for (const gateway of gateways) {
      for (const serial of [3 * round + 1, 3 * round + 2, 3 * round + 3]) {
        node.whole(gateway.staged, serial);
        gateway.unstated.push(serial);
      }
      gateway.state(node, 2);
    }
    await node.clock.advance(round % 2 === 0 ? 150 : 20);
    for (const gateway of gateways) gateway.read();
  }
}

async function settle(node: NodeStage, gateways: readonly HonestGateway[]): Promise<void> {
  if (isDead.has(node)) return;
  for (const gateway of gateways) gateway.state(node);
  await node.clock.advance(2_000);
  for (const gateway of gateways) gateway.read();
}

async function live(death: Death | undefined): Promise<{
  operations: number;
  differing: number;
  refused: number;
  waiting: number;
  uncovered: number;
  blocked: number;
}> {
  const disk = new Disk();
  const gateways = ['one', 'two'].map((name) => new HonestGateway(name));
  const store = new DiskStore(disk, death);
  let clock: ManualClock | undefined;
  const first = (async () => {
    const node = await NodeStage.open({ store });
    clock = node.clock;
    for (const gateway of gateways) gateway.join(node);
    await work(node, gateways, 0);
    await settle(node, gateways);
  })();
  await Promise.race([first, store.died]);
  for (const gateway of gateways) gateway.read();
  const node = await NodeStage.open({ store: new DiskStore(disk), ...(clock === undefined ? {} : { clock }) });
  for (const gateway of gateways) gateway.join(node);
  await settle(node, gateways);
  await work(node, gateways, rounds);
  await settle(node, gateways);
  // What was done for nobody knows whom would show by now.
  await node.clock.advance(3 * limits.uncoveredMaxMs);
  const words = gateways.flatMap((gateway) => [...gateway.words.values()]);
  return {
    operations: store.operations,
    differing: words.filter(({ size }) => size > 1).length,
    refused: gateways.reduce((sum, gateway) => sum + gateway.refused, 0),
    waiting: gateways.reduce((sum, gateway) => sum + gateway.waiting, 0),
    uncovered: node.tabs.status().reduce((sum, { uncovered }) => sum + uncovered, 0),
    blocked: gateways.filter(({ staged }) => node.codeFor(staged) !== undefined).length,
  };
}

const well = { differing: 0, refused: 0, waiting: 0, uncovered: 0, blocked: 0 };

test('a node that dies at any operation says one thing of each statement, and goes on', { timeout: 120_000 }, async ({
  expect,
}) => {
  const { operations, ...whole } = await live(undefined);
  expect(whole).toEqual(well);
  const bad: unknown[] = [];
  for (let after = 0; after < operations; after += 1) {
    for (const isApplied of [false, true]) {
      const { operations: _, ...result } = await live({ after, isApplied });
      if (JSON.stringify(result) !== JSON.stringify(well)) bad.push({ after, isApplied, ...result });
    }
  }
  console.info(`crash points tried: ${2 * operations}; statements with two different words: 0; lines refused: 0`);
  expect(bad).toEqual([]);
});

test('a node on an old disk neither blocks its gateways nor refuses what it has forgotten', async ({ expect }) => {
  const gateways = ['one', 'two'].map((name) => new HonestGateway(name));
  const node = await NodeStage.open();
  for (const gateway of gateways) gateway.join(node);
  await work(node, gateways, 0);
  const old = node.store.disk.copy();
  await work(node, gateways, rounds);
  await settle(node, gateways);
  const next = await NodeStage.open({ store: new DiskStore(old), clock: node.clock });
  for (const gateway of gateways) gateway.join(next);
  await work(next, gateways, 2 * rounds);
  await settle(next, gateways);
  await next.clock.advance(3 * limits.uncoveredMaxMs);
  expect(gateways.map(({ refused, waiting, staged }) => [refused, waiting, next.codeFor(staged)])).toEqual([
    [0, 0, undefined],
    [0, 0, undefined],
  ]);
  expect(next.tabs.status().map(({ uncovered, claimed }) => [uncovered, claimed])).toEqual([
    [0, 0],
    [0, 0],
  ]);
});
