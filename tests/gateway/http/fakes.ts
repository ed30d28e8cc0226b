/** A scripted service behind a real app: what it was asked, and what its caller did with the answer. */

import type { FastifyInstance } from 'fastify';
import type { KeyChecker } from '../../../gateway/access/keys.ts';
import type { Rate } from '../../../gateway/access/subject.ts';
import { createGatewayApp } from '../../../gateway/http/app.ts';
import type { RequestRecord } from '../../../gateway/http/exchange.ts';
import { type GatewayAppDeps, type GatewayAppOptions, gatewayAppDefaults } from '../../../gateway/http/options.ts';
import { createIdempotency, type Idempotency } from '../../../gateway/idempotency.ts';
import type {
  Answer,
  AnswerEnd,
  AnswerEvents,
  ChatCall,
  GatewayService,
  ListedModel,
  Served,
} from '../../../gateway/service.ts';
import type { Audit } from '../../../ledger/audit.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { ModelDigest, PeerId } from '../../../protocol/ids.ts';
import type { Log, LogFields, Random } from '../../../protocol/ports.ts';
import { accessOf } from '../../support/access.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import { quietLog } from '../../support/pair-of-sessions.ts';

export const goodKey = 'sk-hx-good';
export const digest = 'ab'.repeat(32) as ModelDigest;
export const otherDigest = 'cd'.repeat(32) as ModelDigest;
const node = '12D3KooWNodeNodeNode' as PeerId;
export const served: Served = { node, digest, attempts: 2, nodes: [node], splices: 0 };
export const end: AnswerEnd = { finish: 'stop', promptTokens: 7, cachedTokens: 3, completionTokens: 2, served };

export const listed = (name: string, more: Partial<ListedModel> = {}): ListedModel => ({
  name,
  digest,
  contextTokens: 4_096,
  nodes: 2,
  otherDigests: [],
  firstSeenS: 1_700_000_000,
  ...more,
});

/** One call as the service saw it. */
export class FakeCall implements Answer {
  readonly call: ChatCall;
  readonly events: AnswerEvents;
  readonly rate: Rate | undefined;
  consumedBytes = 0;
  isBilled = false;
  isCancelled = false;

  constructor(call: ChatCall, events: AnswerEvents, rate?: Rate) {
    this.rate = rate;
    this.call = call;
    this.events = events;
  }

  cancel(): void {
    this.isCancelled = true;
  }

  consumed(bytes: number): void {
    this.consumedBytes += bytes;
  }
}

type Script = (call: FakeCall) => void;

export const answering =
  (...texts: readonly string[]): Script =>
  ({ events }) => {
    events.committed(served);
    for (const text of texts) events.delta(text);
    events.done(end);
  };

export const failing =
  (error: HelixFlowError): Script =>
  ({ events }) =>
    events.failed(error);

export const silent: Script = () => {};

export class FakeService implements GatewayService {
  readonly calls: FakeCall[] = [];
  listed: readonly ListedModel[] = [listed('helix-tiny')];
  isReady = true;
  nodes = 1;
  script: Script = answering('Hello', ' world');
  /** What every key is said to have left. */
  rate: Rate | undefined;

  rateOf(): Rate | undefined {
    return this.rate;
  }

  models(): readonly ListedModel[] {
    return this.listed;
  }

  chat(call: ChatCall, events: AnswerEvents): Answer {
    const fake = new FakeCall(call, events, this.rate);
    this.calls.push(fake);
    setImmediate(() => this.script(fake));
    return fake;
  }

  readiness(): { ready: boolean; degraded: boolean; nodes: number } {
    return { ready: this.isReady, degraded: this.nodes === 0, nodes: this.nodes };
  }
}

/** Knows `goodKey` at once, `sk-hx-slow` after a while, `sk-hx-tiny` for `helix-*` only, `sk-hx-old` as expired. */
export const fakeKeys: KeyChecker = {
  check: (token) => {
    if (token === goodKey) return accessOf();
    if (token === 'sk-hx-tiny') return accessOf({ models: ['helix-*'] });
    if (token === 'sk-hx-slow') return Promise.resolve(accessOf());
    if (token === 'sk-hx-wrong-slow') return Promise.reject(new HelixFlowError('KEY_INVALID', {}));
    throw new HelixFlowError(token === 'sk-hx-old' ? 'KEY_EXPIRED' : 'KEY_INVALID', {});
  },
};

function countingRandom(): Random {
  let next = 0;
  const random: Random = {
    int: () => 0,
    float: () => 0,
    bytes: (count) => Uint8Array.from({ length: count }, () => next++ & 0xff),
    fork: () => random,
  };
  return random;
}

export interface Logged {
  readonly event: string;
  readonly fields: LogFields | undefined;
  readonly error: unknown;
}

export function recordingLog(lines: Logged[]): Log {
  const write = (event: string, fields?: LogFields, error?: unknown): void => {
    lines.push({ event, fields, error });
  };
  const log: Log = { debug: write, info: write, warn: write, error: write, with: () => log };
  return log;
}

/** Keys of idempotency over a store in memory, ready. */
export function openIdempotency(clock: ManualClock, store = new MemoryStore()): Idempotency {
  const idempotency = createIdempotency({ store, clock, log: quietLog });
  idempotency.open();
  return idempotency;
}

export interface Fixture extends AsyncDisposable {
  readonly app: FastifyInstance;
  readonly service: FakeService;
  readonly clock: ManualClock;
  readonly records: RequestRecord[];
  readonly lines: Logged[];
}

/** An app over a fake service, with TLS if it is given one. The clock moves only by hand. */
export function openApp(
  options: Partial<GatewayAppOptions> = {},
  {
    store = new MemoryStore(),
    ...door
  }: Pick<GatewayAppDeps, 'tls'> & { readonly store?: MemoryStore; readonly audit?: Audit } = {},
): Fixture {
  const service = new FakeService();
  const clock = new ManualClock();
  const records: RequestRecord[] = [];
  const lines: Logged[] = [];
  const observer = { finished: (record: RequestRecord) => void records.push(record) };
  const app = createGatewayApp(
    {
      service,
      idempotency: openIdempotency(clock, store),
      keys: fakeKeys,
      clock,
      random: countingRandom(),
      log: recordingLog(lines),
      observers: [observer],
      ...door,
    },
    { ...gatewayAppDefaults, ...options },
  );
  return { app, service, clock, records, lines, [Symbol.asyncDispose]: () => app.close() };
}

export const authorized = { authorization: `Bearer ${goodKey}` };
export const userMessage = { role: 'user', content: 'Hi' };

/** The smallest good body, and more. */
export const chatBody = (more: object = {}): Record<string, unknown> => ({
  model: 'helix-tiny',
  messages: [userMessage],
  ...more,
});

/** The data of every event of a stream, parsed; `[DONE]` as it is. */
export const eventsOf = (text: string): unknown[] =>
  text
    .split('\n\n')
    .filter((block) => block.startsWith('data: '))
    .map((block) => block.slice('data: '.length))
    .map((data) => (data === '[DONE]' ? data : JSON.parse(data)));
