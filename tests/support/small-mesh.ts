/** One gateway service and some node servers over real sessions on channels in memory. */

import type { AccountingDeps } from '../../gateway/accounting.ts';
import { createGateway, type Gateway } from '../../gateway/gateway.ts';
import type { RoutePolicy } from '../../gateway/route/plan.ts';
import type { Answer, AnswerEnd, ChatCall, Served } from '../../gateway/service.ts';
import type { GatewayTabs } from '../../ledger/tabs.ts';
import type { NodeTabs } from '../../ledger/work.ts';
import { createNodeServer, type NodeServer } from '../../node/serve.ts';
import type { HelixFlowError } from '../../protocol/errors.ts';
import type { OwnerId, PeerId, ProcessId, RequestId } from '../../protocol/ids.ts';
import { ourLimits, type SharedLimits } from '../../protocol/messages/hello.ts';
import type { Random } from '../../protocol/ports.ts';
import { watchIntervalMs } from '../../protocol/session/heartbeat.ts';
import { Session } from '../../protocol/session/session.ts';
import { ms } from '../../protocol/units.ts';
import { accessOf } from './access.ts';
import { channelPair } from './channels.ts';
import { ManualClock } from './manual-clock.ts';
import { MemoryAccounting } from './memory-tabs.ts';
import { quietLog } from './pair-of-sessions.ts';
import { ScriptedEngine } from './scripted-engine.ts';

/** Always the first choice: tests that need another say so by load. */
const firstChoice: Random = {
  int: () => 0,
  float: () => 0,
  bytes: (count) => new Uint8Array(count),
  fork: () => firstChoice,
};

/** A node that takes work from anybody, and keeps no record of it. */
const noTabs: NodeBooks['tabs'] = {
  refusal: () => undefined,
  begin: () => ({ end: () => {} }),
  ready: () => {},
  gone: () => {},
  received: () => {},
};
const noGatewayTabs: Pick<GatewayTabs, 'ready' | 'gone' | 'received'> = {
  ready: () => {},
  gone: () => {},
  received: () => {},
};

/** A gateway that keeps tabs with its nodes. */
export interface GatewayBooks {
  readonly clock: ManualClock;
  readonly self: PeerId;
  readonly run: ProcessId;
  readonly accounting: AccountingDeps;
  readonly tabs: Pick<GatewayTabs, 'ready' | 'gone' | 'received'>;
}

/** A node that keeps tabs with its gateway. */
export interface NodeBooks {
  readonly peer: PeerId;
  readonly tabs: Pick<NodeTabs, 'refusal' | 'begin' | 'ready' | 'gone' | 'received'>;
}

export interface MeshNodeUnderTest {
  readonly peer: PeerId;
  readonly engine: ScriptedEngine;
  readonly server: NodeServer;
  readonly link: ReturnType<typeof channelPair>;
}

/** What a caller saw of one call. */
export interface SeenCall {
  readonly committed: Served[];
  readonly texts: string[];
  /** What became void, each time that the answer began again. */
  readonly voids: string[];
  readonly ends: (AnswerEnd | HelixFlowError)[];
  answer: Answer;
}

interface SmallMeshOptions {
  readonly policy?: Partial<RoutePolicy>;
  readonly waitingMax?: number;
  /** Attempts at a time on one session. */
  readonly sessionAttemptsMax?: number;
}

export class SmallMesh {
  readonly clock: ManualClock;
  readonly nodes: MeshNodeUnderTest[] = [];
  readonly accounting = new MemoryAccounting();
  readonly gateway: Gateway;
  isDiscoveryComplete = true;
  readonly #books: GatewayBooks | undefined;
  readonly #limits: SharedLimits;

  /** @param books Keeps account in place of `accounting`. */
  constructor(callsMax = 100, books?: GatewayBooks, options: SmallMeshOptions = {}) {
    this.#books = books;
    const { sessionAttemptsMax = ourLimits.sessionAttemptsMax } = options;
    this.#limits = { ...ourLimits, sessionAttemptsMax };
    this.clock = books?.clock ?? new ManualClock();
    const accounting = books?.accounting ?? this.accounting;
    this.gateway = createGateway(
      { clock: this.clock, random: firstChoice, log: quietLog, accounting },
      { isDiscoveryComplete: () => this.isDiscoveryComplete, callsMax, ...options },
    );
  }

  /** Adds a node with its session settled and its offer held. */
  add(engine = new ScriptedEngine(), owner = 'owner', queueMax = 2, books?: NodeBooks): MeshNodeUnderTest {
    return this.#join(
      engine,
      owner,
      queueMax,
      books ?? { peer: `12D3KooWNode${this.nodes.length}` as PeerId, tabs: noTabs },
    );
  }

  /** The node is there anew: with a new session, and what `engine` has. */
  back({ peer }: Pick<MeshNodeUnderTest, 'peer'>, engine: ScriptedEngine): MeshNodeUnderTest {
    return this.#join(engine, 'owner', 2, { peer, tabs: noTabs });
  }

  #join(engine: ScriptedEngine, owner: string, queueMax: number, { peer, tabs }: NodeBooks): MeshNodeUnderTest {
    const {
      self,
      run,
      tabs: ours = noGatewayTabs,
    } = this.#books ?? { self: '12D3KooWGateway' as PeerId, run: '22'.repeat(16) as ProcessId };
    const link = channelPair(peer, self);
    const server = createNodeServer(
      { clock: this.clock, log: quietLog, tabs },
      { engines: [engine], queueMax, owner, hardware: 'test' },
    );
    const start = { serial: 1, holds: [] };
    const shared = { start, limits: this.#limits };
    new Session(
      link.a,
      this.clock,
      { self: peer, role: 'node', process: '11'.repeat(16) as ProcessId, isOurs: true, ...shared },
      {
        started: (session) => {
          tabs.ready(session);
          server.ready(session);
        },
        opened: (session, attempt) => server.opened(session, attempt),
        changed: () => {},
        gateways: () => {},
        suspected: () => {},
        offered: (session, revision) => server.offered(session, revision),
        tab: (session, frame) => {
          if (frame.type === 'statement') tabs.received(session, frame);
        },
        left: (session) => server.gone(session),
        closed: (session) => {
          tabs.gone(session);
          server.gone(session);
        },
      },
    );
    new Session(
      link.b,
      this.clock,
      { self, role: 'gateway', process: run, isOurs: false, ...shared, idleMs: () => watchIntervalMs(1) },
      {
        started: (session) => {
          ours.ready(session);
          this.gateway.ready(session, owner as OwnerId);
        },
        opened: () => {},
        changed: (session) => this.gateway.changed(session),
        gateways: () => {},
        suspected: () => {},
        offered: () => {},
        tab: (session, frame) => {
          if (frame.type !== 'statement') ours.received(session.peer, frame);
        },
        left: (session) => this.gateway.gone(session),
        closed: (session) => {
          ours.gone(session);
          this.gateway.gone(session);
        },
      },
    );
    const node = { peer, engine, server, link };
    this.nodes.push(node);
    link.settle();
    return node;
  }

  /** Calls and lets everything settle. */
  async call(model = 'm', deadlineMs = 60_000, more: Partial<ChatCall> = {}): Promise<SeenCall> {
    const committed: Served[] = [];
    const texts: string[] = [];
    const voids: string[] = [];
    const ends: (AnswerEnd | HelixFlowError)[] = [];
    const call: ChatCall = {
      request: 'ab'.repeat(16) as RequestId,
      caller: accessOf(),
      model,
      chat: { messages: [{ role: 'user', content: 'hi' }] },
      deadlineMs: ms(deadlineMs),
      ...more,
    };
    const answer = this.gateway.chat(call, {
      committed: (served) => committed.push(served),
      delta: (text) => texts.push(text),
      restarted: () => voids.push(texts.splice(0).join('')),
      done: (end) => ends.push(end),
      failed: (error) => ends.push(error),
    });
    await this.settle();
    return { committed, texts, voids, ends, answer };
  }

  /** Lets time pass in steps that nobody takes for silence. */
  async pass(delayMs: number, stepMs = 100): Promise<void> {
    for (let left = delayMs; left > 0; left -= stepMs) {
      await this.clock.advance(Math.min(stepMs, left));
      await this.settle();
    }
  }

  async settle(): Promise<void> {
    for (let round = 0; round < 4; round += 1) {
      for (const { link } of this.nodes) link.settle();
      await this.clock.turn();
    }
  }
}

/** How each call ended: `done` or an error code. */
export const endsOf = (seen: SeenCall): string[] => seen.ends.map((end) => ('code' in end ? end.code : 'done'));
