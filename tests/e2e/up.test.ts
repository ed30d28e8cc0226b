/** `helixflow up` with the embedded model: what a newcomer does first. */

import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { type Daemon, Daemons, until } from '../support/daemons.ts';

let daemons: Daemons;
let up: Daemon;
let client: OpenAI;

beforeAll(async () => {
  daemons = new Daemons();
  up = await daemons.start('up', ['up', '--port', '0']);
  client = new OpenAI({ baseURL: String(up.ready['baseUrl']), apiKey: String(up.ready['apiKey']), maxRetries: 0 });
});

afterAll(async () => {
  await daemons[Symbol.asyncDispose]();
});

const capital = [{ role: 'user' as const, content: 'What is the capital of France?' }];
const ask = { model: 'helix-tiny', messages: capital, temperature: 0 };

describe('helixflow up', () => {
  test('prints exactly one line of JSON with what a client needs', ({ expect }) => {
    expect(up.ready).toEqual({
      event: 'ready',
      baseUrl: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/v1$/),
      apiKey: expect.stringMatching(/^sk-hx-/),
      models: ['helix-tiny'],
    });
    expect(up.output.stdout.trimEnd().split('\n')).toHaveLength(1);
  });

  test('answers from the embedded model, streamed and whole alike', async ({ expect }) => {
    const stream = client.chat.completions.stream(ask);
    const streamed = (await stream.finalChatCompletion()).choices[0];
    const whole = (await client.chat.completions.create(ask)).choices[0];
    expect(streamed?.message.content).toContain('Paris');
    expect(streamed?.message.content).toBe(whole?.message.content);
    expect(whole?.finish_reason).toBe('stop');
  });

  test('streams token by token, with usage when asked', async ({ expect }) => {
    const stream = await client.chat.completions.create({
      ...ask,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks: OpenAI.ChatCompletionChunk[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    const texts = chunks.filter(({ choices }) => choices[0]?.delta.content);
    expect(texts.length).toBeGreaterThan(3);
    expect(chunks.at(-1)?.choices).toEqual([]);
    expect(chunks.at(-1)?.usage?.completion_tokens).toBeGreaterThanOrEqual(texts.length);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
  });

  test('honours max_tokens, stop and seed', async ({ expect }) => {
    const short = await client.chat.completions.create({ ...ask, max_tokens: 3 });
    expect([short.choices[0]?.finish_reason, short.usage?.completion_tokens]).toEqual(['length', 3]);
    const stopped = await client.chat.completions.create({ ...ask, stop: 'Paris' });
    expect(stopped.choices[0]?.finish_reason).toBe('stop');
    expect(stopped.choices[0]?.message.content).not.toContain('Paris');
    const story = [{ role: 'user' as const, content: 'Tell me a story about a fox.' }];
    const sampled = () =>
      client.chat.completions.create({
        model: 'helix-tiny',
        messages: story,
        temperature: 1.2,
        seed: 7,
        max_tokens: 40,
      });
    const [one, two] = [await sampled(), await sampled()];
    expect(one.choices[0]?.message.content).toBe(two.choices[0]?.message.content);
  });

  test("an over-long prompt gets OpenAI's own words", async ({ expect }) => {
    const long = [{ role: 'user' as const, content: 'word '.repeat(5_000) }];
    await expect(client.chat.completions.create({ model: 'helix-tiny', messages: long })).rejects.toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
      message: expect.stringMatching(/maximum context length is 1024 tokens\. However, you requested \d+ tokens/),
    });
  });

  test.for<[string, object, number, string | null]>([
    ['a value that is not supported yet', { n: 2 }, 400, 'unsupported_value'],
    ['a value of the wrong type', { temperature: 'hot' }, 400, null],
  ])('refuses %s', async ([, change, status, code], { expect }) => {
    await expect(client.chat.completions.create({ ...ask, ...change })).rejects.toMatchObject({ status, code });
  });

  test('knows that a model does not exist once it has looked around', async ({ expect }) => {
    const refusal = () => client.chat.completions.create({ ...ask, model: 'nope' }).catch((error: unknown) => error);
    // Until then it is unavailable, which clients try again.
    const error = await until(async () => {
      const { status, code } = (await refusal()) as { status: number; code: string };
      return status === 503 ? undefined : { status, code };
    }, 5_000);
    expect(error).toEqual({ status: 404, code: 'model_not_found' });
  });

  test('refuses a wrong key and no key', async ({ expect }) => {
    const url = `${String(up.ready['baseUrl'])}/models`;
    const statuses = [
      (await fetch(url)).status,
      (await fetch(url, { headers: { authorization: 'Bearer sk-hx-wrong' } })).status,
      (await fetch(url, { headers: { authorization: `Bearer ${String(up.ready['apiKey'])}` } })).status,
    ];
    expect(statuses).toEqual([401, 401, 200]);
  });

  test('answers a body of 30 MB with 413 and lives on', async ({ expect }) => {
    const response = await fetch(`${String(up.ready['baseUrl'])}/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${String(up.ready['apiKey'])}` },
      body: JSON.stringify({ ...ask, messages: [{ role: 'user', content: 'x'.repeat(30_000_000) }] }),
    });
    expect(response.status).toBe(413);
    expect((await client.models.list()).data).toHaveLength(1);
  });

  test('keeps its secrets in files that only their owner can read, and its prompts out of the log', async ({
    expect,
  }) => {
    const { code } = await daemons.run(['status', '--data-dir', up.dir]);
    expect(code).toBe(0);
    expect(up.output.stderr).not.toContain('capital of France');
    expect(up.output.stderr).not.toContain(String(up.ready['apiKey']));
    expect(statSync(up.dir).mode & 0o077).toBe(0);
    expect(statSync(join(up.dir, 'mesh', 'root.key')).mode & 0o077).toBe(0);
    expect(readFileSync(join(up.dir, 'mesh', 'mesh.json'), 'utf8')).toContain('"format"');
  });

  test('a second one on the same directory says who holds it', async ({ expect }) => {
    const second = await daemons.run(['up', '--port', '0', '--data-dir', up.dir]);
    expect(second.code).toBe(5);
    expect(second.stderr).toContain(String(up.child.pid));
  });

  test('the first signal finishes the streams under way and exits 0', async ({ expect }) => {
    const stream = await client.chat.completions.create({ ...ask, stream: true });
    up.kill('SIGINT');
    let finish: string | null | undefined;
    for await (const chunk of stream) finish = chunk.choices[0]?.finish_reason ?? finish;
    expect(finish).toBe('stop');
    expect(await up.exited()).toBe(0);
  });

  test('comes back with the same key and the same mesh', async ({ expect }) => {
    const again = await daemons.start('up', ['up', '--port', '0']);
    expect(again.ready['apiKey']).toBe(up.ready['apiKey']);
    again.kill('SIGINT');
    again.kill('SIGINT');
    expect([0, 130]).toContain(await again.exited());
  });
});
