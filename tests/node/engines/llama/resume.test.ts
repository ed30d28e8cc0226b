/** The llama engine goes on with answers of another process as if nobody had cut them, at every position. */

import { afterAll, beforeAll, describe, test } from 'vitest';
import type { ChatRequest } from '../../../../protocol/messages/chat.ts';
import type { EngineDelta, Resume } from '../../../../protocol/ports.ts';
import { ask, failureOf, openEmbedded, type TestEngine } from './fixture.ts';

type Sampling = Omit<ChatRequest, 'messages'>;

/** What came before a cut. */
function received(deltas: readonly EngineDelta[]): Resume {
  const tokenIds = deltas.flatMap((delta) => [...delta.tokenIds]);
  return { tokenIds, text: deltas.map(({ text }) => text).join(''), tokens: tokenIds.length };
}

const poem = 'Write a poem about the ocean.';
/** Four to five tokens a word. */
const longText = (words: number): string => Array.from({ length: words }, (_, index) => `word ${index}`).join(' ');

const cases: readonly [content: string, sampling: Sampling][] = [
  [poem, { temperature: 0 }],
  ['Count from 1 to 10', { temperature: 0, stop: ['9', '7, 9'] }],
  ['Tell me a long story about a dragon', { temperature: 0, maxTokens: 20 }],
  [poem, { temperature: 1, seed: 7 }],
  // Hot enough for bytes of characters that the model never learnt, after a prompt of many chunks.
  [`${longText(70)}. Now write a poem about the ocean.`, { temperature: 2, seed: 4, maxTokens: 40 }],
];

describe('an answer of the llama engine that another process takes up', () => {
  let one: TestEngine;
  let other: TestEngine;
  beforeAll(async () => {
    // A slot of its own would remember the answer; with one slot, a question between makes it forget.
    [one, other] = await Promise.all([openEmbedded({ slots: 2 }), openEmbedded({ slots: 1 })]);
  });
  afterAll(() => Promise.all([one.close(), other.close()]));

  for (const [content, sampling] of cases) {
    test(`is the same from every position: '${content.slice(-30)}', ${JSON.stringify(sampling)}`, async ({
      expect,
    }) => {
      const whole = await ask(one, content, sampling);
      expect(whole.deltas.length).toBeGreaterThan(10);
      for (let cut = 0; cut <= whole.deltas.length; cut += 1) {
        const resume = received(whole.deltas.slice(0, cut));
        await ask(other, `Something else: ${cut}`, { maxTokens: 1 });
        const rest = await ask(other, content, sampling, { resume });
        expect({
          text: resume.text + rest.text,
          ids: [...resume.tokenIds, ...received(rest.deltas).tokenIds],
          finish: rest.done.finish,
          counted: resume.tokens + rest.done.completionTokens,
          promptTokens: rest.done.promptTokens,
        }).toEqual({
          text: whole.text,
          ids: received(whole.deltas).tokenIds,
          finish: whole.done.finish,
          counted: whole.done.completionTokens,
          promptTokens: whole.done.promptTokens,
        });
        expect(rest.done.cachedTokens).toBeLessThanOrEqual(rest.done.promptTokens);
      }
    });
  }

  test('is the same beside others, and where the beginning is remembered', async ({ expect }) => {
    const sampling = { temperature: 0 };
    const whole = await ask(other, poem, sampling);
    const resume = received(whole.deltas.slice(0, 9));
    const [beside] = await Promise.all([
      ask(one, poem, sampling, { resume }),
      ask(one, 'Tell me a joke', { temperature: 0 }),
    ]);
    expect(resume.text + beside.text).toBe(whole.text);
    const again = await ask(one, poem, sampling, { resume });
    expect(again.text).toBe(beside.text);
    expect(again.done.cachedTokens).toBe(again.done.promptTokens);
  });

  test('keeps what was shown and the limit of tokens where chance is not tied to a seed', async ({ expect }) => {
    const sampling = { temperature: 2, maxTokens: 24 };
    const whole = await ask(one, poem, { ...sampling, seed: 3 });
    const resume = received(whole.deltas.slice(0, 10));
    const rest = await ask(other, poem, sampling, { resume });
    expect(rest.text).not.toBe('');
    const { finish, completionTokens } = rest.done;
    if (finish === 'length') expect(resume.tokens + completionTokens).toBe(24);
    else expect(resume.tokens + completionTokens).toBeLessThanOrEqual(24);
  });

  test('fills the context together with its beginning', async ({ expect }) => {
    const content = `${longText(190)} ${'and so on '.repeat(52)}`;
    const hot = { temperature: 2, seed: 2 };
    const whole = await ask(one, content, hot);
    expect(whole.done.finish).toBe('length');
    const resume = received(whole.deltas.slice(0, whole.deltas.length >> 1));
    const rest = await ask(other, content, hot, { resume });
    expect(resume.text + rest.text).toBe(whole.text);
    expect(rest.done.promptTokens + resume.tokens + rest.done.completionTokens).toBe(1_024);
    const over = await ask(other, content, hot, { resume: received(whole.deltas) });
    expect(over).toMatchObject({ text: '', deltas: [], done: { finish: 'length', completionTokens: 0 } });
  });

  test('is refused where its ids are none, or too many, or do not stand for its text', async ({ expect }) => {
    const whole = await ask(one, poem, { temperature: 0 });
    const resume = received(whole.deltas.slice(0, 5));
    const refusal = (changes: Partial<Resume>) =>
      failureOf(ask(other, poem, { temperature: 0 }, { resume: { ...resume, ...changes } }));
    const refused = { code: 'RESUME_REFUSED' };
    expect(await refusal({ tokenIds: [...resume.tokenIds, 2_048] })).toMatchObject(refused);
    expect(await refusal({ tokenIds: Array.from({ length: 1_025 }, () => resume.tokenIds[0] ?? 0) })).toMatchObject(
      refused,
    );
    expect(await refusal({ text: `${resume.text.slice(0, -1)}#` })).toMatchObject(refused);
    expect(await refusal({ text: `${resume.text}#` })).toMatchObject(refused);
    expect(other.stats().active).toBe(0);
    expect(await refusal({})).toBeUndefined();
  });
});
