/** The gateway's half of the attempts on one session: opens them, sends their bodies in turn, receives their answers. */

import { HelixFlowError } from '../errors.ts';
import type { ModelDigest, PriceId, RequestId, Tag } from '../ids.ts';
import type { SharedLimits } from '../messages/hello.ts';
import type { CancelFrame, Cancelled, Delta, Done, Fail, SessionFrame } from '../messages/session.ts';
import { NumberTable } from '../tables.ts';
import type { Ms } from '../units.ts';
import { utf8Length } from '../utf8.ts';

/** What becomes of an attempt. After `done` or `failed` nothing follows. */
export interface AttemptEvents {
  delta(delta: Delta): void;
  done(done: Done): void;
  failed(error: HelixFlowError): void;
}

/** What a gateway asks a node for. */
export interface AttemptRequest {
  readonly request: RequestId;
  readonly model: string;
  readonly digest: ModelDigest;
  readonly deadlineMs: Ms;
  /** `encodeChatRequest`; at most `requestBodyMaxBytes` of the session. */
  readonly body: Uint8Array;
  /** As in `Open`. */
  readonly serial: number;
  readonly account: Tag;
  readonly price: PriceId | '';
  /** `encodeResume`, where the answer goes on from one that another node had begun. */
  readonly resume?: Uint8Array;
}

/** The caller's side of a running attempt. */
export interface Attempt {
  /**
   * Stops the work at the node; no event follows.
   * @param settled Called once: with what the node says of it (`done` when that crossed the cancel on its way), or
   * undefined when it failed, or is gone.
   */
  cancel(settled?: (said: Cancelled | Done | undefined) => void): void;
  /** That many UTF-8 bytes of delta text have been passed on; the node may send as much again. */
  consumed(bytes: number): void;
  /** True while the node may send: silence is its own. */
  readonly hasCredit: boolean;
}

interface State {
  /** Undefined once the caller wants no more events. */
  events: AttemptEvents | undefined;
  /** Told what the node says of a cancelled attempt. */
  settled: ((said: Cancelled | Done | undefined) => void) | undefined;
  nextSequence: number;
  receivedBytes: number;
  receivedTextBytes: number;
  consumedTextBytes: number;
  grantedBytes: number;
  /** What is left of the body, while some is. */
  body: Uint8Array | undefined;
}

/** What its caller holds of an attempt. */
class OpenAttempt implements Attempt {
  readonly cancel: Attempt['cancel'];
  readonly consumed: Attempt['consumed'];
  readonly #state: State;

  constructor(state: State, calls: Pick<Attempt, 'cancel' | 'consumed'>) {
    this.#state = state;
    this.cancel = calls.cancel;
    this.consumed = calls.consumed;
  }

  get hasCredit(): boolean {
    return this.#state.grantedBytes > this.#state.receivedBytes;
  }
}

/** Credit goes out in steps of this share of the whole, so that it costs a frame only now and then. */
const creditStep = 1 / 4;

interface OutgoingPort {
  /** @returns false when the channel is backed up. */
  send(frame: SessionFrame): boolean;
  /** The number of attempts that still occupy the node changed. */
  changed(): void;
}

/** Attempts opened at one node. Its peer’s violations are thrown, and end the session. */
export class OutgoingAttempts {
  readonly #port: OutgoingPort;
  readonly #limits: SharedLimits;
  readonly #attempts = new NumberTable<State>();
  /** Attempts with unsent body, in the order of their turns. */
  readonly #bodies: number[] = [];
  #nextAttempt = 1;
  #isBackedUp = false;

  constructor(port: OutgoingPort, limits: SharedLimits) {
    this.#port = port;
    this.#limits = limits;
  }

  /** Attempts that the node has not ended yet, cancelled ones included. */
  get size(): number {
    return this.#attempts.size;
  }

  /** @throws HelixFlowError NODE_OVERLOADED when the session carries all it may; REQUEST_TOO_LARGE */
  open(request: AttemptRequest, events: AttemptEvents): Attempt {
    if (this.#attempts.size >= this.#limits.sessionAttemptsMax) {
      throw new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: 1_000 });
    }
    const body = request.resume === undefined ? request.body : joinBytes(request.body, request.resume);
    if (body.length > this.#limits.requestBodyMaxBytes) {
      throw new HelixFlowError('REQUEST_TOO_LARGE', { maxBytes: this.#limits.requestBodyMaxBytes });
    }
    const attempt = this.#nextAttempt;
    this.#nextAttempt += 1;
    const isWhole = body.length <= this.#limits.bodyChunkBytes;
    const state: State = {
      events,
      settled: undefined,
      nextSequence: 0,
      receivedBytes: 0,
      receivedTextBytes: 0,
      consumedTextBytes: 0,
      grantedBytes: this.#limits.creditInitialBytes,
      body: isWhole ? undefined : body,
    };
    this.#attempts.set(attempt, state);
    this.#send({
      type: 'open',
      attempt,
      request: request.request,
      model: request.model,
      digest: request.digest,
      operation: 'chat',
      deadlineMs: request.deadlineMs,
      bodyBytes: body.length,
      piece: isWhole ? body : new Uint8Array(0),
      serial: request.serial,
      account: request.account,
      price: request.price,
      resumeBytes: request.resume?.length ?? 0,
    });
    if (!isWhole) {
      this.#bodies.push(attempt);
      this.#sendBodies();
    }
    this.#port.changed();
    return new OpenAttempt(state, {
      cancel: (settled) => this.#cancel(attempt, state, settled),
      consumed: (bytes) => this.#consumed(attempt, state, bytes),
    });
  }

  /** The channel takes more again. */
  drained(): void {
    this.#isBackedUp = false;
    this.#sendBodies();
  }

  /** Ends every attempt for its caller and asks the node to stop, should it still be there. */
  abandonAll(error: HelixFlowError): void {
    for (const [attempt, state] of this.#attempts.entries()) {
      const { events } = state;
      this.#cancel(attempt, state);
      events?.failed(error);
    }
  }

  /** Ends every attempt: the session is gone. */
  close(error: HelixFlowError): void {
    const states = this.#attempts.entries().map(([, state]) => state);
    this.#attempts.clear();
    this.#bodies.length = 0;
    for (const state of states) {
      const { events, settled } = state;
      state.events = undefined;
      state.settled = undefined;
      events?.failed(error);
      settled?.(undefined);
    }
  }

  /**
   * @param frameBytes Length of the whole frame: what it costs in credit.
   * @throws HelixFlowError PROTOCOL_VIOLATION for a gap, a repetition, or more than was granted.
   */
  delta(delta: Delta, frameBytes: number): void {
    const state = this.#find(delta.attempt);
    if (state === undefined) return;
    if (delta.sequence !== state.nextSequence) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a delta is out of sequence' });
    }
    state.nextSequence += 1;
    state.receivedBytes += frameBytes;
    if (state.receivedBytes > state.grantedBytes + this.#limits.frameMaxBytes) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a delta exceeds the credit' });
    }
    state.receivedTextBytes += utf8Length(delta.text);
    state.events?.delta(delta);
  }

  done(done: Done): void {
    this.#end(done.attempt, done)?.done(done);
  }

  fail(fail: Fail): void {
    this.#end(fail.attempt)?.failed(fail.error);
  }

  cancelled(cancelled: Cancelled): void {
    // A node cancels nothing by itself: to a caller that still listens this is a lost node.
    this.#end(cancelled.attempt, cancelled)?.failed(new HelixFlowError('NODE_LOST', {}));
  }

  #find(attempt: number): State | undefined {
    if (attempt >= this.#nextAttempt) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a frame names an attempt that was never opened' });
    }
    return this.#attempts.get(attempt);
  }

  #end(attempt: number, said?: Cancelled | Done): AttemptEvents | undefined {
    const state = this.#find(attempt);
    if (state === undefined) return undefined;
    const { events, settled } = state;
    state.events = undefined;
    state.settled = undefined;
    this.#attempts.delete(attempt);
    this.#dropBody(attempt, state);
    this.#port.changed();
    settled?.(said);
    return events;
  }

  #cancel(attempt: number, state: State, settled?: (said: Cancelled | Done | undefined) => void): void {
    if (state.events === undefined) {
      settled?.(undefined);
      return;
    }
    state.events = undefined;
    state.settled = settled;
    this.#dropBody(attempt, state);
    const frame: CancelFrame = { type: 'cancel', attempt, acknowledged: state.nextSequence };
    this.#send(frame);
  }

  #consumed(attempt: number, state: State, bytes: number): void {
    state.consumedTextBytes += bytes;
    // What a cancel acknowledges is the last word on what was received.
    if (state.events === undefined) return;
    const waiting = Math.max(0, state.receivedTextBytes - state.consumedTextBytes);
    const grant = this.#limits.creditInitialBytes - (state.grantedBytes - state.receivedBytes) - waiting;
    if (grant < this.#limits.creditInitialBytes * creditStep || !this.#attempts.has(attempt)) return;
    state.grantedBytes += grant;
    this.#send({ type: 'credit', attempt, bytes: grant, acknowledged: state.nextSequence });
  }

  #dropBody(attempt: number, state: State): void {
    if (state.body === undefined) return;
    state.body = undefined;
    const index = this.#bodies.indexOf(attempt);
    if (index >= 0) this.#bodies.splice(index, 1);
  }

  #send(frame: SessionFrame): void {
    if (!this.#port.send(frame)) this.#isBackedUp = true;
  }

  /** One piece of each body in turn, until the channel is backed up. */
  #sendBodies(): void {
    while (!this.#isBackedUp) {
      const attempt = this.#bodies.shift();
      if (attempt === undefined) return;
      const state = this.#attempts.get(attempt);
      if (state?.body === undefined) continue;
      const piece = state.body.subarray(0, this.#limits.bodyChunkBytes);
      const rest = state.body.subarray(piece.length);
      state.body = rest.length > 0 ? rest : undefined;
      if (rest.length > 0) this.#bodies.push(attempt);
      this.#send({ type: 'body', attempt, piece });
    }
  }
}

function joinBytes(first: Uint8Array, second: Uint8Array): Uint8Array {
  const joined = new Uint8Array(first.length + second.length);
  joined.set(first);
  joined.set(second, first.length);
  return joined;
}
