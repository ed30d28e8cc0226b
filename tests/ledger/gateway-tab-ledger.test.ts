/** Tabs over the real ledger on simulated machines: power cuts, backups, and what the other gateways hold in the end. */

import { test } from 'vitest';
import type { HeldEntry } from '../../ledger/feeds.ts';
import { createGatewayTabs } from '../../ledger/gateway-tabs.ts';
import { attemptName } from '../../ledger/line.ts';
import type { GatewayTabs } from '../../ledger/tabs.ts';
import type { ProcessId } from '../../protocol/ids.ts';
import { SimRandom } from '../../sim/random.ts';
import { NodeStage, startAt, wholeEnd } from './gateway-tab-stage.ts';
import { LedgerMesh, type Site } from './mesh-stage.ts';

/** Two gateways: the first holds the issuer's key and only listens, the second does the work. */
class Pair {
  readonly mesh: LedgerMesh;
  readonly node = new NodeStage('a');
  readonly answered = new Set<string>();
  /** Attempts as statements at the first gateway name them, in the order in which they were heard. */
  readonly heard: string[] = [];
  listener!: Site;
  worker!: Site;
  tabs!: GatewayTabs;
  #runs = 0;

  private constructor(mesh: LedgerMesh) {
    this.mesh = mesh;
    mesh.onBoot = (site) => this.#boot(site);
  }

  static async open(seed: number): Promise<Pair> {
    const pair = new Pair(await LedgerMesh.create(seed));
    pair.listener = await pair.mesh.addIssuer();
    pair.worker = await pair.mesh.add('gateway');
    await pair.#opened();
    return pair;
  }

  #boot(site: Site): void {
    if (this.listener === undefined) site.ledger.onEntry((held) => this.#hear(held));
    else {
      this.#runs += 1;
      const run = this.#runs.toString(16).padStart(32, '0') as ProcessId;
      const { ports, ledger, peer } = site;
      this.tabs = createGatewayTabs({ ...ports, ledger }, { meshId: this.mesh.mesh.mesh.meshId, self: peer, run });
    }
  }

  #hear({ entry }: HeldEntry): void {
    if (entry.kind === 'statement') this.heard.push(...entry.lines.map(attemptName));
  }

  async #opened(): Promise<void> {
    await this.mesh.run(this.tabs.open());
    await this.mesh.link(this.worker, this.listener);
  }

  async reboot(): Promise<void> {
    await this.mesh.boot(this.worker);
    await this.#opened();
  }

  work(count: number): void {
    const { tabs, answered } = this;
    for (let at = 0; at < count; at += 1) {
      const line = tabs.begin(startAt(this.node.peer, `${this.#runs} ${at}`));
      const name = attemptName({ run: tabs.run, serial: line.serial });
      line.end(wholeEnd(), (error) => {
        if (error === undefined) answered.add(name);
      });
    }
  }

  get check() {
    const heard = new Set(this.heard);
    return {
      lost: [...this.answered].filter((name) => !heard.has(name)),
      twice: this.heard.filter((name, at) => this.heard.indexOf(name) !== at),
    };
  }
}

test('power cuts at any moment lose no answered line and state none twice, as all gateways see it', {
  timeout: 60_000,
}, async ({ expect }) => {
  let lines = 0;
  for (let seed = 1; seed <= 8; seed += 1) {
    const pair = await Pair.open(seed);
    const random = new SimRandom(`cuts ${seed}`);
    for (let life = 0; life < 6; life += 1) {
      for (let wave = 0; wave < 4; wave += 1) {
        pair.work(1 + random.int(40));
        await pair.mesh.pass(random.int(900));
      }
      pair.mesh.kill(pair.worker);
      await pair.reboot();
    }
    await pair.mesh.pass(20_000);
    lines += pair.answered.size;
    expect([seed, pair.check]).toEqual([seed, { lost: [], twice: [] }]);
    await pair.mesh[Symbol.asyncDispose]();
  }
  expect(lines).toBeGreaterThan(2_000);
});

test('a backup that lacks what was stated since hears of it before it states anything', async ({ expect }) => {
  const pair = await Pair.open(3);
  await using _mesh = pair.mesh;
  pair.work(20);
  await pair.mesh.pass(3_000);
  pair.work(10);
  await pair.mesh.pass(100);
  const backup = pair.worker.machine.disk.backup();
  await pair.mesh.pass(3_000);
  pair.work(5);
  await pair.mesh.pass(3_000);
  pair.mesh.kill(pair.worker);
  pair.worker.machine.disk.restore(backup);
  await pair.reboot();
  pair.work(5);
  await pair.mesh.pass(20_000);
  expect([pair.heard.length, pair.check]).toEqual([40, { lost: [], twice: [] }]);
});

for (const fault of ['full', 'write', 'sync'] as const) {
  test(`a disk that fails (${fault}) ends all new work before it is served, and no line is lost that was answered`, async ({
    expect,
  }) => {
    const pair = await Pair.open(5);
    await using _mesh = pair.mesh;
    const { faults } = pair.worker.machine.disk;
    pair.work(30);
    await pair.mesh.pass(2_500);
    pair.work(7);
    await pair.mesh.pass(50);
    if (fault === 'full') faults.isFull = true;
    else faults.failNext = fault;
    pair.work(9);
    await pair.mesh.pass(50);
    expect([pair.answered.size, pair.tabs.refusal()?.code]).toEqual([37, 'USAGE_UNRECORDED']);
    faults.isFull = false;
    pair.work(9);
    await pair.mesh.pass(3_000);
    expect([pair.answered.size, pair.tabs.refusal()?.code]).toEqual([37, 'USAGE_UNRECORDED']);
    pair.mesh.kill(pair.worker);
    await pair.reboot();
    expect(pair.tabs.refusal()).toBe(undefined);
    pair.work(3);
    await pair.mesh.pass(20_000);
    expect([pair.answered.size, pair.check]).toEqual([40, { lost: [], twice: [] }]);
  });
}

test('a gateway that is alone states its lines when nobody has answered for long', async ({ expect }) => {
  const pair = await Pair.open(4);
  await using _mesh = pair.mesh;
  pair.work(20);
  await pair.mesh.pass(3_000);
  pair.mesh.kill(pair.worker);
  pair.mesh.kill(pair.listener);
  await pair.mesh.boot(pair.worker);
  await pair.mesh.run(pair.tabs.open());
  pair.work(300);
  await pair.mesh.pass(5_000);
  expect([pair.tabs.status()[0]?.unstated, pair.tabs.refusal()]).toEqual([300, undefined]);
  await pair.mesh.pass(10_000);
  expect(pair.tabs.status()[0]).toMatchObject({ unstated: 0, statements: 2, lines: 300 });
});
