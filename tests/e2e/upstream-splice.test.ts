/** Nodes in front of servers that other people run: when one is gone in mid-answer, another goes on. */

import OpenAI from 'openai';
import { test } from 'vitest';
import { type Daemon, Daemons } from '../support/daemons.ts';
import { type Kind, startKind } from '../support/upstream-kinds.ts';
import type { UpstreamServer } from '../support/upstream-server.ts';

const digest = 'ab'.repeat(32);
/** Tokens after which the first server to get there writes no more. */
const stuckAfter = 6;

interface Stage extends AsyncDisposable {
  readonly client: OpenAI;
  readonly nodes: readonly Daemon[];
  readonly upstreams: readonly UpstreamServer[];
  /** Resolves with the place of the server that is stuck in mid-answer. */
  readonly stuck: Promise<number>;
}

async function startStage(kind: Kind): Promise<Stage> {
  await using opened = new AsyncDisposableStack();
  const daemons = opened.use(new Daemons());
  const { promise: stuck, resolve } = Promise.withResolvers<number>();
  let isStuck = true;
  const upstreams: UpstreamServer[] = [];
  for (const place of [0, 1]) {
    const pace = async (tokens: number): Promise<void> => {
      if (!isStuck || tokens < stuckAfter) return;
      isStuck = false;
      resolve(place);
      await new Promise(() => {});
    };
    upstreams.push(opened.use(await startKind(kind, { pace })));
  }
  await daemons.json(['mesh', 'create', '--data-dir', daemons.path('front')]);
  const front = await daemons.start('front', ['gateway', '--port', '0']);
  const { key } = await daemons.json(['keys', 'create', '--name', 'test', '--data-dir', front.dir]);
  const nodes: Daemon[] = [];
  for (const [place, { url }] of upstreams.entries()) {
    const { token } = await daemons.json(['mesh', 'invite', '--role', 'node', '--data-dir', front.dir]);
    const args = ['node', '--join', '-', '--upstream', url, '--digest', digest];
    nodes.push(await daemons.start(`node${place}`, args, String(token)));
  }
  const client = new OpenAI({ baseURL: String(front.ready['baseUrl']), apiKey: String(key), maxRetries: 0 });
  const parts = opened.move();
  return { client, nodes, upstreams, stuck, [Symbol.asyncDispose]: () => parts.disposeAsync() };
}

const question = {
  model: 'words-1',
  messages: [{ role: 'user' as const, content: 'count three' }],
  temperature: 0,
  max_tokens: 24,
};

const ways: readonly [name: string, Kind, gone: 'node' | 'server'][] = [
  ['the node in front of vLLM is killed', 'vllm', 'node'],
  ['vLLM itself breaks off', 'vllm', 'server'],
  ['the node in front of llama-server is killed', 'llamacpp', 'node'],
];

for (const [name, kind, gone] of ways) {
  test(`${name}: the answer is whole, as if nothing had happened`, async ({ expect }) => {
    await using stage = await startStage(kind);
    const { client, nodes, upstreams } = stage;
    const answer = client.chat.completions.stream({ ...question, stream_options: { include_usage: true } });
    const place = await stage.stuck;
    if (gone === 'node') nodes[place]?.kill('SIGKILL');
    else await upstreams[place]?.[Symbol.asyncDispose]();
    const { choices, usage } = await answer.finalChatCompletion();
    const expected = await client.chat.completions.create(question);
    expect(choices[0]?.message.content).toBe(expected.choices[0]?.message.content);
    expect(choices[0]?.finish_reason).toBe('length');
    expect(usage?.prompt_tokens).toBe(expected.usage?.prompt_tokens);
    if (kind === 'vllm') expect(usage?.completion_tokens).toBe(question.max_tokens);
  });
}
