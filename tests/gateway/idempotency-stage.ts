/** Idempotency keys over a store in memory, with the service's and the clients' sides in the test's hands. */

import {
  createIdempotency,
  type Idempotency,
  type IdempotencyBounds,
  type IdempotentAsk,
} from '../../gateway/idempotency.ts';
import type { SharedRun } from '../../gateway/idempotency-run.ts';
import type { Answer, AnswerEnd, AnswerEvents, Served } from '../../gateway/service.ts';
import { type HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest, PeerId, RequestId } from '../../protocol/ids.ts';
import { accessOf } from '../support/access.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { quietLog } from '../support/pair-of-sessions.ts';

const node = '12D3KooWNode' as PeerId;
const digest = 'ab'.repeat(32) as ModelDigest;
const served: Served = { node, digest, attempts: 1, nodes: [node], splices: 0 };
export const end: AnswerEnd = { finish: 'stop', promptTokens: 1, cachedTokens: 0, completionTokens: 2, served };

/** What somebody heard, and their side of it. */
export class Ear implements AnswerEvents {
  readonly heard: unknown[] = [];
  answer: Answer | undefined;

  committed(): void {
    this.heard.push('committed');
  }

  delta(text: string): void {
    this.heard.push(text);
  }

  restarted(): void {
    this.heard.push('restarted');
  }

  done(): void {
    this.heard.push('done');
  }

  failed({ code }: HelixFlowError): void {
    this.heard.push(code);
  }
}

/** The service's side of a run. */
export class Work implements Answer {
  readonly rate = undefined;
  readonly events: AnswerEvents;
  isBilled = false;
  isCancelled = false;
  consumedBytes = 0;

  constructor(events: AnswerEvents) {
    this.events = events;
  }

  cancel(): void {
    this.isCancelled = true;
  }

  consumed(bytes: number): void {
    this.consumedBytes += bytes;
  }

  say(...texts: readonly string[]): void {
    this.isBilled = true;
    this.events.committed(served);
    for (const text of texts) this.events.delta(text);
  }
}

export class Stage {
  readonly clock = new ManualClock();
  readonly store: MemoryStore;
  readonly keys: Idempotency;
  readonly works: Work[] = [];
  #requests = 0;

  constructor(store = new MemoryStore(), bounds?: IdempotencyBounds) {
    this.store = store;
    this.keys = createIdempotency({ store, clock: this.clock, log: quietLog }, bounds);
    this.keys.open();
  }

  claim(more: Partial<IdempotentAsk> = {}): ReturnType<Idempotency['claim']> {
    this.#requests += 1;
    const request = this.#requests.toString(16).padStart(32, '0') as RequestId;
    return this.keys.claim({ caller: accessOf(), key: 'k', body: 'b', request, ...more });
  }

  begin(run: SharedRun): Work {
    let work: Work | undefined;
    run.begin((events) => {
      work = new Work(events);
      return work;
    });
    this.works.push(work as Work);
    return work as Work;
  }

  join(run: SharedRun): Ear {
    const ear = new Ear();
    ear.answer = run.join(ear);
    return ear;
  }

  /** Asks as a client does: runs what is its to run, and listens. @returns what it was refused with, too. */
  async ask(more: Partial<IdempotentAsk> = {}): Promise<{ ear: Ear; work: Work | undefined; run: SharedRun }> {
    const { run, isFirst } = await this.claim(more);
    const work = isFirst ? this.begin(run) : undefined;
    const ear = this.join(run);
    await this.clock.turn();
    return { ear, work, run };
  }

  async refusal(more: Partial<IdempotentAsk> = {}): Promise<unknown> {
    try {
      return await this.claim(more);
    } catch (error) {
      return isHelixFlowError(error) ? [error.code, error.details] : error;
    }
  }
}

export const gone = (request: number): unknown => [
  'IDEMPOTENCY_GONE',
  { request: request.toString(16).padStart(32, '0') },
];
