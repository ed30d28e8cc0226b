/** The parent's side of answers under way: deltas go to their consumers in order, each at its consumer's pace. */

import { HelixFlowError } from '../../../protocol/errors.ts';
import type { Cancel, Clock, Engine, EngineDelta, EngineDone, GenerateRequest } from '../../../protocol/ports.ts';
import { seconds } from '../../../protocol/units.ts';
import type { Meter } from '../meter.ts';
import { type FromChild, type ToChild, takenDeltas } from './messages.ts';
import { fromWire } from './process.ts';

type Emit = Parameters<Engine['generate']>[1];

/** A child that has not acknowledged a cancel by then hangs in native code. */
const cancelTimeoutMs = seconds(120);

export interface Answers {
  readonly active: number;
  generate(request: GenerateRequest, emit: Emit, signal: AbortSignal): Promise<EngineDone>;
  hear(message: FromChild): void;
  /** Ends all of them with ENGINE_FAILED. */
  failAll(reason: string): void;
}

export interface AnswersDeps {
  readonly clock: Clock;
  readonly meter: Meter;
  send(message: ToChild): void;
  /** The child does not react any more. */
  stuck(): void;
}

interface Answer {
  delta(delta: EngineDelta): void;
  /** The child has let go of the answer. */
  end(outcome: EngineDone | HelixFlowError): void;
  /** Nobody wants the rest: what was not handed over yet is dropped. */
  abandon(): void;
}

type Settle = (outcome: EngineDone | HelixFlowError) => void;

/** Hands deltas to `emit` one by one; while that returns a promise, what follows waits. */
function createAnswer(
  emit: Emit,
  taken: (count: number) => void,
  settle: Settle,
  fail: (error: unknown) => void,
): Answer {
  const queue: EngineDelta[] = [];
  let outcome: EngineDone | HelixFlowError | undefined;
  let isWaiting = false;
  let isAbandoned = false;
  let untold = 0;

  function took(): void {
    untold += 1;
    if (untold < takenDeltas) return;
    taken(untold);
    untold = 0;
  }

  function pump(): void {
    while (!isWaiting && !isAbandoned) {
      const delta = queue.shift();
      if (delta === undefined) break;
      let wait: Promise<void> | undefined;
      try {
        wait = emit(delta);
      } catch (error) {
        fail(error);
        return;
      }
      if (wait === undefined) took();
      else {
        isWaiting = true;
        wait.then(() => {
          isWaiting = false;
          took();
          pump();
        }, fail);
      }
    }
    if (outcome !== undefined && (isAbandoned || (queue.length === 0 && !isWaiting))) settle(outcome);
  }

  return {
    delta(delta) {
      queue.push(delta);
      pump();
    },
    end(ended) {
      outcome = ended;
      // After a failure nobody wants what was still on its way.
      if (ended instanceof HelixFlowError) isAbandoned = true;
      pump();
    },
    abandon() {
      isAbandoned = true;
      pump();
    },
  };
}

export function createAnswers(deps: AnswersDeps): Answers {
  const { clock, meter, send, stuck } = deps;
  const answers = new Map<number, Answer>();
  let lastId = 0;

  return {
    get active() {
      return answers.size;
    },
    generate(request, emit, signal) {
      lastId += 1;
      const id = lastId;
      return new Promise((resolve, reject) => {
        const end = meter.begin();
        let patience: Cancel | undefined;
        /** Why the answer ends, if not for its own reasons; it ends once the child has let go of the slot. */
        let why: { readonly error: unknown } | undefined;
        const stop = (error: unknown): void => {
          if (why !== undefined) return;
          why = { error };
          send({ type: 'cancel', id });
          patience = clock.timer(cancelTimeoutMs, stuck);
          answer.abandon();
        };
        const aborted = (): void => stop(signal.reason);
        const settle: Settle = (outcome) => {
          if (!answers.delete(id)) return;
          signal.removeEventListener('abort', aborted);
          patience?.();
          end();
          if (why !== undefined) reject(why.error);
          else if (outcome instanceof HelixFlowError) reject(outcome);
          else resolve(outcome);
        };
        const taken = (count: number): void => send({ type: 'taken', id, count });
        const answer = createAnswer(emit, taken, settle, stop);
        answers.set(id, answer);
        signal.addEventListener('abort', aborted, { once: true });
        send({ type: 'generate', id, chat: request.chat, resume: request.resume });
      });
    },
    hear(message) {
      if (message.type === 'delta') {
        const { id, type: _, ...delta } = message;
        meter.tokens(delta.tokenIds.length);
        answers.get(id)?.delta(delta);
      } else if (message.type === 'worked') meter.worked(message.tokens);
      else if (message.type === 'done') answers.get(message.id)?.end(message.done);
      else if (message.type === 'failed') answers.get(message.id)?.end(fromWire(message.error));
    },
    failAll(reason) {
      for (const answer of [...answers.values()]) answer.end(new HelixFlowError('ENGINE_FAILED', { reason }));
    },
  };
}
