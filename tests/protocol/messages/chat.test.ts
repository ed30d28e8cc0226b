/** The body of an `open`: a node takes what a gateway may send, and trusts none of it. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import { type ChatRequest, encodeChatRequest, parseChatRequest } from '../../../protocol/messages/chat.ts';

const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const messages = [{ role: 'user', content: 'hi' }] as const;

function refusal(body: Uint8Array): unknown {
  try {
    return parseChatRequest(body);
  } catch (error) {
    if (isHelixFlowError(error, 'REQUEST_MALFORMED')) return error.details.param ?? 'no param';
    throw error;
  }
}

const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const chats = fc
  .record({
    messages: fc.array(
      fc.record({
        role: fc.constantFrom('system' as const, 'user' as const, 'assistant' as const, 'tool' as const),
        content: fc.string({ unit: 'binary' }),
      }),
      { minLength: 1, maxLength: 20 },
    ),
    maxTokens: optional(fc.integer({ min: 1, max: 10_000_000 })),
    stop: optional(fc.array(fc.string({ minLength: 1, maxLength: 100 }), { maxLength: 16 })),
    temperature: optional(fc.double({ min: 0, max: 2, noNaN: true }).map((value) => value + 0)),
    topP: optional(fc.double({ min: 0, max: 1, noNaN: true }).map((value) => value + 0)),
    seed: optional(fc.maxSafeInteger()),
  })
  .map((chat) => JSON.parse(JSON.stringify(chat)) as ChatRequest);

describe('a chat request', () => {
  test('is read as it was written', ({ expect }) => {
    fc.assert(
      fc.property(chats, (chat) => {
        expect(parseChatRequest(encodeChatRequest(chat))).toEqual(chat);
      }),
    );
  });

  test.for<[string, unknown, string]>([
    ['no messages', {}, 'messages'],
    ['an empty list of messages', { messages: [] }, 'messages'],
    ['too many messages', { messages: Array.from({ length: 10_001 }, () => messages[0]) }, 'messages'],
    ['a role that is none', { messages: [{ role: 'root', content: '' }] }, 'messages.0.role'],
    ['content that is a list', { messages: [{ role: 'user', content: [] }] }, 'messages.0.content'],
    ['a field that nobody knows', { messages, tools: [] }, ''],
    ['a cap of 0', { messages, maxTokens: 0 }, 'maxTokens'],
    ['a cap with a fraction', { messages, maxTokens: 1.5 }, 'maxTokens'],
    ['an empty stop', { messages, stop: [''] }, 'stop.0'],
    ['too many stops', { messages, stop: Array.from({ length: 17 }, () => 'x') }, 'stop'],
    ['a temperature above 2', { messages, temperature: 2.1 }, 'temperature'],
    ['a temperature that is null', { messages, temperature: null }, 'temperature'],
    ['a top_p above 1', { messages, topP: 1.1 }, 'topP'],
    ['a seed beyond 2^53', { messages, seed: 2 ** 60 }, 'seed'],
  ])('with %s is refused, by name', ([, value, param], { expect }) => {
    expect(refusal(json(value))).toBe(param);
  });

  test('that is no JSON, or no UTF-8, is refused', ({ expect }) => {
    for (const body of [[], [0x7b], [0xff, 0xfe], [0x22, 0xc0, 0x80, 0x22]]) {
      expect(refusal(new Uint8Array(body))).toBe('no param');
    }
    expect(refusal(json([]))).toBe('');
    expect(refusal(json(null))).toBe('');
  });

  test('of any bytes at all is read or refused, and nothing else is thrown', ({ expect }) => {
    const bodies = fc.oneof(fc.uint8Array({ maxLength: 100 }), fc.jsonValue().map(json), fc.object().map(json));
    fc.assert(
      fc.property(bodies, (body) => {
        expect(refusal(body)).toBeDefined();
      }),
      { numRuns: 500 },
    );
  });

  test('nested without end is refused', ({ expect }) => {
    const depth = 200_000;
    expect(refusal(new TextEncoder().encode('['.repeat(depth) + ']'.repeat(depth)))).toBeDefined();
  });
});
