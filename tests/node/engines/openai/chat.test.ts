/** An upstream's words as ours: chunks, refusals, lists of models. */

import '../../../support/seed.ts';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { createChatStream, splitText } from '../../../../node/engines/openai/chat.ts';
import { readBaseUrl } from '../../../../node/engines/openai/engine.ts';
import { readModels } from '../../../../node/engines/openai/models.ts';
import { explainRefusal } from '../../../../node/engines/openai/refusals.ts';
import { isHelixFlowError } from '../../../../protocol/errors.ts';
import { limits } from '../../../../protocol/limits.ts';
import type { ChatRequest } from '../../../../protocol/messages/chat.ts';
import { chunk, event } from '../../../support/upstream-server.ts';

const chat: ChatRequest = { messages: [{ role: 'user', content: 'hi' }] };
const encoder = new TextEncoder();

function codeOf(work: () => unknown): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    if (isHelixFlowError(error)) return error.code;
    throw error;
  }
}

describe('a stream of chunks', () => {
  const whole =
    `: ping\n\n${event({ choices: [{ delta: { role: 'assistant', content: '' } }] })}${chunk('Grüße')}${chunk(' 😀')}` +
    `${chunk('', 'stop')}${event({ choices: [], usage: { prompt_tokens: 9, completion_tokens: 4, prompt_tokens_details: { cached_tokens: 3 } } })}data: [DONE]\n\n`;

  test('gives the same texts and counts however the bytes arrive', ({ expect }) => {
    const bytes = encoder.encode(whole);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1 }), (sizes) => {
        const stream = createChatStream(chat);
        const texts: string[] = [];
        for (let at = 0, index = 0; at < bytes.length; index += 1) {
          const size = sizes[index % sizes.length] ?? 1;
          texts.push(...stream.feed(bytes.subarray(at, at + size)).map(({ text }) => text));
          at += size;
        }
        expect(texts).toEqual(['Grüße', ' 😀']);
        expect(stream.isComplete).toBe(true);
        expect(stream.end()).toEqual({ finish: 'stop', promptTokens: 9, cachedTokens: 3, completionTokens: 4 });
      }),
    );
  });

  test('cut at any byte before the finish reason is no answer', ({ expect }) => {
    const bytes = encoder.encode(`${chunk('a')}${chunk('b')}`);
    for (let length = 0; length <= bytes.length; length += 1) {
      const stream = createChatStream(chat);
      stream.feed(bytes.subarray(0, length));
      expect(codeOf(() => stream.end())).toBe('ENGINE_FAILED');
    }
  });

  test('is counted by us where the upstream counts too much, or not at all', ({ expect }) => {
    const greedy = createChatStream(chat);
    greedy.feed(
      encoder.encode(
        chunk('ab') + chunk('', 'length') + event({ usage: { prompt_tokens: 1, completion_tokens: 999 } }),
      ),
    );
    expect(greedy.end()).toMatchObject({ finish: 'length', completionTokens: 3 });
    const silent = createChatStream(chat);
    silent.feed(encoder.encode(chunk('ab') + chunk('cd') + chunk('', 'stop')));
    expect(silent.end()).toMatchObject({ promptTokens: 1, completionTokens: 2 });
  });

  test('is whole whatever counts the upstream tells, and no count is more than can be', ({ expect }) => {
    const told = fc.oneof(
      fc.double(),
      fc.maxSafeInteger(),
      fc.constantFrom<unknown>(2 ** 32, 2 ** 53, -1, 1.5, null, 'many', [], {}),
    );
    const counts = fc.record({ prompt_tokens: told, completion_tokens: told, cached_tokens: told });
    fc.assert(
      fc.property(counts, ({ cached_tokens, ...rest }) => {
        const stream = createChatStream(chat);
        const usage = { ...rest, prompt_tokens_details: { cached_tokens } };
        const pieces = stream.feed(encoder.encode(chunk('ab') + chunk('', 'stop') + event({ usage })));
        expect(pieces).toEqual([{ text: 'ab', tokenIds: [] }]);
        const { promptTokens, cachedTokens, completionTokens } = stream.end();
        for (const tokens of [promptTokens, cachedTokens, completionTokens]) {
          expect(Number.isSafeInteger(tokens) && tokens >= 0).toBe(true);
        }
        expect(promptTokens).toBeLessThan(2_000);
        expect(cachedTokens).toBeLessThanOrEqual(promptTokens);
        expect(completionTokens).toBeLessThanOrEqual(3);
      }),
    );
    const odd = createChatStream(chat);
    const usage = { prompt_tokens: -4, completion_tokens: 1.6, prompt_tokens_details: 7 };
    odd.feed(encoder.encode(chunk('ab') + chunk('', 'stop') + event({ usage })));
    expect(odd.end()).toEqual({ finish: 'stop', promptTokens: 1, cachedTokens: 0, completionTokens: 2 });
  });

  const wrong: readonly [why: string, text: string][] = [
    ['is not JSON', 'data: {"choices":\n\n'],
    ['is another object', 'data: {"choices":7}\n\n'],
    ['is an error', event({ error: { message: 'out of memory' } })],
    ['never ends', `data: ${'x'.repeat(8_400_000)}`],
  ];
  for (const [why, text] of wrong) {
    test(`fails when an event ${why}`, ({ expect }) => {
      expect(codeOf(() => createChatStream(chat).feed(encoder.encode(text)))).toBe('ENGINE_FAILED');
    });
  }

  test('of garbage ends in a typed error or in nothing', ({ expect }) => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), (pieces) => {
        const stream = createChatStream(chat);
        const code = codeOf(() => {
          for (const piece of pieces) stream.feed(piece);
          stream.end();
        });
        expect(code).toBe('ENGINE_FAILED');
      }),
    );
  });

  test('is handed on in pieces that fit a delta, cut between characters', ({ expect }) => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('a', 'é', '漢', '😀'), maxLength: 60 }), (text) => {
        const pieces = splitText(text, 12);
        expect(pieces.join('')).toBe(text);
        expect(pieces.every((piece) => Buffer.byteLength(piece) <= 12 && piece.isWellFormed())).toBe(true);
      }),
    );
  });
});

describe('a refusal', () => {
  const refuse = (status: number, body: unknown, retryAfter?: string) =>
    explainRefusal({ status, retryAfter, text: typeof body === 'string' ? body : JSON.stringify(body) }, chat);
  const message = (text: string) => ({ error: { message: text } });
  const overflows: readonly [who: string, body: unknown, prompt: number, completion: number][] = [
    [
      'OpenAI',
      message(
        "This model's maximum context length is 4096 tokens. However, you requested 5360 tokens (1360 in the messages, 4000 in the completion). Please reduce the length of the messages or completion.",
      ),
      1_360,
      4_000,
    ],
    [
      'vLLM',
      message(
        "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096 tokens and your request has 1000 input tokens (5000 > 4096 - 1000).",
      ),
      1_000,
      5_000,
    ],
    ['SGLang', message("The input (9000 tokens) is longer than the model's context length (4096 tokens)."), 9_000, 1],
    [
      'llama-server',
      {
        error: {
          code: 400,
          message: 'the request exceeds the available context size',
          n_prompt_tokens: 9_000,
          n_ctx: 4_096,
        },
      },
      9_000,
      1,
    ],
  ];
  for (const [who, body, promptTokens, completionTokens] of overflows) {
    test(`of ${who} for a context that is too small keeps its numbers`, ({ expect }) => {
      const error = refuse(400, body);
      expect({ code: error.code, ...error.details }).toEqual({
        code: 'CONTEXT_LENGTH_EXCEEDED',
        contextTokens: 4_096,
        promptTokens,
        completionTokens,
        requestedTokens: promptTokens + completionTokens,
      });
    });
  }

  test('is the client’s, the server’s or a matter of load by its status', ({ expect }) => {
    for (const status of [400, 404, 413, 422]) {
      expect(refuse(status, message('no'))).toMatchObject({ code: 'ENGINE_REFUSED', details: { status } });
    }
    expect(refuse(400, '<html>no</html>')).toMatchObject({ code: 'ENGINE_REFUSED' });
    for (const status of [301, 401, 403, 418, 500, 502]) expect(refuse(status, '').code).toBe('ENGINE_FAILED');
    expect(refuse(429, '', '7')).toMatchObject({ code: 'NODE_OVERLOADED', details: { retryAfterMs: 7_000 } });
    expect(refuse(503, '', '999999')).toMatchObject({ details: { retryAfterMs: 60_000 } });
    expect(refuse(503, '', 'Wed, 21 Oct 2026 07:28:00 GMT')).toMatchObject({ details: { retryAfterMs: 1_000 } });
  });
});

describe('a list of models', () => {
  const declared = { baseUrl: 'http://a/v1', owner: 'me', contextTokens: 77 };
  const read = (data: unknown) => readModels(declared, JSON.stringify({ data }));

  test('gives names, context lengths where told, and digests of owner, address and name', ({ expect }) => {
    const [a, b] = read([{ id: 'b' }, { id: 'a/x:1', owned_by: 'vllm', max_model_len: 4_096 }]);
    expect(a).toMatchObject({ name: 'a/x:1', contextTokens: 4_096, ownedBy: 'vllm', isLoaded: true });
    expect(b).toMatchObject({ name: 'b', contextTokens: 77, ownedBy: '' });
    const other = readModels({ ...declared, owner: 'you' }, '{"data":[{"id":"b"}]}');
    expect(new Set([a?.digest, b?.digest, other[0]?.digest]).size).toBe(3);
  });

  test('is bounded, and entries that make no sense are left out', ({ expect }) => {
    expect(read([{}, 7, null, { id: '' }, { id: 'x'.repeat(129) }, { id: 'ok', max_model_len: 'big' }])).toMatchObject([
      { name: 'ok', contextTokens: 77 },
    ]);
    expect(read(Array.from({ length: 1_000 }, (_, id) => ({ id: `m${id}` }))).length).toBe(limits.offerModelsMax);
    expect(codeOf(() => readModels(declared, '<html>'))).toBe('ENGINE_FAILED');
    expect(codeOf(() => readModels(declared, '{"models":[]}'))).toBe('ENGINE_FAILED');
  });
});

test('an address is taken with and without /v1, and only of a web server', ({ expect }) => {
  for (const url of ['http://h:8000', 'http://h:8000/', 'http://h:8000/v1', 'http://h:8000/v1/']) {
    expect(readBaseUrl(url)).toBe('http://h:8000/v1');
  }
  expect(readBaseUrl('https://h/api/v1')).toBe('https://h/api/v1');
  for (const url of ['h:8000', 'ftp://h', 'http://user:pass@h', '', 'http://h/v1?key=1']) {
    expect(codeOf(() => readBaseUrl(url))).toBe('CONFIG_INVALID');
  }
});
