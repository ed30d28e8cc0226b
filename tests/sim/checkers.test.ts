/** The checkers of requests, shown every kind of dishonest answer. */

import { describe, test } from 'vitest';
import type { AnswerEnd, Served } from '../../gateway/service.ts';
import { type ErrorCode, type ErrorDetails, HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest, PeerId, RequestId } from '../../protocol/ids.ts';
import { countRequests, type Phase, WatchedRequest } from '../../sim/checkers.ts';
import { expectedTokens } from '../../sim/engine.ts';

/** By these nodes, one after the other. */
const served = (...nodes: string[]): Served => ({
  node: nodes.at(-1) as PeerId,
  digest: 'd' as ModelDigest,
  attempts: nodes.length,
  nodes: nodes as PeerId[],
  splices: nodes.length - 1,
});
const chat = { messages: [{ role: 'user' as const, content: 'hello' }] };
const tokens = expectedTokens(chat, '');
const text = tokens.join('');

const mayFail: readonly ErrorCode[] = ['NODE_LOST', 'STREAM_INTERRUPTED'];

interface Watched {
  readonly request: WatchedRequest;
  readonly broken: string[];
  nowMs: number;
}

function watch(phase: Phase = 'calm', maxTokens?: number): Watched {
  const watched: { nowMs: number; broken: string[] } = { nowMs: 0, broken: [] };
  const id = '0'.repeat(32) as RequestId;
  const bounds = { startMs: 0, deadlineMs: 1_000, beginWithinMs: 500, gapWithinMs: 300 };
  const facts = { number: 1, id, phase, gateway: 'g', ...bounds, mayFail };
  const request = new WatchedRequest(
    { ...facts, chat: maxTokens === undefined ? chat : { ...chat, maxTokens } },
    () => watched.nowMs,
    (check) => watched.broken.push(check),
  );
  return Object.assign(watched, { request });
}

const end = (changes: Partial<AnswerEnd> = {}): AnswerEnd => ({
  finish: 'stop',
  promptTokens: 1,
  cachedTokens: 0,
  completionTokens: tokens.length,
  served: served('one'),
  ...changes,
});

const failure = <Code extends ErrorCode>(code: Code, details: ErrorDetails[Code]): HelixFlowError =>
  new HelixFlowError(code, details);

/** What is broken after `acts` on a request that has begun well. */
function brokenBy(
  acts: (request: WatchedRequest, watched: Watched) => void,
  phase: Phase = 'calm',
  maxTokens?: number,
): string[] {
  const watched = watch(phase, maxTokens);
  watched.request.committed(served('one'));
  acts(watched.request, watched);
  return watched.broken;
}

describe('a watched request', () => {
  test('has nothing against a whole answer', ({ expect }) => {
    const broken = brokenBy((request) => {
      for (const token of tokens) request.delta(token);
      request.done(end());
      request.checkEnded();
    });
    expect(broken).toEqual([]);
  });

  test('has nothing against an answer cut at maxTokens', ({ expect }) => {
    const broken = brokenBy(
      (request) => {
        request.delta(tokens.slice(0, 3).join(''));
        request.done(end({ finish: 'length', completionTokens: 3 }));
      },
      'calm',
      3,
    );
    expect(broken).toEqual([]);
  });

  const lies: readonly (readonly [
    what: string,
    check: string,
    acts: (request: WatchedRequest, watched: Watched) => void,
  ])[] = [
    ['a repeated token', 'honest text', (r) => [tokens[0], tokens[0]].forEach((token) => void r.delta(token ?? ''))],
    ['a missing token', 'honest text', (r) => r.delta(tokens.slice(1).join(''))],
    ['text of another model', 'honest text', (r) => r.delta(expectedTokens(chat, 'two').join(''))],
    ['a change of the node', 'one node', (r) => r.committed(served('two'))],
    [
      'another node at the end',
      'one node',
      (r) => {
        r.delta(text);
        r.done(end({ served: served('two') }));
      },
    ],
    [
      'more nodes than splices',
      'one node',
      (r) => {
        r.delta(text);
        r.done(end({ served: { ...served('one', 'two'), splices: 0 } }));
      },
    ],
    [
      'a long silence',
      'goes on in time',
      (r, watched) => {
        r.delta(tokens[0] ?? '');
        watched.nowMs = 301;
        r.delta(tokens[1] ?? '');
      },
    ],
    ['an end too soon', 'whole answer', (r) => r.done(end())],
    [
      'the wrong reason for the end',
      'whole answer',
      (r) => {
        r.delta(text);
        r.done(end({ finish: 'length' }));
      },
    ],
    [
      'a token too many on the bill',
      'honest counts',
      (r) => {
        r.delta(text);
        r.done(end({ completionTokens: tokens.length + 1 }));
      },
    ],
    [
      'two ends',
      'one end',
      (r) => {
        r.delta(text);
        r.done(end());
        r.failed(failure('STREAM_INTERRUPTED', {}));
      },
    ],
    [
      'text after the end',
      'one end',
      (r) => {
        r.delta(text);
        r.done(end());
        r.delta('');
      },
    ],
    [
      'text after the client has gone',
      'one end',
      (r) => {
        r.cancelled();
        r.delta(tokens[0] ?? '');
      },
    ],
    [
      'no end at all',
      'one end',
      (r, watched) => {
        watched.nowMs = 2_001;
        r.checkEnded();
      },
    ],
    [
      'an end long after the deadline',
      'in time',
      (r, watched) => {
        r.delta(text);
        watched.nowMs = 2_001;
        r.done(end());
      },
    ],
    [
      'a failure where nothing was broken',
      'nothing fails without a fault',
      (r) => r.failed(failure('STREAM_INTERRUPTED', {})),
    ],
  ];
  test.for(lies)('notices %s', ([, check, acts], { expect }) => {
    expect(brokenBy(acts)).toContain(check);
  });

  test('notices an answer, or a failure, that was long in coming', ({ expect }) => {
    const [answered, refused] = [watch('faults'), watch('faults')];
    answered.nowMs = 501;
    answered.request.committed(served('one'));
    refused.nowMs = 501;
    refused.request.failed(failure('NODE_LOST', {}));
    expect([answered.broken, refused.broken]).toEqual([['begun in time'], ['begun in time']]);
  });

  test('notices text of nobody', ({ expect }) => {
    const { request, broken } = watch();
    request.delta(tokens[0] ?? '');
    expect(broken).toContain('one node');
  });

  test('lets a request fail honestly while faults are about, and not otherwise', ({ expect }) => {
    expect(brokenBy((request) => request.failed(failure('STREAM_INTERRUPTED', {})), 'faults')).toEqual([]);
    expect(brokenBy((request) => request.failed(failure('NODE_LOST', {})), 'faults')).toEqual(['honest failure']);
    const early = watch('faults');
    early.request.failed(failure('NODE_LOST', {}));
    const wrong = watch('faults');
    wrong.request.failed(failure('MODEL_NOT_FOUND', { model: 'm' }));
    expect([early.broken, wrong.broken]).toEqual([[], ['honest failure']]);
  });

  test('counts how requests ended', ({ expect }) => {
    const requests = [watch('faults'), watch('faults'), watch('faults'), watch('faults')].map(({ request }) => request);
    requests[0]?.cancelled();
    requests[1]?.lost();
    requests[2]?.failed(failure('NODE_LOST', {}));
    const spliced = watch('faults');
    spliced.request.committed(served('one'));
    spliced.request.delta(tokens[0] ?? '');
    spliced.nowMs = 120;
    spliced.request.delta(tokens.slice(1).join(''));
    spliced.request.done(end({ served: served('one', 'two') }));
    expect([spliced.broken, countRequests([...requests, spliced.request])]).toEqual([
      [],
      {
        total: 5,
        done: 1,
        cancelled: 1,
        lost: 1,
        failed: { NODE_LOST: 1 },
        spliced: { count: 1, gapMedianMs: 120, gapMaxMs: 120 },
      },
    ]);
  });
});
