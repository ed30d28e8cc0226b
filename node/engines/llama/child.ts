/** The child process of the llama engine: a native crash takes it alone, and it never outlives its parent. */

import { HelixFlowError, toHelixFlowError } from '../../../protocol/errors.ts';
import type { EngineDelta } from '../../../protocol/ports.ts';
import { generateAnswer } from './generate.ts';
import {
  type FromChild,
  type LoadRequest,
  type ToChild,
  type WireError,
  windowDeltas,
  workedIntervalMs,
} from './messages.ts';
import { loadRuntime, type Runtime } from './runtime.ts';

/** One answer under way: how far it is ahead of its consumer, and how to stop it. */
interface Answer {
  readonly abort: AbortController;
  ahead: number;
  /** Lets an answer that waits for its consumer go on. */
  go: (() => void) | undefined;
}

const cancelled = new HelixFlowError('REQUEST_CANCELLED', {});
const answers = new Map<number, Answer>();
let runtime: Runtime | undefined;
let outbox: FromChild[] = [];
let untoldTokens = 0;
let isTold = false;

/** Everything said in one turn of the event loop leaves as one message. */
function say(message: FromChild): void {
  if (outbox.push(message) > 1) return;
  setImmediate(() => {
    const messages = outbox;
    outbox = [];
    process.send?.(messages);
  });
}

/** Tells the parent that work goes on: at once, then now and then. */
function worked(tokens: number): void {
  untoldTokens += tokens;
  if (isTold || untoldTokens === 0) return;
  say({ type: 'worked', tokens: untoldTokens });
  untoldTokens = 0;
  isTold = true;
  setTimeout(() => {
    isTold = false;
    worked(0);
  }, workedIntervalMs);
}

function toWire(error: unknown): WireError {
  const { code, details } = toHelixFlowError(error, (cause) => {
    const reason = cause instanceof Error ? cause.message.slice(0, 300) : 'unknown';
    return new HelixFlowError('ENGINE_FAILED', { reason }, { cause });
  });
  return { code, details };
}

async function load(request: LoadRequest): Promise<void> {
  try {
    runtime = await loadRuntime(request);
    say({ type: 'loaded', loaded: runtime.loaded });
  } catch (error) {
    say({ type: 'refused', error: toWire(error) });
  }
}

async function generate({ id, chat, resume }: ToChild & { type: 'generate' }): Promise<void> {
  if (runtime === undefined) return;
  const answer: Answer = { abort: new AbortController(), ahead: 0, go: undefined };
  const { signal } = answer.abort;
  answers.set(id, answer);
  try {
    const take = (delta: EngineDelta): Promise<void> | undefined => {
      say({ type: 'delta', id, ...delta });
      answer.ahead += 1;
      if (answer.ahead < windowDeltas || signal.aborted) return undefined;
      return new Promise((resolve) => {
        answer.go = resolve;
      });
    };
    const request = resume === undefined ? { chat } : { chat, resume };
    const done = await generateAnswer(runtime, request, { take, worked }, signal);
    say({ type: 'done', id, done });
  } catch (error) {
    say({ type: 'failed', id, error: toWire(error) });
  } finally {
    answers.delete(id);
  }
}

function letGo(answer: Answer): void {
  answer.go?.();
  answer.go = undefined;
}

function hear(message: ToChild): void {
  if (message.type === 'load') void load(message.load);
  else if (message.type === 'generate') void generate(message);
  else {
    const answer = answers.get(message.id);
    if (answer === undefined) return;
    if (message.type === 'cancel') answer.abort.abort(cancelled);
    else answer.ahead -= message.count;
    letGo(answer);
  }
}

process.on('message', hear);
// Nothing here needs to be put in order, and a native thread in mid-work could hold up an ordinary exit.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
// Ctrl-C and a service manager's SIGTERM reach the whole group; the parent decides when answers may end.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
