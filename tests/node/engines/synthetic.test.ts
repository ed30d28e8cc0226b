/** The synthetic engine beyond the contract. */

import { describe, test } from 'vitest';
import { createSyntheticEngine } from '../../../node/engines/synthetic.ts';
import { systemClock } from '../../../protocol/adapters/clock.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import type { Engine, EngineDelta, Resume } from '../../../protocol/ports.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const never = new AbortController().signal;
const chat = (content: string, maxTokens?: number) => ({
  messages: [{ role: 'user' as const, content }],
  ...(maxTokens === undefined ? {} : { maxTokens }),
});

async function answerOf(engine: Engine, content: string, maxTokens: number, resume?: Resume) {
  const deltas: EngineDelta[] = [];
  const request = { model: 'synthetic', chat: chat(content, maxTokens), ...(resume && { resume }) };
  const done = await engine.generate(request, (delta) => void deltas.push(delta), never);
  return {
    done,
    text: deltas.map(({ text }) => text).join(''),
    ids: deltas.flatMap(({ tokenIds }) => [...tokenIds]),
  };
}

const textOf = async (engine: Engine, content: string, maxTokens: number): Promise<string> =>
  (await answerOf(engine, content, maxTokens)).text;

describe('the synthetic engine', () => {
  test('gives one delta a token, exactly as many as asked for', async ({ expect }) => {
    const engine = createSyntheticEngine({ clock: systemClock() });
    const deltas: EngineDelta[] = [];
    const take = (delta: EngineDelta) => void deltas.push(delta);
    const done = await engine.generate({ model: 'synthetic', chat: chat('hi', 1_000) }, take, never);
    expect(deltas.length).toBe(1_000);
    expect(deltas.every((delta) => delta.tokenIds.length === 1 && delta.text.length > 1)).toBe(true);
    expect(done).toMatchObject({ finish: 'length', completionTokens: 1_000 });
    expect(deltas.slice(0, 2).map(({ promptTokens }) => promptTokens)).toEqual([done.promptTokens, undefined]);
    const short = await engine.generate({ model: 'synthetic', chat: chat('hi') }, take, never);
    expect(short.completionTokens).toBe(16);
  });

  test('says the same as another one, and a longer answer begins with the shorter', async ({ expect }) => {
    const one = createSyntheticEngine({ clock: systemClock() });
    const other = createSyntheticEngine({ clock: systemClock() }, { slots: 3 });
    expect(other.models()[0]?.digest).toBe(one.models()[0]?.digest);
    const long = await textOf(one, 'a prompt', 50);
    expect(long.startsWith(await textOf(other, 'a prompt', 20))).toBe(true);
    expect(await textOf(one, 'another prompt', 50)).not.toBe(long);
  });

  test('lets a cancel through while it works at full speed', async ({ expect }) => {
    const engine = createSyntheticEngine({ clock: systemClock() });
    const abort = new AbortController();
    const reason = new Error('stop');
    const answer = engine.generate({ model: 'synthetic', chat: chat('hi', 100_000) }, () => undefined, abort.signal);
    setImmediate(() => abort.abort(reason));
    await expect(answer).rejects.toBe(reason);
  });

  test('paces each answer by itself', async ({ expect }) => {
    const clock = new ManualClock();
    const engine = createSyntheticEngine({ clock }, { tokensPerSecond: 10 });
    let tokens = 0;
    const count = (): undefined => {
      tokens += 1;
      return undefined;
    };
    const request = { model: 'synthetic', chat: chat('hi', 5) };
    const answers = Promise.all([engine.generate(request, count, never), engine.generate(request, count, never)]);
    for (let step = 1; step <= 5; step += 1) {
      await clock.advance(100);
      expect(tokens).toBe(step * 2);
    }
    expect((await answers).map(({ decodeMs }) => decodeMs)).toEqual([500, 500]);
  });

  test('takes an answer up where it was cut, and refuses ids of another prompt', async ({ expect }) => {
    const engine = createSyntheticEngine({ clock: systemClock() });
    const whole = await textOf(engine, 'a prompt', 50);
    const first = await answerOf(engine, 'a prompt', 20);
    const resume = { tokenIds: first.ids, text: first.text, tokens: 20 };
    const rest = await answerOf(engine, 'a prompt', 50, resume);
    expect(first.text + rest.text).toBe(whole);
    expect(rest.done).toMatchObject({ finish: 'length', completionTokens: 30 });
    const refusal = await answerOf(engine, 'another prompt', 50, resume).catch((error: unknown) => error);
    expect(isHelixFlowError(refusal, 'RESUME_REFUSED')).toBe(true);
    const swapped = { ...resume, tokenIds: first.ids.with(3, 0).with(4, 0) };
    const sameText = await answerOf(engine, 'a prompt', 50, swapped).catch((error: unknown) => error);
    expect(isHelixFlowError(sameText, 'RESUME_REFUSED')).toBe(true);
    const over = await answerOf(engine, 'a prompt', 20, resume);
    expect(over).toMatchObject({ text: '', ids: [], done: { finish: 'length', completionTokens: 0 } });
  });

  test('shows progress for prompts, tokens and ends', async ({ expect }) => {
    const clock = new ManualClock();
    const engine = createSyntheticEngine({ clock }, { prefillTokensPerSecond: 100, tokensPerSecond: 10 });
    const content = 'x'.repeat(400);
    const answer = engine.generate({ model: 'synthetic', chat: chat(content, 2) }, () => undefined, never);
    const seen: (number | undefined)[] = [];
    for (const stepMs of [500, 540, 100, 100]) {
      await clock.advance(stepMs);
      seen.push(engine.stats().progress);
    }
    // 104 tokens of the prompt, two of the answer, its end.
    expect(seen).toEqual([50, 104, 105, 107]);
    expect(await answer).toMatchObject({ promptTokens: 104, cachedTokens: 0, prefillMs: 1_040, decodeMs: 200 });
  });

  test('computes again only what it does not remember, the answer that it gave included', async ({ expect }) => {
    const clock = new ManualClock();
    const engine = createSyntheticEngine({ clock }, { prefillTokensPerSecond: 1_000, cacheTokens: 1_000 });
    const ask = async (messages: { role: 'user' | 'assistant'; content: string }[]) => {
      let text = '';
      const take = (delta: EngineDelta): undefined => {
        text += delta.text;
      };
      const request = { model: 'synthetic', chat: { messages, maxTokens: 40 } };
      const answer = engine.generate(request, take, never);
      await clock.advance(10_000);
      const { promptTokens, cachedTokens, prefillMs } = await answer;
      expect(prefillMs).toBe(promptTokens - cachedTokens);
      return { text, promptTokens, cachedTokens };
    };
    const first = { role: 'user' as const, content: 'word '.repeat(100) };
    const { text, promptTokens, cachedTokens } = await ask([first]);
    expect(cachedTokens).toBe(0);
    const again = await ask([first]);
    // But for the last block, and four tokens a message that stand for no text.
    expect(again.cachedTokens).toBeGreaterThan(promptTokens - 24);
    expect(again.cachedTokens).toBeLessThan(promptTokens);
    const next = { role: 'user' as const, content: 'and then?' };
    const turn = await ask([first, { role: 'assistant', content: text }, next]);
    expect(turn.cachedTokens).toBeGreaterThan(promptTokens + text.length / 4 - 24);
    const other = await ask([{ role: 'user', content: 'else '.repeat(100) }]);
    expect(other.cachedTokens).toBe(0);
  });

  test('remembers what it had computed of a prompt that nobody wants any more', async ({ expect }) => {
    const clock = new ManualClock();
    const engine = createSyntheticEngine({ clock }, { prefillTokensPerSecond: 100, cacheTokens: 2_000 });
    const request = { model: 'synthetic', chat: chat('x'.repeat(4_000), 1) };
    const abort = new AbortController();
    const reason = new Error('gone');
    const answer = engine.generate(request, () => undefined, abort.signal);
    await clock.advance(3_000);
    abort.abort(reason);
    await expect(answer).rejects.toBe(reason);
    expect([engine.stats().active, clock.timers]).toEqual([0, 0]);
    const again = engine.generate(request, () => undefined, never);
    await clock.advance(10_000);
    expect((await again).cachedTokens).toBe(288);
  });

  test('computes the tokens of an answer that it takes up, too', async ({ expect }) => {
    const clock = new ManualClock();
    const engine = createSyntheticEngine({ clock }, { prefillTokensPerSecond: 1_000 });
    const first = engine.generate({ model: 'synthetic', chat: chat('hi', 200) }, () => undefined, never);
    await clock.advance(1_000);
    const { promptTokens } = await first;
    const { text, ids } = await answerOf(createSyntheticEngine({ clock }), 'hi', 200);
    const resume = { tokenIds: ids, text, tokens: 200 };
    const request = { model: 'synthetic', chat: chat('hi', 201), resume };
    const second = engine.generate(request, () => undefined, never);
    await clock.advance(1_000);
    expect(await second).toMatchObject({ promptTokens, cachedTokens: 0, prefillMs: promptTokens + 200 });
    const over = await engine.generate({ ...request, chat: chat('hi', 200) }, () => undefined, never);
    expect(over).toMatchObject({ completionTokens: 0, prefillMs: 0, cachedTokens: promptTokens });
  });

  test('serves as many as it has slots for; others wait, and may leave', async ({ expect }) => {
    const clock = new ManualClock();
    const engine = createSyntheticEngine({ clock }, { slots: 2, tokensPerSecond: 10 });
    const tokens = [0, 0, 0, 0];
    const aborts = tokens.map(() => new AbortController());
    const reason = new Error('left');
    const answers = tokens.map((_, index) => {
      const take = (): undefined => {
        tokens[index] = (tokens[index] ?? 0) + 1;
      };
      return engine.generate({ model: 'synthetic', chat: chat('hi', 5) }, take, aborts[index]?.signal ?? never);
    });
    const outcomes = Promise.allSettled(answers);
    await clock.advance(300);
    expect(tokens).toEqual([3, 3, 0, 0]);
    expect(engine.stats()).toMatchObject({ active: 4, slots: 2 });
    aborts[2]?.abort(reason);
    await expect(answers[2]).rejects.toBe(reason);
    aborts[0]?.abort(reason);
    await expect(answers[0]).rejects.toBe(reason);
    await clock.advance(200);
    expect(tokens).toEqual([3, 5, 0, 2]);
    await clock.advance(300);
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'rejected', 'fulfilled']);
    expect(engine.stats().active).toBe(0);
    const last = answerOf(engine, 'hi', 1);
    await clock.advance(100);
    expect((await last).ids.length).toBe(1);
  });

  test('never passes for a model', ({ expect }) => {
    const create = (): unknown => createSyntheticEngine({ clock: systemClock() }, { name: 'llama-70b' });
    let code: string | undefined;
    try {
      create();
    } catch (error) {
      if (isHelixFlowError(error)) code = error.code;
    }
    expect(code).toBe('CONFIG_INVALID');
    const engine = createSyntheticEngine({ clock: systemClock() }, { name: 'my-synthetic' });
    expect(engine.models()[0]).toMatchObject({ name: 'my-synthetic', digestKind: 'synthetic' });
  });
});
