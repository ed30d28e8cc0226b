/** The official client against the port: its helpers, its errors, its way of leaving. */

import OpenAI from 'openai';
import { describe, test, vi } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { answering, failing, listed, served, silent } from './fakes.ts';
import { clientOf, openDoor } from './sockets.ts';

const asked = { model: 'helix-tiny', messages: [{ role: 'user' as const, content: 'Hi' }] };

test('whole answers carry the request id', async ({ expect }) => {
  await using door = await openDoor();
  const answer = await clientOf(door).chat.completions.create(asked);
  expect(answer.choices[0]?.message.content).toBe('Hello world');
  expect(answer._request_id).toBe(door.service.calls[0]?.call.request);
});

test('streams give every piece in order', async ({ expect }) => {
  await using door = await openDoor();
  const pieces = Array.from({ length: 500 }, (_, index) => `${index} `);
  door.service.script = answering(...pieces);
  const stream = await clientOf(door).chat.completions.create({ ...asked, stream: true });
  const texts: string[] = [];
  for await (const chunk of stream) {
    const text = chunk.choices[0]?.delta.content;
    if (text) texts.push(text);
  }
  expect(texts).toEqual(pieces);
});

test('the strict stream helper puts the answer together', async ({ expect }) => {
  await using door = await openDoor();
  const runner = clientOf(door).chat.completions.stream({ ...asked, stream_options: { include_usage: true } });
  const final = await runner.finalChatCompletion();
  expect(final.choices[0]).toMatchObject({
    finish_reason: 'stop',
    message: { role: 'assistant', content: 'Hello world', refusal: null },
  });
  expect(final.usage).toMatchObject({ prompt_tokens: 7, completion_tokens: 2, total_tokens: 9 });
});

test('the strict stream helper takes comments, empty chunks and empty answers', async ({ expect }) => {
  for (const keepAlive of ['comment', 'chunk'] as const) {
    await using door = await openDoor({ keepAlive });
    door.service.script = silent;
    const final = clientOf(door).chat.completions.stream(asked).finalChatCompletion();
    await vi.waitFor(() => expect(door.service.calls).toHaveLength(1));
    await door.clock.advance(60_000);
    answering()(door.service.calls[0] as never);
    expect((await final).choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: '' } });
  }
});

test('models with slashes and colons are found', async ({ expect }) => {
  await using door = await openDoor();
  door.service.listed = [listed('org/model:7b'), listed('small')];
  const client = clientOf(door);
  const names: string[] = [];
  for await (const { id } of client.models.list()) names.push(id);
  expect(names).toEqual(['org/model:7b', 'small']);
  expect((await client.models.retrieve('org/model:7b')).id).toBe('org/model:7b');
});

describe('errors', () => {
  test.for([
    [new HelixFlowError('MODEL_NOT_FOUND', { model: 'm' }), OpenAI.NotFoundError, 1],
    [new HelixFlowError('REQUEST_UNSUPPORTED', { param: 'seed', reason: 'x' }), OpenAI.BadRequestError, 1],
    [new HelixFlowError('GATEWAY_FAILED', {}), OpenAI.InternalServerError, 1],
    [new HelixFlowError('MODEL_UNAVAILABLE', { model: 'm', retryAfterMs: 1 }), OpenAI.InternalServerError, 3],
  ] as const)('$0.code has the class that the client knows, and is tried $2 times', async (row, { expect }) => {
    const [error, kind, tries] = row;
    await using door = await openDoor();
    door.service.script = failing(error);
    const failure = await clientOf(door)
      .chat.completions.create(asked)
      .catch((caught: unknown) => caught);
    expect(failure).toBeInstanceOf(kind);
    expect((failure as InstanceType<typeof OpenAI.APIError>).requestID).toMatch(/^[0-9a-f]{32}$/);
    expect(door.service.calls).toHaveLength(tries);
  });

  test('a wrong key is an AuthenticationError', async ({ expect }) => {
    await using door = await openDoor();
    const client = new OpenAI({ apiKey: 'sk-wrong', baseURL: door.baseUrl });
    await expect(client.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
  });

  test('in mid-stream are raised, by create and by the helper', async ({ expect }) => {
    await using door = await openDoor();
    door.service.script = ({ events }) => {
      events.committed(served);
      events.delta('Hel');
      events.failed(new HelixFlowError('STREAM_INTERRUPTED', {}));
    };
    const texts: string[] = [];
    const read = async (): Promise<void> => {
      const stream = await clientOf(door).chat.completions.create({ ...asked, stream: true });
      for await (const chunk of stream) texts.push(chunk.choices[0]?.delta.content ?? '');
    };
    await expect(read()).rejects.toMatchObject({ code: 'stream_interrupted' });
    expect(texts.join('')).toBe('Hel');
    const helper = clientOf(door).chat.completions.stream(asked).finalChatCompletion();
    await expect(helper).rejects.toMatchObject({ code: 'stream_interrupted' });
  });
});

describe('a client that leaves', () => {
  test.for([
    ['a whole answer', false, false],
    ['a stream before its first content', true, false],
    ['a stream after it', true, true],
  ] as const)('%s stops the work', async ([, stream, hasBegun], { expect }) => {
    await using door = await openDoor();
    door.service.script = ({ events }) => {
      if (hasBegun) events.committed(served);
      if (hasBegun) events.delta('Hel');
    };
    const abort = new AbortController();
    const read = async (): Promise<void> => {
      const answer = await clientOf(door).chat.completions.create({ ...asked, stream }, { signal: abort.signal });
      if ('choices' in answer) return;
      for await (const chunk of answer) if (chunk.choices[0]?.delta.content) abort.abort();
    };
    const reading = read().catch(() => {});
    await vi.waitFor(() => expect(door.service.calls).toHaveLength(1));
    if (!hasBegun) abort.abort();
    await vi.waitFor(() => expect(door.service.calls[0]?.isCancelled).toBe(true));
    await reading;
    await vi.waitFor(() => expect(door.records).toHaveLength(1));
    expect(door.records[0]).toMatchObject({ status: hasBegun ? 200 : 499, outcome: 'cancelled' });
  });

  test('after the end cancels nothing', async ({ expect }) => {
    await using door = await openDoor();
    await clientOf(door).chat.completions.create(asked);
    await vi.waitFor(() => expect(door.records).toHaveLength(1));
    expect(door.service.calls[0]?.isCancelled).toBe(false);
    expect(door.records[0]).toMatchObject({ outcome: 'ok' });
  });
});
