/** What an engine without a model remembers of prompts. */

import { describe, test } from 'vitest';
import { createPrefixCache, promptBlocks } from '../../../node/engines/prefix-cache.ts';

const blocks = (...contents: readonly string[]): number[] =>
  promptBlocks(contents.map((content) => ({ role: 'user', content })));
const long = (word: string, count = 100): string => `${word} `.repeat(count);

describe('the blocks of a prompt', () => {
  test('are those of another one as far as both are the same, and none after that', ({ expect }) => {
    const one = blocks(long('same', 64), long('one'));
    const other = blocks(long('same', 64), long('two'));
    const common = one.findIndex((block, at) => block !== other[at]);
    expect(common).toBe(5);
    expect(one.slice(common).some((block) => other.includes(block))).toBe(false);
    expect(blocks('short')).toEqual([]);
  });

  test('tell apart who says something', ({ expect }) => {
    const said = promptBlocks([{ role: 'assistant', content: long('same') }]);
    expect(said[0]).not.toBe(blocks(long('same'))[0]);
  });
});

describe('a prefix cache', () => {
  test('holds what was computed, in whole blocks of 16 tokens', ({ expect }) => {
    const cache = createPrefixCache(1_000);
    const prompt = blocks(long('word'));
    expect(cache.match(prompt)).toBe(0);
    cache.remember(prompt, 50);
    expect(cache.match(prompt)).toBe(48);
    cache.remember(prompt, 10_000);
    expect(cache.match(prompt)).toBe(prompt.length * 16);
    expect(cache.match(blocks(long('word'), 'and more'))).toBe(prompt.length * 16);
  });

  test('forgets what was not used for longest, ends of prompts before their beginnings', ({ expect }) => {
    const cache = createPrefixCache(6 * 16);
    const [one, two, three] = ['one', 'two', 'three'].map((word) => blocks(long(word, 50)).slice(0, 3)) as [
      number[],
      number[],
      number[],
    ];
    cache.remember(one, 48);
    cache.remember(two, 48);
    expect(cache.match(one)).toBe(48);
    cache.remember(three.slice(0, 1), 16);
    expect([one, two, three].map((prompt) => cache.match(prompt))).toEqual([48, 32, 16]);
  });

  test('holds the beginning of a prompt that is larger than it', ({ expect }) => {
    const cache = createPrefixCache(32);
    const prompt = blocks(long('large', 500));
    cache.remember(prompt, 10_000);
    expect(cache.match(prompt)).toBe(32);
    expect(createPrefixCache(0).match(prompt)).toBe(0);
  });
});
