/** An answer that is taken up comes out as if nobody had cut it, whatever its tokens are and wherever the cut is. */

import '../../../support/seed.ts';
import fc from 'fast-check';
import type { Token } from 'node-llama-cpp';
import { describe, test } from 'vitest';
import { createWriting } from '../../../../node/engines/llama/writing.ts';
import { isHelixFlowError } from '../../../../protocol/errors.ts';
import type { EngineDelta, Resume } from '../../../../protocol/ports.ts';
import { byteModel, cutBytes } from './byte-model.ts';

/** What a model would say, token for token; after the last one comes its end token. */
interface Script {
  readonly tokens: readonly Uint8Array[];
  readonly stop: readonly string[];
  readonly maxTokens?: number;
}

const contextTokens = 10_000;
const bytesIn = (text: string): number => Buffer.byteLength(text);

/** Says what is left of the script after `resume`. */
function write({ tokens, stop, maxTokens }: Script, resume?: Resume) {
  const eog = tokens.length;
  const runtime = { model: byteModel(tokens, eog), contextTokens, vocabularySize: eog + 1 };
  const chat = { messages: [], stop: [...stop], ...(maxTokens === undefined ? {} : { maxTokens }) };
  const writing = createWriting(runtime, [], { chat, ...(resume && { resume }) });
  const deltas: EngineDelta[] = [];
  let next = writing.ids.length;
  for (; writing.finish === undefined; next += 1) {
    const delta = writing.add(next as Token);
    if (delta !== undefined) deltas.push(delta);
  }
  const rest = writing.rest();
  if (rest !== undefined) deltas.push(rest);
  return { deltas, finish: writing.finish, counted: writing.counted(), next, ...sum(deltas) };
}

const sum = (deltas: readonly EngineDelta[]) => ({
  text: deltas.map(({ text }) => text).join(''),
  ids: deltas.flatMap(({ tokenIds }) => [...tokenIds]),
});

/** What a receiver can have of it. */
function received(deltas: readonly EngineDelta[]): Resume {
  const { text, ids } = sum(deltas);
  return { text, tokenIds: ids, tokens: Math.min(ids.length, bytesIn(text) + 1) };
}

const unit = fc.constantFrom('a', 'b', ' ', 'é', '漢', '😀', '👩‍🚀', 'e\u0301');
const scripts: fc.Arbitrary<Script> = fc
  .record({
    whole: fc.string({ unit, maxLength: 24 }),
    sizes: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 6 }),
    // Tokens without text, and bytes that never become a character.
    odd: fc.array(fc.tuple(fc.nat(30), fc.constantFrom(Buffer.alloc(0), Buffer.of(0xf0), Buffer.of(0x80))), {
      maxLength: 3,
    }),
    stop: fc.array(fc.string({ unit, minLength: 1, maxLength: 4 }), { maxLength: 3 }),
    maxTokens: fc.option(fc.integer({ min: 1, max: 30 }), { nil: undefined }),
  })
  .map(({ whole, sizes, odd, stop, maxTokens }) => {
    const tokens = cutBytes(Buffer.from(whole), sizes);
    for (const [at, bytes] of odd) tokens.splice(at, 0, bytes);
    return { tokens, stop, ...(maxTokens === undefined ? {} : { maxTokens }) };
  });

describe('an answer', () => {
  test('tells the ids of all tokens that were generated, in order', ({ expect }) => {
    fc.assert(
      fc.property(scripts, (script) => {
        const { ids, next } = write(script);
        expect(ids).toEqual(Array.from({ length: next }, (_, id) => id));
      }),
    );
  });
});

describe('an answer that is taken up', () => {
  test('is the one that nobody cut: text, ids, end and counts, wherever the cut is', ({ expect }) => {
    fc.assert(
      fc.property(scripts, (script) => {
        const whole = write(script);
        for (let cut = 0; cut <= whole.deltas.length; cut += 1) {
          const resume = received(whole.deltas.slice(0, cut));
          const rest = write(script, resume);
          expect(resume.text + rest.text).toBe(whole.text);
          expect([...resume.tokenIds, ...rest.ids]).toEqual(whole.ids);
          expect(rest.finish).toBe(whole.finish);
          // As `createAnswerText` says: exact unless ids outnumber bytes, and at most one end token more.
          const counted = resume.tokens + rest.counted;
          expect(counted).toBeLessThanOrEqual(whole.counted + 1);
          const outnumbered = resume.tokenIds.length > bytesIn(resume.text) || rest.ids.length > bytesIn(rest.text) + 1;
          if (!outnumbered) expect(counted).toBe(whole.counted);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test('may be cut after each of its pieces', ({ expect }) => {
    fc.assert(
      fc.property(scripts, (script) => {
        const whole = write(script);
        const pieces: EngineDelta[] = [];
        for (;;) {
          const [next] = write(script, received(pieces)).deltas;
          if (next === undefined) break;
          pieces.push(next);
        }
        expect(sum(pieces)).toEqual({ text: whole.text, ids: whole.ids });
      }),
    );
  });

  test('tells text only together with ids, but for what is held back at its end', ({ expect }) => {
    fc.assert(
      fc.property(scripts, fc.nat(), (script, at) => {
        const whole = write(script);
        const rest = write(script, received(whole.deltas.slice(0, at % (whole.deltas.length + 1))));
        expect(rest.deltas.slice(0, -1).every(({ tokenIds }) => tokenIds.length > 0)).toBe(true);
      }),
    );
  });

  test('goes on in the middle of the text of an id that was told', ({ expect }) => {
    const script = { tokens: ['abc', 'xd', 'e'].map((text) => Buffer.from(text)), stop: ['cd'] };
    const whole = write(script);
    expect(whole.deltas[0]).toEqual({ text: 'ab', tokenIds: [0] });
    expect(write(script, received(whole.deltas.slice(0, 1))).deltas).toEqual([
      { text: 'cxd', tokenIds: [1] },
      { text: 'e', tokenIds: [2] },
      { text: '', tokenIds: [3] },
    ]);
  });

  test('makes no stop text of what was shown', ({ expect }) => {
    const script = { tokens: ['abc', 'dcd'].map((text) => Buffer.from(text)), stop: ['cd'] };
    expect(write(script, { text: 'abc', tokenIds: [0], tokens: 1 })).toMatchObject({ text: 'd', finish: 'stop' });
  });

  test('is over at once when it was over', ({ expect }) => {
    const tokens = ['ab', 'cd', 'ef'].map((text) => Buffer.from(text));
    const over = { text: '', ids: [], counted: 0 };
    expect(write({ tokens, stop: [] }, { text: 'abcdef', tokenIds: [0, 1, 2, 3], tokens: 4 })).toMatchObject({
      ...over,
      finish: 'stop',
    });
    expect(write({ tokens, stop: ['cd'] }, { text: 'ab', tokenIds: [0, 1], tokens: 2 })).toMatchObject({
      ...over,
      finish: 'stop',
    });
    expect(write({ tokens, stop: [], maxTokens: 2 }, { text: 'abcd', tokenIds: [0, 1], tokens: 2 })).toMatchObject({
      ...over,
      finish: 'length',
    });
    expect(write({ tokens, stop: [], maxTokens: 2 }, { text: 'abc', tokenIds: [0, 1], tokens: 2 })).toMatchObject({
      ...over,
      text: 'd',
      finish: 'length',
    });
  });
});

describe('text beyond the ids received', () => {
  const tokens = ['ab', 'cd', 'ef'].map((text) => Buffer.from(text));

  test('is not told again when it comes', ({ expect }) => {
    const rest = write({ tokens, stop: [] }, { text: 'abcde', tokenIds: [0], tokens: 1 });
    expect(rest).toMatchObject({ text: 'f', ids: [1, 2, 3], counted: 2 });
  });

  test('ends the answer as refused when something else comes, or nothing', ({ expect }) => {
    const failure = (text: string): string | undefined => {
      try {
        write({ tokens, stop: [] }, { text, tokenIds: [0], tokens: 1 });
        return undefined;
      } catch (error) {
        return isHelixFlowError(error) ? error.code : String(error);
      }
    };
    expect(['abx', 'abcdefg', 'ax', 'abcdef'].map(failure)).toEqual([
      'RESUME_REFUSED',
      'RESUME_REFUSED',
      'RESUME_REFUSED',
      undefined,
    ]);
  });
});

describe('ids that no answer can have', () => {
  test('are refused', ({ expect }) => {
    const runtime = { model: byteModel([Buffer.from('a')], 1), contextTokens: 8, vocabularySize: 2 };
    const prompt = [0, 0, 0] as Token[];
    const refusal = (tokenIds: readonly number[]): string | undefined => {
      const text = 'a'.repeat(tokenIds.filter((id) => id === 0).length);
      try {
        createWriting(runtime, prompt, { chat: { messages: [] }, resume: { text, tokenIds, tokens: tokenIds.length } });
        return undefined;
      } catch (error) {
        return isHelixFlowError(error, 'RESUME_REFUSED') ? error.details.reason : String(error);
      }
    };
    expect(refusal([0, 0, 0, 0, 0])).toBeUndefined();
    expect(refusal([0, 0, 1])).toBeUndefined();
    expect(refusal([0, 0, 0, 0, 0, 0])).toMatch(/context/);
    expect(refusal([0, 2])).toMatch(/vocabulary/);
    expect(refusal([-1])).toMatch(/vocabulary/);
    expect(refusal([0.5])).toMatch(/vocabulary/);
    expect(refusal([1, 0])).toMatch(/after the end/);
  });
});
