/** What every `Engine` keeps to. It needs only the port, so real, simulated and synthetic engines run the same suite. */

import { afterAll, beforeAll, describe, type ExpectStatic, test } from 'vitest';
import { isHelixFlowError } from '../../protocol/errors.ts';
import { isModelDigest } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { ChatRequest } from '../../protocol/messages/chat.ts';
import type { Engine, EngineDelta, EngineDone } from '../../protocol/ports.ts';

/** What differs between engines, as data. */
export interface EngineCapabilities {
  /** Deltas carry the ids of all tokens; otherwise of none. */
  readonly tokenIds: boolean;
  /** A prompt that says to write more than eight tokens, without a repetition within the first eight. */
  readonly longPrompt: string;
}

/** An engine under test. */
export interface EngineSubject extends AsyncDisposable {
  readonly engine: Engine;
  /** Resolves as `work` does; a world with virtual time lets time pass meanwhile. */
  run<T>(work: Promise<T>): Promise<T>;
}

interface Answer {
  readonly done: EngineDone;
  readonly deltas: readonly EngineDelta[];
  readonly text: string;
}

const never = new AbortController().signal;
const bytesOf = (text: string): number => Buffer.byteLength(text);

async function ask(engine: Engine, chat: ChatRequest, signal: AbortSignal = never): Promise<Answer> {
  const deltas: EngineDelta[] = [];
  const model = engine.models()[0]?.name ?? 'none';
  const done = await engine.generate({ model, chat }, (delta) => void deltas.push(delta), signal);
  return { done, deltas, text: deltas.map(({ text }) => text).join('') };
}

/** The code that `work` fails with, or what it failed with instead. */
async function codeOf(work: Promise<unknown>): Promise<unknown> {
  try {
    return { resolved: await work };
  } catch (error) {
    return isHelixFlowError(error) ? error.code : error;
  }
}

/** Runs the contract for one engine; `open` is called once. */
export function engineContract(
  name: string,
  open: () => Promise<EngineSubject>,
  capabilities: EngineCapabilities,
): void {
  describe(`${name} keeps the engine contract`, () => {
    let subject: EngineSubject;
    let engine: Engine;
    const long: ChatRequest = {
      messages: [{ role: 'user', content: capabilities.longPrompt }],
      temperature: 0,
      maxTokens: 8,
    };
    const run = (chat: ChatRequest, signal?: AbortSignal): Promise<Answer> => subject.run(ask(engine, chat, signal));

    beforeAll(async () => {
      subject = await open();
      engine = subject.engine;
    });
    afterAll(() => subject?.[Symbol.asyncDispose]());

    test('it says what it serves', ({ expect }) => {
      expect(engine.models()).not.toEqual([]);
      for (const model of engine.models()) {
        expect(model.name.length).toBeGreaterThan(0);
        expect(model.name.length).toBeLessThanOrEqual(limits.modelNameMaxChars);
        expect(isModelDigest(model.digest)).toBe(true);
        expect(model.contextTokens).toBeGreaterThan(0);
        expect(model.build.length).toBeLessThanOrEqual(256);
      }
      expect(engine.slots).toBeGreaterThanOrEqual(1);
      expect(engine.stats()).toMatchObject({ active: 0, slots: engine.slots });
    });

    test('it counts what it gives', async ({ expect }) => {
      const { done, deltas, text } = await run(long);
      expectCounts(expect, done, deltas, capabilities);
      expect(bytesOf(text)).toBeGreaterThan(0);
      expect(engine.stats().active).toBe(0);
      expect(engine.stats().tokensPerSecond).toBeGreaterThan(0);
    });

    test('it ends at maxTokens and says so', async ({ expect }) => {
      const { done } = await run({ ...long, maxTokens: 3 });
      expect(done).toMatchObject({ finish: 'length', completionTokens: 3 });
    });

    test('it answers the same at temperature 0, alone or beside others', async ({ expect }) => {
      const { text } = await run(long);
      const count = Math.min(engine.slots, 4);
      const others = await subject.run(Promise.all(Array.from({ length: count }, () => ask(engine, long))));
      expect(others.map((other) => other.text)).toEqual(Array.from({ length: count }, () => text));
    });

    test('it answers the same for the same seed', async ({ expect }) => {
      const chat: ChatRequest = { ...long, temperature: 1, seed: 42 };
      const first = await run(chat);
      expect((await run(chat)).text).toBe(first.text);
    });

    test('it ends before a stop text and never shows it', async ({ expect }) => {
      const { text } = await run(long);
      const stop = text.slice(3, 6);
      const { done, deltas, text: shown } = await run({ ...long, stop: ['never in there', stop] });
      expect(shown).toBe(text.slice(0, text.indexOf(stop)));
      expect(done.finish).toBe('stop');
      expectCounts(expect, done, deltas, capabilities);
    });

    test('it waits for a slow consumer, and only its own answer waits', async ({ expect }) => {
      let release = (): void => {};
      const gate = new Promise<void>((resolve) => {
        release = resolve;
      });
      const texts: string[] = [];
      const model = engine.models()[0]?.name ?? 'none';
      const slow = engine.generate(
        { model, chat: long },
        ({ text }) => {
          texts.push(text);
          return texts.length === 1 ? gate : undefined;
        },
        never,
      );
      const other = engine.slots > 1 ? await run(long) : undefined;
      expect(texts.length).toBeLessThanOrEqual(1);
      release();
      await subject.run(slow);
      expect(texts.join('')).toBe(other?.text ?? (await run(long)).text);
    });

    test('it does not begin when the signal has aborted', async ({ expect }) => {
      const reason = new Error('gone before');
      const answer = ask(engine, long, AbortSignal.abort(reason));
      await expect(subject.run(answer)).rejects.toBe(reason);
      expect(engine.stats().active).toBe(0);
    });

    test('it stops when the signal aborts, says nothing more, and its slot is free', async ({ expect }) => {
      for (let round = 0; round < Math.min(engine.slots, 4) + 1; round += 1) {
        const abort = new AbortController();
        const reason = new Error('client has gone');
        let emitted = 0;
        const model = engine.models()[0]?.name ?? 'none';
        const answer = engine.generate(
          { model, chat: long },
          () => {
            emitted += 1;
            if (emitted === 2) abort.abort(reason);
            return undefined;
          },
          abort.signal,
        );
        await expect(subject.run(answer)).rejects.toBe(reason);
        expect(emitted).toBe(2);
        expect(engine.stats().active).toBe(0);
      }
    });

    test('it refuses a model that it does not serve', async ({ expect }) => {
      const answer = engine.generate({ model: 'no such model', chat: long }, () => undefined, never);
      expect(await codeOf(subject.run(answer))).toBe('NODE_MODEL_MISSING');
    });

    test('it refuses a prompt that does not fit, with the numbers', async ({ expect }) => {
      const contextTokens = engine.models()[0]?.contextTokens ?? 0;
      const content = 'one two three four five six seven eight '.repeat(contextTokens / 4);
      const failure: unknown = await run({ ...long, messages: [{ role: 'user', content }] }).catch((error) => error);
      expect(isHelixFlowError(failure, 'CONTEXT_LENGTH_EXCEEDED') && failure.details).toMatchObject({ contextTokens });
      if (!isHelixFlowError(failure, 'CONTEXT_LENGTH_EXCEEDED')) return;
      const { promptTokens, completionTokens, requestedTokens } = failure.details;
      expect(requestedTokens).toBe(promptTokens + completionTokens);
      expect(requestedTokens).toBeGreaterThan(contextTokens);
      expect((await run(long)).text).not.toBe('');
    });
  });
}

function expectCounts(
  expect: ExpectStatic,
  done: EngineDone,
  deltas: readonly EngineDelta[],
  { tokenIds }: EngineCapabilities,
): void {
  const ids = deltas.flatMap((delta) => delta.tokenIds).length;
  const bytes = deltas.reduce((sum, { text }) => sum + bytesOf(text), 0);
  expect(done.promptTokens).toBeGreaterThan(0);
  expect(done.cachedTokens).toBeGreaterThanOrEqual(0);
  expect(done.cachedTokens).toBeLessThanOrEqual(done.promptTokens);
  expect(done.completionTokens).toBeLessThanOrEqual(bytes + 1);
  expect(ids).toBeGreaterThanOrEqual(tokenIds ? done.completionTokens : 0);
  if (tokenIds) expect(done.completionTokens).toBe(Math.min(ids, bytes + 1));
  else expect(ids).toBe(0);
  expect(done.prefillMs).toBeGreaterThanOrEqual(0);
  expect(done.decodeMs).toBeGreaterThanOrEqual(0);
  for (const { text } of deltas) expect(text.isWellFormed()).toBe(true);
}
