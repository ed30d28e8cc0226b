/** The llama engine with the embedded model, for tests. */

import { embeddedModel } from '../../../../node/engines/embedded.ts';
import { type LlamaOptions, openLlamaEngine } from '../../../../node/engines/llama/engine.ts';
import { systemClock } from '../../../../protocol/adapters/clock.ts';
import { createLog } from '../../../../protocol/adapters/log.ts';
import { isHelixFlowError } from '../../../../protocol/errors.ts';
import type { ChatRequest } from '../../../../protocol/messages/chat.ts';
import type { Engine, EngineDelta, EngineDone, Resume } from '../../../../protocol/ports.ts';

export const deps = { clock: systemClock(), log: createLog({ level: 'silent', destination: 'stderr' }) };
export const never: AbortSignal = new AbortController().signal;

export type TestEngine = Engine & AsyncDisposable;

/** One thread, no GPU: the same on every machine. */
export async function openEmbedded(options: Partial<LlamaOptions> = {}): Promise<TestEngine> {
  const { path: modelPath, name } = embeddedModel;
  const engine = await openLlamaEngine(deps, { modelPath, name, gpu: 'off', threads: 1, ...options });
  return Object.assign(engine, { [Symbol.asyncDispose]: () => engine.close() });
}

export interface Answer {
  readonly text: string;
  readonly deltas: readonly EngineDelta[];
  readonly done: EngineDone;
}

export async function ask(
  engine: Engine,
  content: string,
  options: Omit<ChatRequest, 'messages'> = {},
  { signal = never, resume }: { readonly signal?: AbortSignal; readonly resume?: Resume } = {},
): Promise<Answer> {
  const deltas: EngineDelta[] = [];
  const chat: ChatRequest = { messages: [{ role: 'user', content }], ...options };
  const request = { model: 'helix-tiny', chat, ...(resume && { resume }) };
  const done = await engine.generate(request, (delta) => void deltas.push(delta), signal);
  return { text: deltas.map(({ text }) => text).join(''), deltas, done };
}

/** Code and reason of the error that `work` ends with. */
export async function failureOf(work: Promise<unknown>): Promise<{ code: string; reason?: string } | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    if (!isHelixFlowError(error)) throw error;
    return { code: error.code, ...(error.details as { reason?: string }) };
  }
}
