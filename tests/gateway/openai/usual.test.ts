/** Requests of the usual shape are read without the schema, and come out as the schema reads them. */

import fc from 'fast-check';
import { test } from 'vitest';
import { parseChatBody } from '../../../gateway/openai/chat.ts';
import { isUsualBody, isUsualMessage, modelMaxChars } from '../../../gateway/openai/usual.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';

/** What came of it: the request, or the refusal with its parameter. */
function outcome(body: unknown): unknown {
  try {
    return parseChatBody(body);
  } catch (error) {
    if (!isHelixFlowError(error)) throw error;
    return [error.code, (error.details as { param?: string }).param];
  }
}

const odd = fc.constantFrom<unknown>(null, true, 'text', '', -1, 0, 0.5, 1, 2, 3, 1e300, 2 ** 53, {}, [], [null]);
const maybe = (...usual: readonly unknown[]) => fc.option(fc.oneof(fc.constantFrom(...usual), odd), { nil: undefined });
const given = (fields: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));

const message = fc
  .record({
    role: maybe('user', 'system', 'developer', 'assistant', 'tool', 'USER'),
    content: maybe('Hi', '', 'größer'),
    refusal: fc.constantFrom(undefined, undefined, null, 'no', 1),
    tool_calls: fc.constantFrom(undefined, undefined, null, [], [1]),
    function_call: fc.constantFrom(undefined, undefined, null, {}),
    audio: fc.constantFrom(undefined, undefined, null, {}),
    name: fc.constantFrom(undefined, 'x'),
  })
  .map(given);
const body = fc
  .record({
    model: maybe('m', 'x'.repeat(modelMaxChars), 'x'.repeat(modelMaxChars + 1)),
    messages: fc.oneof(fc.array(fc.oneof({ weight: 9, arbitrary: message }, odd), { maxLength: 4 }), odd),
    stream: maybe(true, false),
    stream_options: maybe({ include_usage: true }, { include_usage: null }, { include_usage: 1 }),
    max_tokens: maybe(1, 100, 20_000_000),
    max_completion_tokens: maybe(1, 100),
    temperature: maybe(0, 0.7, 2, 2.1),
    top_p: maybe(0, 0.5, 1, 1.1),
    seed: maybe(-7, 42, 2 ** 53 - 1, -(2 ** 53)),
    user: maybe('me'),
    helixflow: maybe({ region: 'home' }),
  })
  .map(given);

/** Changes nothing of what is asked for, but is not usual. */
const byTheSchema = (asked: Record<string, unknown>): Record<string, unknown> => ({
  ...asked,
  stop: [],
  messages: Array.isArray(asked['messages']) ? asked['messages'].map(oddly) : asked['messages'],
});
/** A refusal beside a text is not looked at. */
const oddly = (one: unknown): unknown =>
  isUsualMessage(one) ? { ...one, refusal: 'not looked at beside a text' } : one;

test('whatever is asked for, both ways of reading it agree', ({ expect }) => {
  let usual = 0;
  fc.assert(
    fc.property(body, (asked) => {
      if (isUsualBody(asked)) usual += 1;
      expect(isUsualBody(byTheSchema(asked))).toBe(false);
      expect(outcome(asked)).toEqual(outcome(byTheSchema(asked)));
    }),
    { numRuns: 3_000 },
  );
  expect(usual).toBeGreaterThan(10);
});

test('what clients send every day is usual', ({ expect }) => {
  const messages = [{ role: 'user', content: 'Hi' }];
  expect(isUsualBody({ model: 'm', messages, max_tokens: 5, temperature: 0.7, top_p: 1, seed: 3 })).toBe(true);
  expect(isUsualBody({ model: 'm', messages, stream: true, stream_options: { include_usage: true } })).toBe(true);
  expect([...messages, { role: 'tool', content: 'x' }].every(isUsualMessage)).toBe(true);
});
