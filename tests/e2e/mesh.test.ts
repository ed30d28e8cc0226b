/** One gateway and two nodes as real processes, driven by the official SDK. */

import OpenAI from 'openai';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { type Daemon, Daemons, until } from '../support/daemons.ts';

/** What `status --json` says of a node. */
interface NodeRow {
  readonly peer: string;
  readonly active: number;
}

const tokens = 4;
let daemons: Daemons;
let gateway: Daemon;
let client: OpenAI;
let apiKey: string;

/** A node whose synthetic answers take a second to their first token. */
const startNode = async (name: string): Promise<Daemon> => {
  const { token } = await daemons.json(['mesh', 'invite', '--role', 'node', '--data-dir', gateway.dir]);
  const args = ['node', '--join', '-', '--engine', 'synthetic', '--tokens-per-second', '1'];
  return daemons.start(name, args, String(token));
};

const nodesOf = async (daemon: Daemon): Promise<readonly NodeRow[]> => {
  const status = await daemon.status();
  return (status['gateway'] as { nodes: readonly NodeRow[] }).nodes;
};

/** No node of an earlier test is left. */
const noNodes = (maxMs: number): Promise<true> =>
  until(async () => ((await nodesOf(gateway)).length === 0 ? true : undefined), maxMs);

/** The daemon that is serving a request now. */
const serving = (nodes: readonly Daemon[]): Promise<Daemon> =>
  until(async () => {
    const busy = (await nodesOf(gateway)).find(({ active }) => active > 0);
    return nodes.find(({ ready }) => ready['peerId'] === busy?.peer);
  });

beforeAll(async () => {
  daemons = new Daemons();
  await daemons.json(['mesh', 'create', '--data-dir', daemons.path('gateway')]);
  // Streams that have lost all nodes need not wait long for another one.
  gateway = await daemons.start('gateway', ['gateway', '--port', '0', '--wait-timeout', '2s']);
  const { key } = await daemons.json(['keys', 'create', '--name', 'test', '--data-dir', gateway.dir]);
  apiKey = String(key);
  client = new OpenAI({ baseURL: String(gateway.ready['baseUrl']), apiKey, maxRetries: 0 });
});

afterAll(async () => {
  await daemons[Symbol.asyncDispose]();
});

const ask = { model: 'synthetic', messages: [{ role: 'user' as const, content: 'hello' }], max_tokens: tokens };

describe('a mesh of processes', () => {
  test('serves a streamed and a whole answer with the same text and the right usage', async ({ expect }) => {
    await using node = await startNode('steady');
    const stream = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
    const streamed = await stream.finalChatCompletion();
    const whole = await client.chat.completions.create(ask).withResponse();
    expect(streamed.choices[0]?.message.content).toBe(whole.data.choices[0]?.message.content);
    expect(streamed.usage).toEqual(whole.data.usage);
    expect(whole.data.usage?.completion_tokens).toBe(tokens);
    expect(whole.response.headers.get('x-helixflow-node')).toBe(node.ready['peerId']);
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual(['synthetic']);
    node.kill('SIGTERM');
    expect(await node.exited()).toBe(0);
    await noNodes(3_000);
  });

  test('a node killed before its first token goes unnoticed', async ({ expect }) => {
    await using one = await startNode('one');
    await using two = await startNode('two');
    const nodes = [one, two];
    const answer = client.chat.completions.create(ask).withResponse();
    const victim = await serving(nodes);
    victim.kill('SIGKILL');
    const { data, response } = await answer;
    const survivor = nodes.find((node) => node !== victim);
    expect(data.usage?.completion_tokens).toBe(tokens);
    expect(response.headers.get('x-helixflow-node')).toBe(survivor?.ready['peerId']);
    expect(response.headers.get('x-helixflow-attempts')).toBe('2');
  });

  test('a node killed in mid-stream is one that another goes on for', async ({ expect }) => {
    await noNodes(3_000);
    await using three = await startNode('three');
    await using four = await startNode('four');
    const nodes = [three, four];
    const stream = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
    let victim: Daemon | undefined;
    for await (const { choices } of stream) {
      if (victim !== undefined || !choices[0]?.delta.content) continue;
      victim = await serving(nodes);
      victim.kill('SIGKILL');
    }
    const spliced = await stream.finalChatCompletion();
    const whole = await client.chat.completions.create(ask);
    expect(victim).toBeDefined();
    expect(spliced.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
    expect(spliced.usage).toEqual(whole.usage);
  });

  test('where no node is left, a stream ends with an error, and without [DONE]', async ({ expect }) => {
    await noNodes(3_000);
    await using node = await startNode('five');
    const response = await fetch(`${String(gateway.ready['baseUrl'])}/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${apiKey}` },
      body: JSON.stringify({ ...ask, stream: true }),
    });
    const raw = response.text();
    const stream = await client.chat.completions.create({ ...ask, stream: true });
    const read = async (): Promise<void> => {
      for await (const chunk of stream) {
        if (chunk.choices[0]?.delta.content) node.kill('SIGKILL');
      }
    };
    await expect(read()).rejects.toMatchObject({ code: 'stream_interrupted' });
    const text = await raw;
    const seen = ['"content":" ', '"code":"stream_interrupted"', '[DONE]', '"finish_reason":"stop"'].map((part) =>
      text.includes(part),
    );
    expect(seen).toEqual([true, true, false, false]);
  });
});

describe('a node that is told to stop', () => {
  test('finishes every answer under way, to the last frame, and exits 0', async ({ expect }) => {
    await noNodes(3_000);
    await using node = await startNode('leaving');
    const answers = Array.from({ length: 8 }, (_, index) =>
      index % 2 === 0 ? client.chat.completions.stream(ask).finalChatCompletion() : client.chat.completions.create(ask),
    );
    const hasAll = async (): Promise<boolean> =>
      (await nodesOf(gateway)).some(({ active }) => active === answers.length);
    await until(async () => ((await hasAll()) ? true : undefined));
    node.kill('SIGTERM');
    const finished = await Promise.all(answers);
    expect(finished.map(({ choices }) => choices[0]?.finish_reason)).toEqual(Array(8).fill('length'));
    expect(await node.exited()).toBe(0);
  });
});

describe('a second gateway', () => {
  test('finds the nodes within five seconds and takes the same key', async ({ expect }) => {
    await noNodes(3_000);
    await using node = await startNode('six');
    const { token } = await daemons.json(['mesh', 'invite', '--role', 'gateway', '--data-dir', gateway.dir]);
    const second = await daemons.start('second', ['gateway', '--port', '0', '--join', '-'], String(token));
    await until(async () => ((await nodesOf(second)).length > 0 ? true : undefined), 5_000);
    const other = new OpenAI({ baseURL: String(second.ready['baseUrl']), apiKey, maxRetries: 0 });
    const { response } = await other.chat.completions.create(ask).withResponse();
    expect(response.headers.get('x-helixflow-node')).toBe(node.ready['peerId']);
  });

  test('serves on, and a restarted node finds it from memory, when the first is gone', async ({ expect }) => {
    const { token } = await daemons.json(['mesh', 'invite', '--role', 'gateway', '--data-dir', gateway.dir]);
    const third = await daemons.start('third', ['gateway', '--port', '0', '--join', '-'], String(token));
    const node = await startNode('seven');
    await until(async () => ((await nodesOf(third)).length > 0 ? true : undefined));
    gateway.kill('SIGTERM');
    await gateway.exited();
    node.kill('SIGKILL');
    await node.exited();
    await until(async () => ((await nodesOf(third)).length === 0 ? true : undefined));
    await daemons.start('seven', ['node', '--engine', 'synthetic']);
    // Another gateway may be the first to hold its offer.
    await until(async () => ((await nodesOf(third)).length > 0 ? true : undefined));
    const client3 = new OpenAI({ baseURL: String(third.ready['baseUrl']), apiKey, maxRetries: 0 });
    const answer = await client3.chat.completions.create(ask);
    expect(answer.usage?.completion_tokens).toBe(tokens);
  });
});
