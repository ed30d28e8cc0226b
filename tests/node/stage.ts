/** A node's server and one gateway's session with it, over a channel in memory: what is opened, what comes back, what it says of its load. */

import type { OpenWork, WorkStart } from '../../ledger/work.ts';
import { createNodeServer, type NodeServer, type ServerOptions } from '../../node/serve.ts';
import type { HelixFlowError } from '../../protocol/errors.ts';
import type { PeerId, ProcessId, Tag } from '../../protocol/ids.ts';
import { type ChatRequest, encodeChatRequest } from '../../protocol/messages/chat.ts';
import { ourLimits } from '../../protocol/messages/hello.ts';
import { encodeResume } from '../../protocol/messages/resume.ts';
import type { Cancelled, Done, Load } from '../../protocol/messages/session.ts';
import type { Resume } from '../../protocol/ports.ts';
import type { SessionEvents } from '../../protocol/session/events.ts';
import type { Attempt } from '../../protocol/session/outgoing.ts';
import { Session } from '../../protocol/session/session.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import { channelPair } from '../support/channels.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { quietLog } from '../support/pair-of-sessions.ts';
import { ScriptedEngine } from '../support/scripted-engine.ts';
import { requestOf } from '../support/sessions.ts';

/** One attempt as its gateway sees it. */
export interface SeenAttempt {
  readonly texts: string[];
  /** `done` or an error's code; at most one. */
  readonly ends: string[];
  readonly errors: HelixFlowError[];
  readonly said: (Cancelled | Done | undefined)[];
  readonly attempt: Attempt;
  cancel(): void;
}

interface Asking {
  readonly account: string;
  readonly chat: Partial<ChatRequest>;
  readonly resume: Resume;
  /** In place of an encoded `resume`. */
  readonly resumeBytes: Uint8Array;
  readonly deadlineMs: Ms;
}

/** Sixteen hex digits that begin with `name`. */
export const tag = (name: string): Tag => Buffer.from(name.padEnd(8)).toString('hex') as Tag;

const quiet: SessionEvents = {
  tab: () => {},
  started: () => {},
  opened: () => {},
  changed: () => {},
  gateways: () => {},
  suspected: () => {},
  offered: () => {},
  left: () => {},
  closed: () => {},
};

export class NodeStage {
  readonly clock = new ManualClock();
  readonly engine: ScriptedEngine;
  readonly server: NodeServer;
  readonly gateway: Session;
  readonly link: ReturnType<typeof channelPair> = channelPair('12D3KooWNode' as PeerId, '12D3KooWGateway' as PeerId);
  /** What the tab was told of each attempt. */
  readonly works: { readonly start: WorkStart; readonly ends: Parameters<OpenWork['end']>[0][] }[] = [];
  /** Each load that the gateway got, with the time. */
  readonly loads: (Load & { readonly atMs: number })[] = [];
  #serial = 0;

  constructor(engine = new ScriptedEngine(1), options: Partial<ServerOptions> = {}) {
    this.engine = engine;
    this.server = createNodeServer(
      {
        clock: this.clock,
        log: quietLog,
        tabs: {
          refusal: () => undefined,
          begin: (start) => {
            const work = { start, ends: [] as Parameters<OpenWork['end']>[0][] };
            this.works.push(work);
            return { end: (end) => void work.ends.push(end) };
          },
        },
      },
      { engines: [engine], queueMax: 4, owner: 'owner', hardware: 'test', ...options },
    );
    const shared = { start: { serial: 1, holds: [] }, limits: ourLimits };
    const process = '11'.repeat(16) as ProcessId;
    new Session(
      this.link.a,
      this.clock,
      { self: '12D3KooWNode' as PeerId, role: 'node', process, isOurs: true, ...shared },
      {
        ...quiet,
        started: (session) => this.server.ready(session),
        opened: (session, attempt) => this.server.opened(session, attempt),
        offered: (session, revision) => this.server.offered(session, revision),
        closed: (session) => this.server.gone(session),
      },
    );
    let seen: Load | undefined;
    this.gateway = new Session(
      this.link.b,
      this.clock,
      { self: '12D3KooWGateway' as PeerId, role: 'gateway', process, isOurs: false, ...shared },
      {
        ...quiet,
        changed: ({ load }) => {
          if (load !== undefined && load !== seen) this.loads.push({ ...load, atMs: this.clock.nowMs() });
          seen = load;
        },
      },
    );
    this.link.settle();
  }

  /** Opens an attempt; its frames have arrived, nothing that comes later has. */
  open(asking: Partial<Asking> = {}): SeenAttempt {
    const texts: string[] = [];
    const ends: string[] = [];
    const errors: HelixFlowError[] = [];
    const said: (Cancelled | Done | undefined)[] = [];
    const { account = 'a', chat, resume, deadlineMs = ms(60_000) } = asking;
    const body = encodeChatRequest({ messages: [{ role: 'user', content: 'hi' }], ...chat });
    const resumed = asking.resumeBytes ?? (resume && encodeResume(resume));
    this.#serial += 1;
    const attempt = this.gateway.open(
      {
        ...requestOf(body),
        ...(resumed === undefined ? {} : { resume: resumed }),
        account: tag(account),
        serial: this.#serial,
        deadlineMs,
      },
      {
        delta: ({ text }) => texts.push(text),
        done: () => ends.push('done'),
        failed: (error) => {
          errors.push(error);
          ends.push(error.code);
        },
      },
    );
    this.link.settle();
    return {
      texts,
      ends,
      errors,
      said,
      attempt,
      cancel: () => {
        attempt.cancel((word) => said.push(word));
        this.link.settle();
      },
    };
  }

  /** Lets everything that is under way arrive. */
  async settle(): Promise<void> {
    for (let round = 0; round < 3; round += 1) {
      await this.clock.turn();
      this.link.settle();
    }
  }

  /** Moves on in small steps, so that heartbeats are answered. */
  async pass(delayMs: number): Promise<void> {
    for (let left = delayMs; left > 0; left -= 50) {
      await this.clock.advance(Math.min(50, left));
      this.link.settle();
    }
  }

  /** The first running answer ends well. */
  async finish(): Promise<void> {
    this.engine.running[0]?.finish();
    await this.settle();
  }
}
