/** A cancel reaches the llama engine whatever it is doing, and its promise settles when the slot is free. */

import { afterAll, beforeAll, describe, test } from 'vitest';
import { windowDeltas } from '../../../../node/engines/llama/messages.ts';
import type { Engine, EngineDelta } from '../../../../protocol/ports.ts';
import { ask, openEmbedded, type TestEngine } from './fixture.ts';
import { until } from './processes.ts';

const reason = new Error('nobody wants it any more');
/** The model counts on and on. */
const endless = 'Count from 1 to 100';
const longText = Array.from({ length: 190 }, (_, index) => `word ${index}`).join(' ');

type Take = (delta: EngineDelta) => Promise<void> | undefined;

/** An answer that takes long; `abort` ends it. */
function start(engine: Engine, content: string, take: Take) {
  const abort = new AbortController();
  const chat = { messages: [{ role: 'user' as const, content }], temperature: 0 };
  const answer = engine.generate({ model: 'helix-tiny', chat }, take, abort.signal);
  return { answer, abort: (): void => abort.abort(reason) };
}

const takeNothing: Take = () => new Promise(() => {});

describe('a cancel', () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = await openEmbedded({ slots: 1 });
  });
  afterAll(() => engine.close());

  /** The only slot is free, and the child at rest. */
  const isFree = async (): Promise<boolean> =>
    engine.stats().active === 0 && (await ask(engine, 'hi', { maxTokens: 1 })).done.completionTokens === 1;

  test('reaches an answer that waits for a slot, and leaves the others where they are', async ({ expect }) => {
    const holding = start(engine, endless, takeNothing);
    const waiting = start(engine, 'wait', () => undefined);
    const behind = ask(engine, 'hi', { maxTokens: 1 });
    await until(() => engine.stats().active === 3);
    waiting.abort();
    await expect(waiting.answer).rejects.toBe(reason);
    expect(engine.stats().active).toBe(2);
    holding.abort();
    await expect(holding.answer).rejects.toBe(reason);
    expect((await behind).done.completionTokens).toBe(1);
    expect(await isFree()).toBe(true);
  });

  test('reaches prompts in the middle: what was computed is remembered, the rest is not computed', async ({
    expect,
  }) => {
    // One that has not worked yet tells at once when it does; several prompts take long enough.
    await using fresh = await openEmbedded({ slots: 4 });
    const contents = ['one', 'two', 'three', 'four'].map((first) => `${first} ${longText}`);
    const prompts = contents.map((content) => start(fresh, content, () => undefined));
    await until(() => fresh.stats().progress !== 0);
    for (const prompt of prompts) prompt.abort();
    const outcomes = await Promise.allSettled(prompts.map(({ answer }) => answer));
    expect(outcomes).toEqual(prompts.map(() => ({ status: 'rejected', reason })));
    expect(fresh.stats().active).toBe(0);
    const again = await Promise.all(contents.map((content) => ask(fresh, content, { maxTokens: 1 })));
    for (const { done } of again) expect(done.cachedTokens).toBeLessThan(done.promptTokens - 100);
    expect(Math.max(...again.map(({ done }) => done.cachedTokens))).toBeGreaterThan(10);
  });

  test('reaches an answer between two tokens', async ({ expect }) => {
    let pieces = 0;
    const writing = start(engine, endless, () => {
      pieces += 1;
      if (pieces === 5) writing.abort();
      return undefined;
    });
    await expect(writing.answer).rejects.toBe(reason);
    expect(pieces).toBe(5);
    expect(await isFree()).toBe(true);
  });

  test('reaches an answer whose consumer has stopped to take it', async ({ expect }) => {
    const before = engine.stats().progress ?? 0;
    let pieces = 0;
    const stalled = start(engine, endless, () => {
      pieces += 1;
      return new Promise(() => {});
    });
    // The child is as far ahead as it may be.
    await until(() => (engine.stats().progress ?? 0) >= before + windowDeltas);
    stalled.abort();
    await expect(stalled.answer).rejects.toBe(reason);
    expect(pieces).toBe(1);
    expect(await isFree()).toBe(true);
  });

  test('reaches an answer that is taken up', async ({ expect }) => {
    const whole = await ask(engine, 'Write a poem about the ocean.', { temperature: 0 });
    const pieces = whole.deltas.slice(0, 9);
    const resume = {
      text: pieces.map(({ text }) => text).join(''),
      tokenIds: pieces.flatMap(({ tokenIds }) => [...tokenIds]),
      tokens: 9,
    };
    const abort = new AbortController();
    const signal = abort.signal;
    const answer = ask(engine, 'Write a poem about the ocean.', { temperature: 0 }, { resume, signal });
    abort.abort(reason);
    await expect(answer).rejects.toBe(reason);
    expect(await isFree()).toBe(true);
  });
});
