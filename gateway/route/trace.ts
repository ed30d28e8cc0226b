/** What happened to a request and why: kept for the newest ones, written down as it happens, put into words when asked for. */

import type { ErrorCode } from '../../protocol/errors.ts';
import type { ModelDigest, PeerId, RequestId } from '../../protocol/ids.ts';
import type { Ms } from '../../protocol/units.ts';
import type { Refusal } from './candidates.ts';
import type { ChoiceReason } from './plan.ts';
import type { Score } from './score.ts';

/** A node that might have served, as it looked at that moment. */
export interface TracedCandidate {
  readonly peer: PeerId;
  readonly score: Score;
  readonly cachedBytes: number;
  readonly active: number;
  readonly queued: number;
}

/** What a new attempt is for. */
export type AttemptPurpose = 'first' | 'retry' | 'splice' | 'restart' | 'hedge';

/** One thing that happened, `atMs` after the request came. */
export type TraceStep =
  | {
      readonly kind: 'choice';
      readonly atMs: Ms;
      readonly purpose: AttemptPurpose;
      readonly chosen: PeerId | undefined;
      readonly reason: ChoiceReason | undefined;
      readonly candidates: readonly TracedCandidate[];
      readonly refusals: readonly Refusal[];
      /** Nodes of the group, also those that were not looked at. */
      readonly groupSize: number;
    }
  /** No node could take it: it waits. */
  | { readonly kind: 'waits'; readonly atMs: Ms; readonly ahead: number }
  | { readonly kind: 'attempt'; readonly atMs: Ms; readonly purpose: AttemptPurpose; readonly node: PeerId }
  | { readonly kind: 'content'; readonly atMs: Ms; readonly node: PeerId }
  | {
      readonly kind: 'failed';
      readonly atMs: Ms;
      readonly node: PeerId;
      readonly code: ErrorCode;
      readonly tokens: number;
    }
  /** An attempt was stopped by the gateway: a hedge that lost, or a client that left. `settledMs` later the slot was free, where the node told. */
  | {
      readonly kind: 'cancelled';
      readonly atMs: Ms;
      readonly node: PeerId;
      readonly why: 'hedge-lost' | 'client' | 'stalled' | 'deadline' | 'budget' | 'key';
      settledMs?: Ms | undefined;
    }
  | { readonly kind: 'done'; readonly atMs: Ms; readonly node: PeerId; readonly tokens: number }
  | { readonly kind: 'ended'; readonly atMs: Ms; readonly code: ErrorCode };

/** One request's story. */
export interface Trace {
  readonly request: RequestId;
  readonly model: string;
  readonly digest: ModelDigest | undefined;
  /** When it came, in ms since the epoch. */
  readonly startMs: number;
  readonly steps: readonly TraceStep[];
  /** Where steps were dropped: how many, and after how many of `steps`. */
  readonly dropped: { readonly count: number; readonly after: number };
}

/** Writes a story. Of more steps than are kept those in the middle are dropped. */
export interface TraceWriter {
  add(step: TraceStep): void;
}

/** The newest stories of one gateway. */
export interface Traces {
  begin(request: RequestId, model: string, digest: ModelDigest | undefined): TraceWriter;
  get(request: RequestId): Trace | undefined;
  /** The newest ones first, at most so many. */
  newest(count: number): readonly Trace[];
}

export interface TraceOptions {
  /** Requests that are remembered. */
  readonly tracesMax: number;
  /** Steps of each; more than `firstSteps`. */
  readonly stepsMax: number;
}

/** How a request began is kept whatever comes later. */
const firstSteps = 8;
/** Of one choice so many candidates are kept, and so many refusals; `groupSize` tells of the others. */
const nodesMax = 32;

/** Candidates and refusals of all choices of one story; later choices keep nothing but who was chosen. */
const rowsMax = 128;

const bounded = <Row>(rows: readonly Row[]): readonly Row[] =>
  rows.length > nodesMax ? rows.slice(0, nodesMax) : rows;

type Choice = Extract<TraceStep, { readonly kind: 'choice' }>;

/** One request's story as it is written. */
class Story implements TraceWriter {
  readonly request: RequestId;
  readonly model: string;
  readonly digest: ModelDigest | undefined;
  readonly startMs: number;
  readonly #stepsMax: number;
  readonly #steps: TraceStep[] = [];
  #dropped = 0;
  #rowsLeft = rowsMax;

  constructor(facts: Omit<Trace, 'steps' | 'dropped'>, stepsMax: number) {
    this.request = facts.request;
    this.model = facts.model;
    this.digest = facts.digest;
    this.startMs = facts.startMs;
    this.#stepsMax = stepsMax;
  }

  add(step: TraceStep): void {
    const kept = step.kind === 'choice' ? this.#bounded(step) : step;
    if (this.#steps.length < this.#stepsMax) {
      this.#steps.push(kept);
      return;
    }
    this.#steps[this.#oldest] = kept;
    this.#dropped += 1;
  }

  #bounded(step: Choice): Choice {
    const { chosen } = step;
    const isFull = this.#rowsLeft <= 0;
    const all = isFull ? step.candidates.filter(({ peer }) => peer === chosen) : step.candidates;
    const candidates = bounded(all);
    const refusals = isFull ? [] : bounded(step.refusals);
    this.#rowsLeft -= candidates.length + refusals.length;
    const isWhole = candidates === step.candidates && refusals === step.refusals;
    return isWhole ? step : { ...step, candidates, refusals };
  }

  told(): Trace {
    const { request, model, digest, startMs } = this;
    const [first, later] = [this.#steps.slice(0, firstSteps), this.#steps.slice(firstSteps)];
    const cut = this.#oldest - firstSteps;
    const steps = [...first, ...later.slice(cut), ...later.slice(0, cut)];
    return { request, model, digest, startMs, steps, dropped: { count: this.#dropped, after: first.length } };
  }

  /** The place of the oldest step beside the first ones, which is the next to be dropped. */
  get #oldest(): number {
    return firstSteps + (this.#dropped % (this.#stepsMax - firstSteps));
  }
}

/** A ring: to begin a story costs one place in a list; to look one up is for people, and rare. */
class Ring implements Traces {
  readonly #options: TraceOptions;
  readonly #wallMs: () => number;
  readonly #stories: Story[] = [];
  #begun = 0;

  constructor(options: TraceOptions, wallMs: () => number) {
    this.#options = options;
    this.#wallMs = wallMs;
  }

  begin(request: RequestId, model: string, digest: ModelDigest | undefined): TraceWriter {
    const { tracesMax, stepsMax } = this.#options;
    const story = new Story({ request, model, digest, startMs: this.#wallMs() }, stepsMax);
    this.#stories[this.#begun % tracesMax] = story;
    this.#begun += 1;
    return story;
  }

  newest(count: number): readonly Trace[] {
    const { length } = this.#stories;
    const places = Array.from({ length: Math.min(count, length) }, (_, back) => (this.#begun - 1 - back) % length);
    return places.flatMap((at) => this.#stories[at]?.told() ?? []);
  }

  get(request: RequestId): Trace | undefined {
    return this.#stories.find((story) => story.request === request)?.told();
  }
}

/** @param wallMs The time of day, in ms since the epoch. */
export const createTraces = (options: TraceOptions, wallMs: () => number): Traces => new Ring(options, wallMs);
