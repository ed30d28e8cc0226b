/** The words of a refusal: what to send, for a developer who has never seen our code. */

import fc from 'fast-check';
import { test } from 'vitest';
import { parseChatBody } from '../../../gateway/openai/chat.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';

const user = { role: 'user', content: 'Hi' };

/** Why a body with this in it is refused. */
function reasonOf(more: object): string | undefined {
  try {
    parseChatBody({ model: 'm', messages: [user], ...more });
  } catch (error) {
    if (!isHelixFlowError(error)) throw error;
    return (error.details as { reason?: string }).reason;
  }
  return undefined;
}

test.for([
  [{ model: '' }, "'model': send at least 1 character."],
  [{ model: 'm'.repeat(1_000) }, "'model': send at most 193 characters."],
  [{ model: 5 }, "'model': send a string, not a number."],
  [{ messages: [] }, "'messages': send at least 1 element."],
  [{ messages: [{ role: 'user', content: 5 }] }, "'messages[0].content': send a string or an array, not a number."],
  [{ messages: [{ role: 'user', content: [] }] }, "'messages[0].content': send at least 1 part."],
  [{ stop: ['a', 5] }, "'stop[1]': send a string, not a number."],
  [{ stop: Array(17).fill('x') }, "'stop': send at most 16 elements."],
  [{ stream: 'yes' }, "'stream': send true or false, not a string."],
  [{ stream_options: [] }, "'stream_options': send an object, not an array."],
  [{ max_tokens: 0 }, "'max_tokens': send a number of at least 1."],
  [{ max_tokens: 1.5 }, "'max_tokens': send a whole number."],
  [{ temperature: 2.1 }, "'temperature': send a number of at most 2."],
  [{ tools: {} }, "'tools': send an array."],
  [{ tool_choice: 5 }, "'tool_choice': send a string or an object."],
] as const)('%j', ([more, words], { expect }) => {
  expect(reasonOf(more)).toBe(`Invalid value for ${words}`);
});

test('whatever a field is given, no word of a library is said', ({ expect }) => {
  const names = ['model', 'messages', 'stream', 'stream_options', 'stop', 'temperature', 'seed', 'n', 'tools', 'user'];
  let refused = 0;
  fc.assert(
    fc.property(fc.constantFrom(...names), fc.jsonValue(), (name, value) => {
      const reason = reasonOf({ [name]: value });
      if (reason === undefined) return;
      refused += 1;
      expect(reason).not.toMatch(/Too (small|big)|Invalid (input|option|string)|received|[<>]=/);
    }),
    { numRuns: 500 },
  );
  expect(refused).toBeGreaterThan(50);
});
