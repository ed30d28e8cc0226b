/** What every `Engine` keeps to. It needs only the port, so real, simulated and synthetic engines run the same suite. */

import { afterAll, beforeAll, describe, type ExpectStatic, test } from 'vitest';
import { isHelixFlowError } from '../../protocol/errors.ts';
import { isModelDigest } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { ChatRequest } from '../../protocol/messages/chat.ts';
import type { Engine, EngineDelta, EngineDone, Resume } from '../../protocol/ports.ts';

/** What differs between engines, as data. */
export interface EngineCapabilities {
  /** Deltas carry the ids of all tokens; otherwise of none. */
  readonly tokenIds: boolean;
  /** A prompt that says to write more than eight tokens, without a repetition within the first eight. */
  readonly longPrompt: string;
  /** A prompt whose answer comes to depend on something that its text does not show; absent where none does. */
  readonly opaquePrompt?: string;
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

const textOf = (deltas: readonly EngineDelta[]): string => deltas.map(({ text }) => text).join('');
const idsOf = (deltas: readonly EngineDelta[]): number[] => deltas.flatMap(({ tokenIds }) => [...tokenIds]);

interface AskOptions {
  readonly signal?: AbortSignal;
  readonly resume?: Resume;
}

async function ask(engine: Engine, chat: ChatRequest, { signal = never, resume }: AskOptions = {}): Promise<Answer> {
  const deltas: EngineDelta[] = [];
  const model = engine.models()[0]?.name ?? 'none';
  const request = { model, chat, ...(resume && { resume }) };
  const done = await engine.generate(request, (delta) => void deltas.push(delta), signal);
  return { done, deltas, text: textOf(deltas) };
}

/** What somebody has who got no more than these pieces. */
function received(deltas: readonly EngineDelta[]): Resume {
  const text = textOf(deltas);
  const tokenIds = idsOf(deltas);
  return { text, tokenIds, tokens: Math.min(tokenIds.length > 0 ? tokenIds.length : deltas.length, bytesOf(text) + 1) };
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
    const run = (chat: ChatRequest, options?: AskOptions): Promise<Answer> => subject.run(ask(engine, chat, options));

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
      const answer = ask(engine, long, { signal: AbortSignal.abort(reason) });
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

    test('it stops when the signal aborts, also while its consumer takes nothing or others have all slots', async ({
      expect,
    }) => {
      const reason = new Error('client has gone');
      const model = engine.models()[0]?.name ?? 'none';
      const holders = Array.from({ length: Math.min(engine.slots, 16) + 1 }, () => {
        const abort = new AbortController();
        let first = (): void => {};
        const held = new Promise<void>((resolve) => {
          first = resolve;
        });
        const take = (): Promise<void> => {
          first();
          return new Promise(() => {});
        };
        return { abort, held, answer: engine.generate({ model, chat: long }, take, abort.signal) };
      });
      const outcomes = Promise.allSettled(holders.map(({ answer }) => answer));
      await subject.run(Promise.all(holders.slice(0, -1).map(({ held }) => held)));
      for (const { abort } of holders.toReversed()) abort.abort(reason);
      const rejected = { status: 'rejected', reason };
      expect(await subject.run(outcomes)).toEqual(holders.map(() => rejected));
      expect(engine.stats().active).toBe(0);
      expect((await run(long)).text).not.toBe('');
    });

    test('it shows progress, if it shows any, while it works', async ({ expect }) => {
      const before = engine.stats().progress;
      const { done } = await run(long);
      const after = engine.stats().progress;
      // What is told of tokens may come late, the end does not.
      if (before === undefined) expect(after).toBeUndefined();
      else expect(after).toBeGreaterThan(before);
      expect(done.completionTokens).toBeGreaterThan(0);
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

    test('it goes on with an answer that was cut behind any of its pieces, or says that it does not', async ({
      expect,
    }) => {
      const continuation = engine.models()[0]?.continuation;
      const stopping = { ...long, stop: [(await run(long)).text.slice(-3)] };
      for (const chat of [long, stopping]) {
        const whole = await run(chat);
        for (let cut = 0; cut <= whole.deltas.length; cut += 1) {
          const resume = received(whole.deltas.slice(0, cut));
          const rest = run(chat, { resume });
          if (continuation === 'none') expect(await codeOf(rest)).toBe('RESUME_REFUSED');
          else if (continuation === 'tokens') expectSame(expect, whole, resume, await rest);
          // Without ids the tokens of a text are guessed, and so is how many may follow.
          else if (chat === long) expectAlike(expect, whole.text, resume.text + (await rest).text);
          else await rest;
        }
      }
    });

    test('it has nothing to add to an answer that is as long as it may be', async ({ expect }) => {
      const whole = await run(long);
      expect(whole.done.finish).toBe('length');
      const { completionTokens } = whole.done;
      const resume = { ...received(whole.deltas), tokens: completionTokens };
      const rest = run(long, { resume });
      if (engine.models()[0]?.continuation === 'none') expect(await codeOf(rest)).toBe('RESUME_REFUSED');
      else expect(await rest).toMatchObject({ text: '', done: { finish: 'length', completionTokens: 0 } });
      expect(engine.stats().active).toBe(0);
    });

    test('it tells no more than what is left of its bound, whatever the ids of what was told come to', async ({
      expect,
    }) => {
      const { completionTokens } = (await run(long)).done;
      const resume = { tokenIds: [], text: '', tokens: completionTokens };
      const rest = run(long, { resume });
      if (engine.models()[0]?.continuation === 'none') expect(await codeOf(rest)).toBe('RESUME_REFUSED');
      else expect(await rest).toMatchObject({ text: '', done: { finish: 'length', completionTokens: 0 } });
      expect(engine.stats().active).toBe(0);
    });

    test('it does not go on from ids that stand for another text', async ({ expect }) => {
      const model = engine.models()[0];
      const { deltas } = await run(long);
      const resume = received(deltas.slice(0, 4));
      const rest = run(long, { resume: { ...resume, text: `#${resume.text.slice(1)}` } });
      // Where only the text counts, any text is one to go on from.
      if (model?.continuation === 'text') expect(await rest).toMatchObject({ done: { finish: expect.any(String) } });
      else expect(await codeOf(rest)).toBe('RESUME_REFUSED');
      expect(engine.stats().active).toBe(0);
    });

    test('it can go on with an answer of which all is shown', async ({ expect }) => {
      expect((await run(long)).deltas.some(({ isOpaque }) => isOpaque)).toBe(false);
    });

    if (capabilities.opaquePrompt !== undefined) {
      const content = capabilities.opaquePrompt;
      test('it says from where on nobody can go on with an answer', async ({ expect }) => {
        const { deltas } = await run({ ...long, messages: [{ role: 'user', content }] });
        expect(deltas.some(({ isOpaque }) => isOpaque)).toBe(true);
      });
    }
  });
}

/** The end of an answer that was cut, as if nobody had cut it. */
function expectSame(expect: ExpectStatic, whole: Answer, resume: Resume, rest: Answer): void {
  const { done, deltas, text } = rest;
  expect({
    text: resume.text + text,
    ids: [...resume.tokenIds, ...idsOf(deltas)],
    finish: done.finish,
    counted: resume.tokens + done.completionTokens,
  }).toEqual({
    text: whole.text,
    ids: idsOf(whole.deltas),
    finish: whole.done.finish,
    counted: whole.done.completionTokens,
  });
  expect(done.completionTokens).toBeLessThanOrEqual(bytesOf(text) + 1);
  expect(done.cachedTokens).toBeLessThanOrEqual(done.promptTokens);
  // Of an answer that was whole nothing may have been asked any more.
  if (done.completionTokens > 0) expect(done.promptTokens).toBe(whole.done.promptTokens);
}

/** One of two texts begins with the other. */
function expectAlike(expect: ExpectStatic, one: string, other: string): void {
  const length = Math.min(one.length, other.length);
  expect(other.slice(0, length)).toBe(one.slice(0, length));
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
