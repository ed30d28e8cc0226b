/** The bytes of answers: every chunk parses, and together they are the answer. */

import fc from 'fast-check';
import { test } from 'vitest';
import { answerChunks, wholeAnswer } from '../../../gateway/openai/answer.ts';
import type { AnswerEnd } from '../../../gateway/service.ts';
import type { ModelDigest, PeerId, RequestId } from '../../../protocol/ids.ts';
import { ms } from '../../../protocol/units.ts';

const [first, second] = ['12D3KooWx', '12D3KooWy'] as [PeerId, PeerId];
const digest = 'ab'.repeat(32) as ModelDigest;
const identity = { request: '12'.repeat(16) as RequestId, model: 'm"\n', createdS: 5 };
const timings = { firstTokenMs: ms(1.6), totalMs: ms(9.2) };
const end: AnswerEnd = {
  finish: 'length',
  promptTokens: 3,
  cachedTokens: 1,
  completionTokens: 4,
  served: { node: second, digest, attempts: 3, nodes: [first, second], splices: 1 },
};

const chunkOf = (event: string) => {
  const match = /^data: ([^\n]*)\n\n$/.exec(event);
  return JSON.parse(match?.[1] ?? 'null');
};

test('any text stands in one event of one line, and is read back as it was', ({ expect }) => {
  const chunks = answerChunks(identity, false, digest);
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      expect(chunkOf(chunks.text(text)).choices[0].delta.content).toBe(text);
    }),
  );
});

test('all chunks carry the same id, time and model, and every key that may be null', ({ expect }) => {
  const chunks = answerChunks(identity, true, digest);
  const ends = chunks.end(end, timings).split(/(?<=\n\n)/);
  const common = {
    id: `chatcmpl-${identity.request}`,
    object: 'chat.completion.chunk',
    created: 5,
    model: 'm"\n',
    system_fingerprint: 'fp_ababababab',
  };
  const choice = (delta: object, finish: string | null) => [{ index: 0, delta, logprobs: null, finish_reason: finish }];
  const usage = {
    prompt_tokens: 3,
    completion_tokens: 4,
    total_tokens: 7,
    prompt_tokens_details: { cached_tokens: 1 },
  };
  expect([chunks.role, chunks.idle, chunks.text('a'), ...ends.slice(0, 2)].map(chunkOf)).toEqual([
    { ...common, choices: choice({ role: 'assistant', content: '', refusal: null }, null), usage: null },
    { ...common, choices: choice({}, null), usage: null },
    { ...common, choices: choice({ content: 'a' }, null), usage: null },
    {
      ...common,
      choices: choice({}, 'length'),
      usage: null,
      helixflow: {
        nodes: [first, second],
        attempts: 3,
        splices: 1,
        digest,
        timings: { first_token_ms: 2, total_ms: 9 },
      },
    },
    { ...common, choices: [], usage },
  ]);
  expect(ends[2]).toBe('data: [DONE]\n\n');
});

test('without include_usage no chunk speaks of usage', ({ expect }) => {
  const chunks = answerChunks(identity, false, undefined);
  expect(chunks.role + chunks.text('a') + chunks.end(end, timings)).not.toContain('usage');
  expect(chunkOf(chunks.role).system_fingerprint).toBeNull();
});

test('a whole answer counts its whole prompt, cached or not', ({ expect }) => {
  const answer = JSON.parse(wholeAnswer(identity, 'text', end, timings));
  expect(answer.usage).toEqual({
    prompt_tokens: 3,
    completion_tokens: 4,
    total_tokens: 7,
    prompt_tokens_details: { cached_tokens: 1 },
  });
  expect(answer.choices[0].finish_reason).toBe('length');
});

test('a gateway that keeps nodes, attempts and times to itself tells how often an answer was carried on', ({
  expect,
}) => {
  const told = { splices: 1, digest };
  const [last = ''] = answerChunks(identity, false, digest)
    .end(end, undefined)
    .split(/(?<=\n\n)/);
  expect([chunkOf(last).helixflow, JSON.parse(wholeAnswer(identity, '', end, undefined)).helixflow]).toEqual([
    told,
    told,
  ]);
});
