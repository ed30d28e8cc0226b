/** How fast a model at a node has been for this gateway: running means of what attempts took. */

import type { Done } from '../protocol/messages/session.ts';
import type { Clock } from '../protocol/ports.ts';
import type { Ms } from '../protocol/units.ts';

/** Weight of the newest sample in a running mean. */
const meanWeight = 0.2;
/** A node that was slow once is tried again after this long: what was measured counts as unknown then. */
const knownMs = 60_000;
/** Fewer tokens tell more of the clock than of the engine. */
const tokensMin = 8;
/** Times travel as whole milliseconds. */
const roundingMs = 2;

const nextMean = (mean: number, sample: number): number =>
  Number.isFinite(sample) && sample >= 0 ? (mean === 0 ? sample : mean + meanWeight * (sample - mean)) : mean;

/** A whole answer: what its node told of it, and what this gateway measured. */
export interface Measured {
  readonly done: Pick<
    Done,
    'promptTokens' | 'cachedTokens' | 'completionTokens' | 'queueMs' | 'prefillMs' | 'decodeMs'
  >;
  readonly bodyBytes: number;
  readonly roundTripMs: number;
  /** From the attempt's start to its first content, and to its end. */
  readonly firstMs: Ms;
  readonly totalMs: Ms;
}

/** Of one model at one node. 0 is unknown. */
export class Speeds {
  readonly #clock: Clock;
  #overheadMs = 0;
  #overheadAtMs = 0;
  #prefillMsPerByte = 0;
  #prefillAtMs = 0;
  #tokenMs = 0;
  #tokenAtMs = 0;
  #answerMeanMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** To first content, beside queue, prefill and round trip. */
  get overheadMs(): number {
    return this.#knownSince(this.#overheadAtMs) ? this.#overheadMs : 0;
  }

  /** To compute one byte of a prompt. */
  get prefillMsPerByte(): number {
    return this.#knownSince(this.#prefillAtMs) ? this.#prefillMsPerByte : 0;
  }

  /** Between two tokens of one answer. */
  get tokenMs(): number {
    return this.#knownSince(this.#tokenAtMs) ? this.#tokenMs : 0;
  }

  /** An answer in its slot. */
  get answerMeanMs(): number {
    return this.#answerMeanMs;
  }

  /** What a node claims counts for its prefill and its queue only; what it left out of them shows in the overhead. */
  measured({ done, bodyBytes, roundTripMs, firstMs, totalMs }: Measured): void {
    const { promptTokens, completionTokens, queueMs, prefillMs, decodeMs } = done;
    const nowMs = this.#clock.nowMs();
    const freshTokens = promptTokens - done.cachedTokens;
    if (freshTokens >= tokensMin && promptTokens > 0) {
      const freshBytes = (bodyBytes * freshTokens) / promptTokens;
      this.#prefillMsPerByte = nextMean(this.prefillMsPerByte, prefillMs / freshBytes);
      this.#prefillAtMs = nowMs;
    }
    if (completionTokens >= tokensMin) {
      this.#tokenMs = nextMean(this.tokenMs, decodeMs / (completionTokens - 1));
      this.#tokenAtMs = nowMs;
    }
    // Who claims more than there was is believed nothing: else a slow node would look like one without any overhead.
    const isPossible = queueMs + prefillMs <= firstMs + roundingMs;
    const [waitedMs, claimedMs] = isPossible ? [queueMs, queueMs + prefillMs] : [0, 0];
    this.#answerMeanMs = nextMean(this.#answerMeanMs, Math.max(0, totalMs - waitedMs));
    this.#overheadMs = nextMean(this.overheadMs, Math.max(0, firstMs - claimedMs - roundTripMs));
    this.#overheadAtMs = nowMs;
  }

  /** First content has not come after so long: whoever is slow without end never tells of it. */
  late(elapsedMs: number): void {
    this.#overheadMs = Math.max(this.overheadMs, elapsedMs);
    this.#overheadAtMs = this.#clock.nowMs();
  }

  #knownSince(measuredMs: number): boolean {
    return this.#clock.nowMs() - measuredMs < knownMs;
  }
}
