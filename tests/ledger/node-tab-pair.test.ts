/** Tabs of a gateway and of a node, both real and both honest: whatever dies or is cut between them, they agree. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { AttemptEnd, OpenLine, TabLink } from '../../ledger/tabs.ts';
import type { WorkLink } from '../../ledger/work.ts';
import type { CountersignFrame, StatementFrame } from '../../protocol/messages/tab.ts';
import { ms } from '../../protocol/units.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { DiskStore } from './feed-stage.ts';
import { ended, GatewayStage, gatewayPeer, startAt, wholeEnd } from './gateway-tab-stage.ts';
import { doneWith, NodeStage, nodePeer, type StagedWork } from './node-tab-stage.ts';

interface Open {
  readonly line: OpenLine;
  readonly staged: StagedWork | undefined;
  received: number;
}

/** One gateway and one node, and the session between them. */
class Pair {
  readonly clock = new ManualClock();
  gateway!: GatewayStage;
  node!: NodeStage;
  #lives = 0;
  #isUp = false;
  #gatewayLink: TabLink | undefined;
  #nodeLink: WorkLink | undefined;
  #open: Open[] = [];
  #requests = 0;
  attempts = 0;

  async start(): Promise<this> {
    this.gateway = await GatewayStage.open({ clock: this.clock, run: `pair ${this.#lives}` });
    this.node = await NodeStage.open({ clock: this.clock });
    this.join();
    return this;
  }

  join(): void {
    if (this.#isUp) return;
    this.#isUp = true;
    const { gateway, node } = this;
    const session = { isOpen: true };
    // Frames take a turn, and are lost with their session.
    const later = (deliver: () => void): true => {
      void this.clock.turn().then(() => {
        if (session.isOpen && this.#isUp) deliver();
      });
      return true;
    };
    const nodeLink: WorkLink = {
      peer: gatewayPeer,
      peerProcess: gateway.run,
      sendTab: (frame) => later(() => gateway.tabs.received(nodePeer, frame as CountersignFrame)),
    };
    const gatewayLink: TabLink = {
      peer: nodePeer,
      sendTab: (frame: StatementFrame) => later(() => node.tabs.received(nodeLink, frame)),
    };
    this.#nodeLink = nodeLink;
    this.#gatewayLink = gatewayLink;
    this.#close = () => {
      session.isOpen = false;
    };
    node.tabs.ready(nodeLink);
    gateway.tabs.ready(gatewayLink);
  }

  #close = (): void => {};

  /** The session ends, and every attempt with it. */
  async cut(): Promise<void> {
    if (!this.#isUp) return;
    this.#isUp = false;
    this.#close();
    if (this.#nodeLink !== undefined) this.node.tabs.gone(this.#nodeLink);
    if (this.#gatewayLink !== undefined) this.gateway.tabs.gone(this.#gatewayLink);
    for (const open of this.#open.splice(0)) {
      open.staged?.work.end({ kind: 'cancelled', promptTokens: 100, completionTokens: open.staged.counted.tokens });
      await this.#write(open, { outcome: 'lost', promptTokens: 0, cachedTokens: 0, completionTokens: open.received });
    }
  }

  async #write({ line }: Open, end: Partial<AttemptEnd>): Promise<void> {
    const { nodeTokens: _, ...plain } = wholeEnd({ firstMs: ms(1) });
    await ended(line, { ...plain, ...end });
  }

  begin(): void {
    if (!this.#isUp || this.node.tabs.refusal(gatewayPeer) !== undefined) return;
    this.#requests += 1;
    this.attempts += 1;
    const start = startAt(nodePeer, this.#requests);
    const line = this.gateway.tabs.begin(start);
    const { model, digest, request } = start;
    const at = { peer: gatewayPeer, run: this.gateway.run } as Parameters<NodeStage['begin']>[0];
    this.#open.push({ line, staged: this.node.begin(at, line.serial, { model, digest, request }), received: 0 });
  }

  /** The oldest attempt comes further; the newest of its tokens are on their way. */
  send(tokens: number, onTheirWay: number): void {
    const open = this.#open[0];
    if (open?.staged === undefined) return;
    const sent = open.staged.counted.tokens + tokens;
    open.received = Math.max(open.received, sent - onTheirWay);
    open.staged.counted = { tokens: sent, bytes: 4 * sent, hasIds: true };
    open.staged.acknowledgedTokens = Math.max(open.staged.acknowledgedTokens, open.received - 3);
    open.line.received(open.received);
  }

  async end(how: 'done' | 'cancelled' | 'crossed' | 'failed'): Promise<void> {
    const open = this.#open.shift();
    if (open?.staged === undefined) return;
    const { tokens } = open.staged.counted;
    const { work } = open.staged;
    if (how === 'done' || how === 'crossed') work.end(doneWith(tokens));
    else if (how === 'cancelled') work.end({ kind: 'cancelled', promptTokens: 100, completionTokens: tokens });
    else work.end({ kind: 'failed' });
    const counts = { completionTokens: how === 'done' ? tokens : open.received, cachedTokens: how === 'done' ? 10 : 0 };
    const said = how === 'failed' ? { promptTokens: 0 } : { nodeTokens: tokens };
    await this.#write(open, { outcome: how === 'crossed' ? 'cancelled' : how, ...counts, ...said });
  }

  /** The gateway dies, and starts again from what it had synced. */
  async gatewayDies(): Promise<void> {
    this.#open = [];
    const { store } = this.gateway;
    await this.#leave();
    this.#lives += 1;
    this.gateway = await GatewayStage.open({
      clock: this.clock,
      run: `pair ${this.#lives}`,
      store: new DiskStore(store.disk.copy()),
    });
    this.join();
  }

  async nodeDies(): Promise<void> {
    const { store } = this.node;
    await this.#leave();
    this.node = await NodeStage.open({ clock: this.clock, store: new DiskStore(store.disk.copy()) });
    this.join();
  }

  async #leave(): Promise<void> {
    const open = this.#open.splice(0);
    await this.cut();
    for (const one of open) {
      await this.#write(one, { outcome: 'lost', promptTokens: 0, cachedTokens: 0, completionTokens: one.received });
    }
  }
}

type Step = readonly [kind: string, amount: number, more: number];

async function take(pair: Pair, [kind, amount, more]: Step): Promise<void> {
  if (kind === 'begin') pair.begin();
  else if (kind === 'send') pair.send(amount, more);
  else if (kind === 'wait') await pair.clock.advance(amount * 40);
  else if (kind === 'cut') await pair.cut();
  else if (kind === 'join') pair.join();
  else if (kind === 'gateway dies') await pair.gatewayDies();
  else if (kind === 'node dies') await pair.nodeDies();
  else await pair.end(kind as 'done');
}

const often = [
  'begin',
  'begin',
  'send',
  'send',
  'send',
  'wait',
  'done',
  'done',
  'cancelled',
  'crossed',
  'failed',
  'join',
];
const steps = fc.array(
  fc.tuple(
    fc.constantFrom(...often, ...often, 'cut', 'gateway dies', 'node dies'),
    fc.integer({ min: 1, max: 60 }),
    fc.nat(20),
  ),
  { minLength: 20, maxLength: 120 },
);

describe('an honest pair', () => {
  test('agrees on every line, whatever dies or is cut', { timeout: 120_000 }, async ({ expect }) => {
    let attempts = 0;
    await fc.assert(
      fc.asyncProperty(steps, async (all) => {
        const pair = await new Pair().start();
        for (const step of all) await take(pair, step);
        await pair.cut();
        pair.join();
        await pair.clock.advance(5_000);
        await pair.node.settle();
        await pair.clock.advance(40_000);
        await pair.node.settle();
        attempts += pair.attempts;
        const [told] = pair.gateway.tabs.status();
        const [kept] = pair.node.tabs.status();
        expect([told?.waiting ?? 0, told?.unstated ?? 0, told?.refused ?? 0, kept?.refused ?? 0]).toEqual([0, 0, 0, 0]);
        expect([kept?.uncovered ?? 0, pair.node.tabs.refusal(gatewayPeer)]).toEqual([0, undefined]);
      }),
      { numRuns: 150 },
    );
    console.info(`${attempts} attempts of honest pairs; lines refused: 0`);
  });
});
