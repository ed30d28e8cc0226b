/** Both ends of a tab, a gateway's and a node's, over crashes of either: an honest pair never disagrees. */

import { test } from 'vitest';
import { attemptName } from '../../ledger/line.ts';
import { createNodeTabs } from '../../ledger/node-tabs.ts';
import type { NodeTabs, WorkLink } from '../../ledger/work.ts';
import { nothingCounted } from '../../protocol/counting.ts';
import { SimRandom } from '../../sim/random.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { Disk, DiskStore, silentLog } from './feed-stage.ts';
import {
  ended,
  GatewayStage,
  gatewayPeer,
  linesOf,
  meshId,
  NodeStage,
  startAt,
  wholeEnd,
} from './gateway-tab-stage.ts';

class TwoEnds {
  readonly node = new NodeStage('both');
  readonly nodeDisk = new Disk();
  readonly gatewayDisk = new Disk();
  readonly answered: string[] = [];
  gateway!: GatewayStage;
  work!: NodeTabs;
  nodeClock!: ManualClock;
  #link: WorkLink | undefined;
  #attempts = 0;
  #lives = 0;
  #passedMs = 0;

  async bootGateway(): Promise<void> {
    this.#lives += 1;
    const [store, clock] = [new DiskStore(this.gatewayDisk), await this.#clock()];
    this.gateway = await GatewayStage.open({ store, clock, run: `life ${this.#lives}` });
    await this.link();
  }

  async bootNode(): Promise<void> {
    const { key, peer: self } = this.node;
    const store = new DiskStore(this.nodeDisk);
    this.nodeClock = await this.#clock();
    this.work = createNodeTabs(
      {
        clock: this.nodeClock,
        store,
        log: silentLog,
        ledger: { report: async () => {} },
        prices: { byId: () => undefined, allows: () => true },
      },
      { meshId, self, key },
    );
    await this.work.open();
    await this.link();
  }

  /** A process of its own, at the same time of the day. */
  async #clock(): Promise<ManualClock> {
    const clock = new ManualClock();
    await clock.advance(this.#passedMs);
    return clock;
  }

  async link(): Promise<void> {
    const { gateway, work, node } = this;
    if (gateway === undefined || work === undefined) return;
    if (this.#link !== undefined) work.gone(this.#link);
    const link: WorkLink = {
      peer: gatewayPeer,
      sendTab: (frame) => {
        if (this.gateway === gateway && this.work === work) gateway.tabs.received(node.peer, frame);
        return true;
      },
    };
    this.#link = link;
    work.ready(link);
    gateway.tabs.ready({
      peer: node.peer,
      sendTab: (frame) => {
        if (this.gateway === gateway && this.work === work) work.received(link, frame);
        return true;
      },
    });
    await this.pass(50);
  }

  request(): void {
    this.#attempts += 1;
    const { gateway, work, node } = this;
    const start = startAt(node.peer, this.#attempts);
    const line = gateway.tabs.begin(start);
    const sent = { ...nothingCounted, tokens: 20, bytes: 80 };
    const open = work.begin({
      gateway: gatewayPeer,
      run: gateway.run,
      serial: line.serial,
      request: start.request,
      model: start.model,
      digest: start.digest,
      price: '',
      bodyBytes: 400,
      sent: () => sent,
      acknowledgedTokens: () => 20,
    });
    open.end({ kind: 'done', promptTokens: 100, cachedTokens: 10, completionTokens: 20 });
    void ended(line, wholeEnd()).then(() => this.answered.push(attemptName({ run: gateway.run, serial: line.serial })));
  }

  async pass(passMs: number): Promise<void> {
    this.#passedMs += passMs;
    await this.gateway.settle(4);
    await this.nodeClock?.advance(passMs);
    await this.gateway.clock.advance(passMs);
    await this.gateway.settle(8);
  }
}

for (const dies of ['gateway', 'node', 'both'] as const) {
  test(`every line is countersigned and none refused, however often it dies: ${dies}`, async ({ expect }) => {
    const ends = new TwoEnds();
    const random = new SimRandom(`both ends ${dies}`);
    await ends.bootGateway();
    await ends.bootNode();
    for (let life = 0; life < 8; life += 1) {
      for (let wave = 0; wave < 5; wave += 1) {
        for (let count = random.int(30); count >= 0; count -= 1) ends.request();
        await ends.pass(random.int(800));
      }
      if (dies !== 'node') await ends.bootGateway();
      if (dies !== 'gateway') await ends.bootNode();
    }
    for (let at = 0; at < 6; at += 1) await ends.pass(1_000);
    const { statements, countersigns } = ends.gateway;
    const stated = linesOf(statements).map(attemptName);
    expect(countersigns.flatMap(({ refused }) => refused)).toEqual([]);
    expect(new Set(countersigns.map(({ epoch, number }) => `${epoch}/${number}`)).size).toBe(statements.length);
    expect([new Set(stated).size, ends.answered.filter((name) => !stated.includes(name))]).toEqual([stated.length, []]);
    expect(ends.gateway.tabs.status()[0]).toMatchObject({ unstated: 0, waiting: 0, unattested: 0 });
    expect(ends.work.status()[0]).toMatchObject({ refused: 0, claimed: 0 });
  });
}
