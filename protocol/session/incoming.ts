/** The node's half of the attempts on one session: gathers their bodies, sends their answers within the credit. */

import { type Counted, countDelta, deliveredTokens, nothingCounted } from '../counting.ts';
import { HelixFlowError } from '../errors.ts';
import { limits } from '../limits.ts';
import type { SharedLimits } from '../messages/hello.ts';
import {
  type Body,
  type CancelFrame,
  type Credit,
  encodeSessionFrame,
  type Open,
  type SessionFrame,
} from '../messages/session.ts';
import type { Cancel, Clock, EngineDelta, EngineDone } from '../ports.ts';
import { NumberTable } from '../tables.ts';
import { type Ms, ms } from '../units.ts';

/** An attempt whose body has arrived whole, for the node to serve. Ends with exactly one of `done`, `fail`, `cancelled`. */
export interface ServedAttempt {
  readonly open: Open;
  readonly body: Uint8Array;
  /** Aborts with REQUEST_CANCELLED when the gateway wants no more, with the session's error when that is gone. */
  readonly signal: AbortSignal;
  /** Sends a piece. @returns a promise to wait for when the credit is spent. */
  emit(delta: EngineDelta): Promise<void> | undefined;
  done(done: EngineDone, queueMs: Ms): void;
  fail(error: HelixFlowError): void;
  /** The work has stopped after `signal` aborted. `promptTokens` is 0 where the engine had not counted them yet. */
  cancelled(completionTokens: number, promptTokens: number): void;
  /** What was sent so far. */
  sent(): Counted;
  /** `deliveredTokens` of what the gateway has said to hold. */
  acknowledgedTokens(): number;
}

interface State {
  readonly open: Open;
  readonly abort: AbortController;
  readonly body: Uint8Array;
  bodyReceived: number;
  /** Of the timer that waits for the rest of the body. */
  cancelWait: Cancel;
  sequence: number;
  creditBytes: number;
  /** Resolves the promise of an `emit` that waits for credit. */
  resume: (() => void) | undefined;
  counted: Counted;
  /** Of whole frames. */
  sentBytes: number;
  /** Every delta below this sequence number has been received, and what they come to. */
  acknowledged: number;
  acknowledgedTokens: number;
  acknowledgedBytes: number;
  /** The same two sums up to, and with, each delta from `acknowledged` on, one pair after the other. */
  unacknowledged: number[];
}

interface IncomingPort {
  send(frame: SessionFrame): void;
  sendBytes(frame: Uint8Array): void;
  /** A whole request is there. */
  opened(attempt: ServedAttempt): void;
  changed(): void;
  readonly timer: Clock['timer'];
}

/** Attempts that one gateway opened here. Its peer’s violations are thrown, and end the session. */
export class IncomingAttempts {
  readonly #port: IncomingPort;
  readonly #limits: SharedLimits;
  /** Longer text is cut, so that any delta fits its frame whatever its characters weigh. */
  readonly #textMaxUnits: number;
  readonly #attempts = new NumberTable<State>();
  #lastAttempt = 0;
  #pendingBodyBytes = 0;

  constructor(port: IncomingPort, limits: SharedLimits) {
    this.#port = port;
    this.#limits = limits;
    this.#textMaxUnits = Math.max(2, Math.floor(Math.min(limits.deltaTextMaxBytes, limits.frameMaxBytes / 2) / 4));
  }

  get size(): number {
    return this.#attempts.size;
  }

  /** @throws HelixFlowError PROTOCOL_VIOLATION */
  open(open: Open): void {
    if (open.attempt <= this.#lastAttempt) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'an attempt number is used twice' });
    }
    this.#lastAttempt = open.attempt;
    if (open.piece.length > open.bodyBytes) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a body is longer than announced' });
    }
    const isTooMuch = this.#pendingBodyBytes + open.bodyBytes > this.#limits.sessionBodyMaxBytes;
    if (this.#attempts.size >= this.#limits.sessionAttemptsMax || isTooMuch) {
      const error = new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: 1_000 });
      this.#port.send({ type: 'fail', attempt: open.attempt, error });
      return;
    }
    const isWhole = open.piece.length === open.bodyBytes;
    const state: State = {
      open,
      abort: new AbortController(),
      body: isWhole ? open.piece : new Uint8Array(open.bodyBytes),
      bodyReceived: 0,
      cancelWait: () => {},
      sequence: 0,
      creditBytes: this.#limits.creditInitialBytes,
      resume: undefined,
      counted: nothingCounted,
      sentBytes: 0,
      acknowledged: 0,
      acknowledgedTokens: 0,
      acknowledgedBytes: 0,
      unacknowledged: [],
    };
    this.#attempts.set(open.attempt, state);
    this.#pendingBodyBytes += open.bodyBytes;
    this.#port.changed();
    if (!isWhole) {
      const waitMs = ms(Math.min(open.deadlineMs, limits.bodyTimeoutMs));
      state.cancelWait = this.#port.timer(waitMs, () => this.#incomplete(state));
    }
    this.#take(state, open.piece);
  }

  /** @throws HelixFlowError PROTOCOL_VIOLATION */
  body(body: Body): void {
    const state = this.#find(body.attempt);
    if (state === undefined) return;
    const { bodyBytes } = state.open;
    if (
      state.bodyReceived === bodyBytes ||
      state.bodyReceived + body.piece.length > bodyBytes ||
      body.piece.length === 0
    ) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a body does not match its announced length' });
    }
    this.#take(state, body.piece);
  }

  /** @throws HelixFlowError PROTOCOL_VIOLATION */
  cancel({ attempt, acknowledged }: CancelFrame): void {
    const state = this.#find(attempt);
    if (state === undefined) return;
    acknowledge(state, acknowledged);
    const isStarted = state.bodyReceived === state.open.bodyBytes;
    state.abort.abort(new HelixFlowError('REQUEST_CANCELLED', {}));
    this.#resume(state);
    if (!isStarted) this.#end(state, { type: 'cancelled', attempt, completionTokens: 0, promptTokens: 0 });
  }

  /** @throws HelixFlowError PROTOCOL_VIOLATION */
  credit(credit: Credit): void {
    const state = this.#find(credit.attempt);
    if (state === undefined) return;
    acknowledge(state, credit.acknowledged);
    // What is granted without being acknowledged would have to be remembered here without end.
    const roomBytes = this.#limits.creditInitialBytes - (state.sentBytes - state.acknowledgedBytes);
    state.creditBytes = Math.min(state.creditBytes + credit.bytes, roomBytes);
    if (state.creditBytes > 0) this.#resume(state);
  }

  /** Aborts every attempt: the session is gone, or its gateway. */
  close(error: HelixFlowError): void {
    const states = this.#attempts.entries().map(([, state]) => state);
    this.#attempts.clear();
    this.#pendingBodyBytes = 0;
    for (const state of states) {
      state.cancelWait();
      state.abort.abort(error);
      this.#resume(state);
    }
  }

  #find(attempt: number): State | undefined {
    if (attempt > this.#lastAttempt) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a frame names an attempt that was never opened' });
    }
    return this.#attempts.get(attempt);
  }

  /** The rest of the body did not come in time. */
  #incomplete(state: State): void {
    const error = new HelixFlowError('DEADLINE_EXCEEDED', { deadlineMs: state.open.deadlineMs });
    this.#end(state, { type: 'fail', attempt: state.open.attempt, error });
  }

  #take(state: State, piece: Uint8Array): void {
    if (state.body !== piece) state.body.set(piece, state.bodyReceived);
    state.bodyReceived += piece.length;
    if (state.bodyReceived < state.open.bodyBytes) return;
    state.cancelWait();
    this.#pendingBodyBytes -= state.open.bodyBytes;
    this.#port.opened(this.#serve(state));
  }

  #serve(state: State): ServedAttempt {
    const { attempt } = state.open;
    return {
      open: state.open,
      body: state.body,
      signal: state.abort.signal,
      emit: (delta) => this.#emit(state, delta),
      done: (done, queueMs) => this.#end(state, { type: 'done', attempt, ...done, queueMs }),
      fail: (error) => this.#end(state, { type: 'fail', attempt, error }),
      cancelled: (completionTokens, promptTokens) =>
        this.#end(state, { type: 'cancelled', attempt, completionTokens, promptTokens }),
      sent: () => state.counted,
      acknowledgedTokens: () => state.acknowledgedTokens,
    };
  }

  #end(state: State, frame: SessionFrame): void {
    const { attempt } = state.open;
    if (this.#attempts.get(attempt) !== state) return;
    this.#attempts.delete(attempt);
    state.cancelWait();
    if (state.bodyReceived < state.open.bodyBytes) this.#pendingBodyBytes -= state.open.bodyBytes;
    this.#port.send(frame);
    this.#port.changed();
  }

  #emit(state: State, delta: EngineDelta): Promise<void> | undefined {
    if (delta.text.length > this.#textMaxUnits || delta.tokenIds.length > this.#limits.deltaTokensMax) {
      return this.#emitLong(state, delta);
    }
    this.#emitOne(state, delta);
    return this.#room(state);
  }

  async #emitLong(state: State, delta: EngineDelta): Promise<void> {
    let { text, tokenIds } = delta;
    const { isOpaque = false } = delta;
    while (text.length > 0 || tokenIds.length > 0) {
      const cut = cutAt(text, this.#textMaxUnits);
      const ids = tokenIds.slice(0, this.#limits.deltaTokensMax);
      this.#emitOne(state, { text: text.slice(0, cut), tokenIds: ids, isOpaque });
      text = text.slice(cut);
      tokenIds = tokenIds.slice(this.#limits.deltaTokensMax);
      await this.#room(state);
    }
  }

  /** Undefined while credit is left; else a promise for more of it, or for the end of the attempt. */
  #room(state: State): Promise<void> | undefined {
    if (state.creditBytes > 0 || state.abort.signal.aborted) return undefined;
    return new Promise((resolve) => {
      const earlier = state.resume;
      state.resume = () => {
        earlier?.();
        resolve();
      };
    });
  }

  #emitOne(state: State, { text, tokenIds, isOpaque = false }: EngineDelta): void {
    const { attempt } = state.open;
    if (state.abort.signal.aborted) return;
    const bytes = encodeSessionFrame({ type: 'delta', attempt, sequence: state.sequence, text, tokenIds, isOpaque });
    state.sequence += 1;
    state.counted = countDelta(state.counted, text, tokenIds.length);
    state.sentBytes += bytes.length;
    state.unacknowledged.push(deliveredTokens(state.counted), state.sentBytes);
    state.creditBytes -= bytes.length;
    this.#port.sendBytes(bytes);
  }

  #resume(state: State): void {
    const { resume } = state;
    state.resume = undefined;
    resume?.();
  }
}

/** Where to cut `text` at or before `max` without tearing a surrogate pair. */
function cutAt(text: string, max: number): number {
  if (text.length <= max) return text.length;
  const before = text.charCodeAt(max - 1);
  return before >= 0xd800 && before <= 0xdbff ? max - 1 : max;
}

/** Notes that the gateway holds every delta below this sequence number. */
function acknowledge(state: State, below: number): void {
  if (below > state.sequence) {
    throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a delta is acknowledged that was never sent' });
  }
  const count = below - state.acknowledged;
  if (count <= 0) return;
  state.acknowledgedTokens = state.unacknowledged[2 * count - 2] ?? state.acknowledgedTokens;
  state.acknowledgedBytes = state.unacknowledged[2 * count - 1] ?? state.acknowledgedBytes;
  state.unacknowledged = state.unacknowledged.slice(2 * count);
  state.acknowledged = below;
}
