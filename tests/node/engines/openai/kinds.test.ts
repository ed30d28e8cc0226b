/** Which server an upstream is and how it goes on with an answer, found out without a guess. */

import { describe, test } from 'vitest';
import { openUpstreamEngine, type UpstreamOptions } from '../../../../node/engines/openai/engine.ts';
import { systemClock } from '../../../../protocol/adapters/clock.ts';
import { createLog } from '../../../../protocol/adapters/log.ts';
import type { Engine } from '../../../../protocol/ports.ts';
import { ms } from '../../../../protocol/units.ts';
import { type Kind, type KindOptions, startKind } from '../../../support/upstream-kinds.ts';
import { json, startUpstream, type UpstreamServer } from '../../../support/upstream-server.ts';

const deps = { clock: systemClock(), log: createLog({ level: 'silent', destination: 'stderr' }) };

type Opened = Engine & AsyncDisposable;

async function open({ url }: UpstreamServer, options: Partial<UpstreamOptions> = {}): Promise<Opened> {
  const engine = await openUpstreamEngine(deps, { url, owner: 'tests', ...options });
  return Object.assign(engine, { [Symbol.asyncDispose]: () => engine.close() });
}

async function until(condition: () => boolean): Promise<void> {
  const endMs = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error('it did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const waysOf = (engine: Engine) => engine.models().map(({ continuation, build }) => ({ continuation, build }));

/** What a server lacks. */
const lacks =
  (path: string) =>
  (upstream: UpstreamServer): void =>
    void upstream.routes.delete(path);

describe('with auto', () => {
  type Row = readonly [
    name: string,
    expected: { continuation: string; build: string; chats: number },
    Kind,
    KindOptions?,
    ((upstream: UpstreamServer) => void)?,
  ];
  const rows: readonly Row[] = [
    ['vLLM', { continuation: 'tokens', build: 'vLLM', chats: 1 }, 'vllm'],
    [
      'vLLM behind a door that lets only /v1 through',
      { continuation: 'text', build: 'vLLM', chats: 1 },
      'vllm',
      {},
      lacks('/detokenize'),
    ],
    ['vLLM that tells no ids', { continuation: 'none', build: 'vLLM', chats: 1 }, 'vllm', { tellsIds: false }],
    ['SGLang', { continuation: 'text', build: 'SGLang', chats: 0 }, 'sglang'],
    [
      'SGLang that does not tell its fields',
      { continuation: 'none', build: 'SGLang', chats: 0 },
      'sglang',
      {},
      lacks('/openapi.json'),
    ],
    ['llama-server', { continuation: 'text', build: 'llama-server', chats: 1 }, 'llamacpp'],
    [
      'llama-server without templates',
      { continuation: 'none', build: 'llama-server', chats: 0 },
      'llamacpp',
      {},
      lacks('/apply-template'),
    ],
    [
      'llama-server whose template ends the message',
      { continuation: 'none', build: 'llama-server', chats: 0 },
      'llamacpp',
      {},
      (upstream) =>
        void upstream.routes.set('/apply-template', (_, response) =>
          json(response, 200, { prompt: 'One, two, three,\n<|end|>' }),
        ),
    ],
    ['Ollama', { continuation: 'none', build: 'Ollama', chats: 0 }, 'ollama'],
    [
      'a server that answers every path',
      { continuation: 'none', build: 'OpenAI-compatible server (library)', chats: 0 },
      'ollama',
      {},
      (upstream) =>
        void upstream.routes.set('/api/version', (_, response) =>
          json(response, 200, { error: 'Unexpected endpoint' }),
        ),
    ],
  ];
  for (const [name, { chats, ...expected }, kind, options, bend] of rows) {
    test(`${name} is ${expected.continuation}, found out with ${chats} tokens`, async ({ expect }) => {
      await using upstream = await startKind(kind, options);
      bend?.(upstream);
      await using engine = await open(upstream, { pollMs: ms(5) });
      expect(waysOf(engine)).toEqual([expected]);
      let polls = 0;
      const { models } = upstream;
      upstream.models = (response) => {
        polls += 1;
        models(response);
      };
      await until(() => polls > 3);
      expect(waysOf(engine)).toEqual([expected]);
      expect(upstream.chats.map((chat) => chat.max_tokens)).toEqual(Array.from({ length: chats }, () => 1));
    });
  }

  test('a server that is too busy is asked again, but not for ever', async ({ expect }) => {
    await using upstream = await startKind('vllm');
    const { chat } = upstream;
    upstream.chat = (_, response) => void response.writeHead(503).end();
    await using engine = await open(upstream, { pollMs: ms(5) });
    expect(waysOf(engine)).toMatchObject([{ continuation: 'none' }]);
    upstream.chat = chat;
    await until(() => engine.models()[0]?.continuation === 'tokens');
    await using other = await startKind('vllm');
    let polls = 0;
    const { models } = other;
    other.models = (response) => {
      polls += 1;
      models(response);
    };
    other.chat = (_, response) => void response.writeHead(503).end();
    await using busy = await open(other, { pollMs: ms(5) });
    await until(() => polls > 6);
    expect(other.chats.length).toBe(3);
    expect(waysOf(busy)).toMatchObject([{ continuation: 'none' }]);
  });

  test('a server that comes back is asked anew: it may be another one', async ({ expect }) => {
    await using upstream = await startKind('vllm');
    await using engine = await open(upstream, { pollMs: ms(5) });
    expect(waysOf(engine)).toMatchObject([{ continuation: 'tokens' }]);
    const { models } = upstream;
    upstream.models = (response) => void response.destroy();
    await until(() => engine.models().length === 0);
    upstream.routes.delete('/detokenize');
    upstream.models = models;
    await until(() => engine.models()[0]?.continuation === 'text');
  });

  test('a model is not loaded only to be asked', async ({ expect }) => {
    await using upstream = await startKind('llamacpp');
    let polls = 0;
    const list = (value: string): void => {
      upstream.models = (response) => {
        polls += 1;
        const model = (id: string, status: string) => ({ id, owned_by: 'llamacpp', status: { value: status } });
        json(response, 200, { data: [model('a', 'loaded'), model('b', value)] });
      };
    };
    list('unloaded');
    await using engine = await open(upstream, { pollMs: ms(5) });
    const ways = (): string[] => engine.models().map(({ continuation }) => continuation);
    await until(() => ways()[0] === 'text' && polls > 4);
    expect(upstream.chats.map(({ model }) => model)).toEqual(['a']);
    list('loaded');
    await until(() => ways()[1] === 'text');
    expect(upstream.chats.map(({ model }) => model)).toEqual(['a', 'b']);
  });
});

test('the operator’s word stands, and nothing is asked', async ({ expect }) => {
  for (const continuation of ['tokens', 'text', 'none'] as const) {
    for (const kind of ['vllm', 'sglang', 'ollama'] as const) {
      await using upstream = await startKind(kind);
      await using engine = await open(upstream, { continuation });
      expect(waysOf(engine)).toMatchObject([{ continuation }]);
      expect(upstream.chats).toEqual([]);
    }
  }
});

test('a server that nobody knows is asked for nothing but its kind', async ({ expect }) => {
  await using upstream = await startUpstream();
  await using engine = await open(upstream);
  expect(waysOf(engine)).toEqual([{ continuation: 'none', build: 'OpenAI-compatible server (tests)' }]);
  expect(upstream.chats).toEqual([]);
});
