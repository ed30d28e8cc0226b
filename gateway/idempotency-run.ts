/** One run that several requests may share: whoever joins late hears all of it from the start, whoever leaves ends it for nobody else. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { RequestId } from '../protocol/ids.ts';
import { assert } from '../protocol/invariant.ts';
import type { Cancel, Clock } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import type { Rate } from './access/subject.ts';
import type { Answer, AnswerEnd, AnswerEvents, Served } from './service.ts';

/** One answer that is kept, at most. */
export const answerMaxBytes = 1_048_576;
/** What a run takes beside its text, about. */
export const runBytes = 1_024;
/** A client whose connection broke asks again within this time, as the official ones do; until then the work goes on. */
export const lingerMs = ms(2_000);

/** Whoever keeps runs. */
export interface RunOwner {
  readonly clock: Clock;
  /** The process ends: nobody who has left can come back. */
  readonly isDraining: boolean;
  /** Room for so many more bytes is needed. @returns false when there is none: the answer is not kept. */
  grew(run: SharedRun, bytes: number): boolean;
  /** The run is over. `isFree`: nothing of it may be charged, so that it may be run again. */
  ended(run: SharedRun, isFree: boolean): void;
}

interface Listener {
  readonly events: AnswerEvents;
  /** It has heard what was before it came. */
  isReady: boolean;
  consumedBytes: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const firstBytes = 4_096;

/** Text as it comes, without a string for every piece of it. */
class KeptText {
  #bytes = new Uint8Array(firstBytes);
  #length = 0;

  /** Bytes of memory. */
  get size(): number {
    return this.#bytes.length;
  }

  /** Bytes of memory once `text` is there, too; 0 when that is more than an answer may take. */
  sizeWith(text: string): number {
    const atMost = this.#length + 3 * text.length;
    if (atMost <= this.#bytes.length) return this.#bytes.length;
    const length = this.#length + encoder.encode(text).length;
    if (length > answerMaxBytes) return 0;
    return Math.min(answerMaxBytes, Math.max(2 * this.#bytes.length, 2 ** Math.ceil(Math.log2(length))));
  }

  add(text: string, size: number): void {
    if (size > this.#bytes.length) {
      const grown = new Uint8Array(size);
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#length += encoder.encodeInto(text, this.#bytes.subarray(this.#length)).written;
  }

  clear(): void {
    this.#length = 0;
  }

  /** Takes no more room than the text needs. */
  trim(): void {
    this.#bytes = this.#bytes.slice(0, this.#length);
  }

  toString(): string {
    return decoder.decode(this.#bytes.subarray(0, this.#length));
  }
}

/** How a run is known. */
export interface RunFacts {
  /** To its owner. */
  readonly name: string;
  /** The request that began it: its answer is known by that, to all who share it. */
  readonly request: RequestId;
  readonly createdS: number;
}

/** From the claim of its key until its answer is forgotten. */
export class SharedRun implements AnswerEvents {
  readonly name: string;
  readonly request: RequestId;
  readonly createdS: number;
  readonly #owner: RunOwner;
  readonly #listeners = new Set<Listener>();
  #hasBegun = false;
  /** Holds the whole request, so it goes when the work is over. */
  #answer: Answer | undefined;
  #isBilled = false;
  #text: KeptText | undefined = new KeptText();
  #served: Served | undefined;
  #end: AnswerEnd | undefined;
  #error: HelixFlowError | undefined;
  #isOver = false;
  /** Of the text, by whoever has taken the most. */
  #consumedBytes = 0;
  #cancelLinger: Cancel | undefined;

  constructor(owner: RunOwner, { name, request, createdS }: RunFacts) {
    this.#owner = owner;
    this.name = name;
    this.request = request;
    this.createdS = createdS;
  }

  /** Bytes of memory that its answer takes. */
  get size(): number {
    return this.#text === undefined ? 0 : runBytes + this.#text.size;
  }

  /** All of it can still be told. */
  get isKept(): boolean {
    return this.#text !== undefined;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Someone waits for it. */
  get isAwaited(): boolean {
    return this.#listeners.size > 0;
  }

  get rate(): Rate | undefined {
    return this.#answer?.rate;
  }

  /** Lets the work begin. */
  begin(serve: (events: AnswerEvents) => Answer): void {
    assert(!this.#hasBegun, 'a run begins once');
    this.#hasBegun = true;
    this.#answer = serve(this);
  }

  /** Ends one that never began. */
  abandon(): void {
    this.failed(new HelixFlowError('REQUEST_CANCELLED', {}));
  }

  /**
   * What was before, then what comes; in later turns.
   * @throws HelixFlowError IDEMPOTENCY_GONE when not all of it can be told any more.
   */
  join(events: AnswerEvents): Answer {
    if (!this.isKept && this.#error === undefined) {
      throw new HelixFlowError('IDEMPOTENCY_GONE', { request: this.request });
    }
    const listener: Listener = { events, isReady: false, consumedBytes: 0 };
    this.#listeners.add(listener);
    this.#cancelLinger?.();
    this.#cancelLinger = undefined;
    const text = this.#text;
    queueMicrotask(() => {
      if (this.#listeners.has(listener)) this.#tellSoFar(listener, text);
    });
    const run = this;
    return {
      rate: undefined,
      get isBilled() {
        return run.#answer?.isBilled ?? run.#isBilled;
      },
      cancel: () => this.#leave(listener),
      consumed: (bytes) => this.#consumed(listener, bytes),
    };
  }

  /** Its answer is told nobody from now on. */
  forget(): void {
    this.#text = undefined;
  }

  committed(served: Served): void {
    this.#served = served;
    for (const { events } of this.#ready()) events.committed(served);
  }

  delta(text: string): void {
    this.#keep(text);
    for (const { events } of this.#ready()) events.delta(text);
  }

  restarted(): void {
    this.#text?.clear();
    // Nobody has to take any more what is void, nor is what was taken of it any part of the answer.
    this.#consumedBytes = 0;
    for (const listener of this.#listeners) listener.consumedBytes = 0;
    for (const { events } of this.#ready()) events.restarted?.();
  }

  done(end: AnswerEnd): void {
    this.#end = end;
    this.#text?.trim();
    this.#over();
    for (const { events } of this.#take()) events.done(end);
  }

  failed(error: HelixFlowError): void {
    this.#error = error;
    this.#over();
    for (const { events } of this.#take()) events.failed(error);
  }

  #tellSoFar(listener: Listener, text: KeptText | undefined): void {
    const { events } = listener;
    listener.isReady = true;
    if (this.#served !== undefined) events.committed(this.#served);
    const soFar = text?.toString() ?? '';
    if (soFar !== '') events.delta(soFar);
    if (!this.#listeners.has(listener) || !this.#isOver) return;
    this.#listeners.delete(listener);
    if (this.#end !== undefined) events.done(this.#end);
    else if (this.#error !== undefined) events.failed(this.#error);
  }

  #keep(text: string): void {
    if (this.#text === undefined) return;
    const size = this.#text.sizeWith(text);
    if (size === 0 || (size > this.#text.size && !this.#owner.grew(this, size - this.#text.size))) this.forget();
    else this.#text.add(text, size);
  }

  /** A copy: whoever hears may leave. */
  #ready(): Listener[] {
    return [...this.#listeners].filter(({ isReady }) => isReady);
  }

  /** Those who have heard everything before; the others will hear the end as well. */
  #take(): Listener[] {
    const ready = this.#ready();
    for (const listener of ready) this.#listeners.delete(listener);
    return ready;
  }

  #consumed(listener: Listener, bytes: number): void {
    listener.consumedBytes += bytes;
    const more = listener.consumedBytes - this.#consumedBytes;
    if (more <= 0) return;
    this.#consumedBytes = listener.consumedBytes;
    this.#answer?.consumed(more);
  }

  #leave(listener: Listener): void {
    if (!this.#listeners.delete(listener) || this.#listeners.size > 0 || this.#isOver) return;
    if (this.#owner.isDraining) this.#left();
    else this.#cancelLinger = this.#owner.clock.timer(lingerMs, () => this.#left());
  }

  /** Ends the work where nobody listens. */
  drain(): void {
    if (!this.#isOver && this.#answer !== undefined && this.#listeners.size === 0) this.#left();
  }

  /** Nobody has come back. */
  #left(): void {
    this.#answer?.cancel();
    this.#over();
  }

  #over(): void {
    this.#isOver = true;
    this.#isBilled = this.#answer?.isBilled ?? false;
    this.#answer = undefined;
    this.#cancelLinger?.();
    if (this.#end === undefined) this.forget();
    this.#owner.ended(this, this.#end === undefined && !this.#isBilled);
  }
}
