/** What must be true of every request: one end, honest text from one node, in time; whole where nothing is broken. */

import type { AnswerEnd, Served } from '../gateway/service.ts';
import type { ErrorCode, HelixFlowError } from '../protocol/errors.ts';
import type { KeyId, PeerId, RequestId } from '../protocol/ids.ts';
import type { ChatRequest } from '../protocol/messages/chat.ts';
import { expectedTokens } from './engine.ts';

/** A promise that was broken in a run. */
export interface Violation {
  readonly atMs: number;
  readonly check: string;
  readonly detail: string;
}

/** `calm` and `probe` requests must succeed; those of `faults` may fail, in the ways that are honest then. */
export type Phase = 'calm' | 'faults' | 'probe';

/** How a request ended, as its client sees it. */
export type Outcome =
  | { readonly kind: 'done' }
  | { readonly kind: 'failed'; readonly code: ErrorCode }
  | { readonly kind: 'cancelled' }
  /** The gateway died under it. */
  | { readonly kind: 'lost' };

export interface RequestFacts {
  readonly number: number;
  readonly id: RequestId;
  readonly phase: Phase;
  readonly gateway: string;
  /** With which it came. */
  readonly key?: KeyId;
  readonly chat: ChatRequest;
  readonly startMs: number;
  readonly deadlineMs: number;
  /** From the start to first content, or to the end where there is none. */
  readonly beginWithinMs: number;
  /** Between two pieces; absent: whatever it takes. */
  readonly gapWithinMs?: number;
  /** What its client may be told while parts of the mesh are broken. */
  readonly mayFail: readonly ErrorCode[];
}

/** After its deadline a request has ended, give or take a turn. */
const lateMs = 1_000;

/** One request, watched from its client's side. */
export class WatchedRequest {
  readonly facts: RequestFacts;
  readonly #violate: (check: string, detail: string) => void;
  readonly #now: () => number;
  #served: Served | undefined;
  #text = '';
  #deltas = 0;
  #outcome: Outcome | undefined;
  #endMs: number | undefined;
  /** When it last heard anything of the answer. */
  #heardMs: number | undefined;
  #gapMs = 0;
  #told: AnswerEnd | undefined;

  constructor(facts: RequestFacts, now: () => number, violate: (check: string, detail: string) => void) {
    this.facts = facts;
    this.#now = now;
    this.#violate = (check, detail) => violate(check, `request ${facts.number} at ${facts.gateway}: ${detail}`);
  }

  get outcome(): Outcome | undefined {
    return this.#outcome;
  }

  get endMs(): number | undefined {
    return this.#endMs;
  }

  /** What its client was told at the end of a whole answer. */
  get end(): AnswerEnd | undefined {
    return this.#told;
  }

  get servedBy(): PeerId | undefined {
    return this.#served?.node;
  }

  get text(): string {
    return this.#text;
  }

  committed(served: Served): void {
    this.#mustBeOpen('committed');
    if (this.#served !== undefined) this.#violate('one node', `committed twice`);
    this.#served = served;
    this.#mustHaveBegun();
  }

  /** The longest time between two pieces. */
  get gapMs(): number {
    return this.#gapMs;
  }

  delta(text: string): void {
    this.#mustBeOpen('a delta');
    this.#heard();
    if (this.#served === undefined) this.#violate('one node', 'text before it was known who serves');
    this.#text += text;
    this.#deltas += 1;
    if (!this.#expected().startsWith(this.#text)) {
      this.#violate('honest text', `after ${this.#deltas} deltas the text is not what its node generates`);
    }
  }

  done(end: AnswerEnd): void {
    this.#heard();
    this.#end({ kind: 'done' });
    this.#told = end;
    const { nodes, node, splices } = end.served;
    if (nodes[0] !== this.#served?.node) this.#violate('one node', 'begun by another than it says');
    if (nodes.length > splices + 1) this.#violate('one node', `${nodes.length} nodes and ${splices} splices`);
    if (nodes.at(-1) !== node) this.#violate('one node', 'ended by another than it says');
    this.#served = end.served;
    if (this.#text !== this.#expected()) this.#violate('whole answer', `done after ${this.#text.length} characters`);
    const { maxTokens } = this.facts.chat;
    const full = this.#tokens().length;
    const finish = maxTokens !== undefined && maxTokens <= full ? 'length' : 'stop';
    const tokens = Math.min(full, maxTokens ?? full);
    if (end.finish !== finish) this.#violate('whole answer', `it says ${end.finish} and means ${finish}`);
    if (end.completionTokens !== tokens) {
      this.#violate('honest counts', `${end.completionTokens} tokens are billed for ${tokens}`);
    }
  }

  failed(error: HelixFlowError): void {
    this.#end({ kind: 'failed', code: error.code });
    if (this.facts.phase !== 'faults') {
      this.#violate('nothing fails without a fault', `${error.code} in phase ${this.facts.phase}`);
    } else if (!this.facts.mayFail.includes(error.code)) this.#violate('honest failure', error.code);
    const isInterrupted = error.code === 'STREAM_INTERRUPTED' || error.code === 'DEADLINE_EXCEEDED';
    if (this.#served !== undefined && !isInterrupted) {
      this.#violate('honest failure', `${error.code} after the answer had begun`);
    }
  }

  cancelled(): void {
    this.#end({ kind: 'cancelled' });
  }

  /** Its gateway died: the client sees a broken connection. */
  lost(): void {
    this.#end({ kind: 'lost' });
  }

  /** Called at the end of a run, and whenever one likes. */
  checkEnded(): void {
    const { startMs, deadlineMs } = this.facts;
    if (this.#outcome === undefined && this.#now() > startMs + deadlineMs + lateMs) {
      this.#violate('one end', 'no end came in time');
    }
  }

  #end(outcome: Outcome): void {
    this.#mustBeOpen(outcome.kind);
    this.#outcome ??= outcome;
    this.#endMs ??= this.#now();
    if (this.#served === undefined && outcome.kind === 'failed') this.#mustHaveBegun();
    const tookMs = this.#now() - this.facts.startMs;
    if (tookMs > this.facts.deadlineMs + lateMs) this.#violate('in time', `it took ${Math.round(tookMs)} ms`);
  }

  #heard(): void {
    const nowMs = this.#now();
    const gapMs = nowMs - (this.#heardMs ?? nowMs);
    this.#heardMs = nowMs;
    this.#gapMs = Math.max(this.#gapMs, gapMs);
    const { gapWithinMs = Number.POSITIVE_INFINITY } = this.facts;
    if (gapMs > gapWithinMs) this.#violate('goes on in time', `nothing came for ${Math.round(gapMs)} ms`);
  }

  #mustHaveBegun(): void {
    const waitedMs = this.#now() - this.facts.startMs;
    if (waitedMs > this.facts.beginWithinMs) this.#violate('begun in time', `after ${Math.round(waitedMs)} ms`);
  }

  #mustBeOpen(what: string): void {
    if (this.#outcome !== undefined) this.#violate('one end', `${what} after ${this.#outcome.kind}`);
  }

  #tokens(): readonly string[] {
    return expectedTokens(this.facts.chat, '');
  }

  #expected(): string {
    return this.#tokens().slice(0, this.facts.chat.maxTokens).join('');
  }
}

/** How the requests of a run ended. */
export interface RequestCounts {
  readonly total: number;
  readonly done: number;
  readonly cancelled: number;
  /** Their gateway died. */
  readonly lost: number;
  readonly failed: Readonly<Partial<Record<ErrorCode, number>>>;
  /** Whole answers that another node went on with, and the longest times that nothing came of them. */
  readonly spliced: { readonly count: number; readonly gapMedianMs: number; readonly gapMaxMs: number };
}

export function countRequests(requests: readonly WatchedRequest[]): RequestCounts {
  const of = (kind: Outcome['kind']): number => requests.filter(({ outcome }) => outcome?.kind === kind).length;
  const failed: Partial<Record<ErrorCode, number>> = {};
  for (const { outcome } of requests) {
    if (outcome?.kind === 'failed') failed[outcome.code] = (failed[outcome.code] ?? 0) + 1;
  }
  const gaps = requests
    .filter(({ end }) => (end?.served.splices ?? 0) > 0)
    .map(({ gapMs }) => Math.round(gapMs))
    .sort((a, b) => a - b);
  const spliced = {
    count: gaps.length,
    gapMedianMs: gaps[Math.floor(gaps.length / 2)] ?? 0,
    gapMaxMs: gaps.at(-1) ?? 0,
  };
  return { total: requests.length, done: of('done'), cancelled: of('cancelled'), lost: of('lost'), failed, spliced };
}
