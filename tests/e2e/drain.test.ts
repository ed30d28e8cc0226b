/** Daemons that are told to drain while the official SDK streams from them. */

import type OpenAI from 'openai';
import { test } from 'vitest';
import { until } from '../support/daemons.ts';
import { ProcessMesh, peerOf, provenanceOf } from '../support/process-mesh.ts';

/** Five seconds: the command that drains has to come in between. */
const ask = { model: 'synthetic', messages: [{ role: 'user' as const, content: 'hello' }], max_tokens: 100 };
const paced = ['--engine', 'synthetic', '--tokens-per-second', '20'];

interface Streamed {
  readonly id: string;
  readonly text: string;
  readonly finish: string | null | undefined;
  readonly provenance: ReturnType<typeof provenanceOf>;
}

/** Reads a stream of which the first piece is there. */
async function rest(stream: AsyncIterable<OpenAI.ChatCompletionChunk>, begun: () => void): Promise<Streamed> {
  let [id, text, finish, provenance]: [string, string, Streamed['finish'], Streamed['provenance']?] = ['', '', null];
  for await (const chunk of stream) {
    const [choice] = chunk.choices;
    id = chunk.id;
    text += choice?.delta.content ?? '';
    finish ??= choice?.finish_reason;
    provenance = provenanceOf(chunk) ?? provenance;
    if (choice?.delta.content) begun();
  }
  return { id, text, finish, provenance };
}

/** Begins a stream; resolves once its first piece is there. */
async function begin(client: OpenAI): Promise<{ readonly ended: Promise<Streamed> }> {
  const stream = await client.chat.completions.create({ ...ask, stream: true });
  const { promise, resolve } = Promise.withResolvers<void>();
  const ended = rest(stream, resolve);
  await Promise.race([promise, ended]);
  return { ended };
}

test('a drained node hands its streams over; a drained gateway finishes its own, and takes no others', async ({
  expect,
}) => {
  await using mesh = await ProcessMesh.start({ nodes: { a: paced, b: paced } });
  const client = await mesh.client();
  const streams = await Promise.all(Array.from({ length: 4 }, () => begin(client)));
  const handed = (await mesh.row('a'))?.active;
  const drained = await mesh.daemons.json(['node', 'drain', '--now', '--data-dir', mesh.node('a').dir]);
  expect(drained).toMatchObject({ event: 'drained', command: 'node', finished: 0, handedOver: handed, cut: 0 });
  const [alone, ...answers] = await Promise.all([
    client.chat.completions.create(ask),
    ...streams.map(({ ended }) => ended),
  ]);
  expect(answers.map(({ text, finish }) => [text, finish])).toEqual(
    Array(4).fill([alone.choices[0]?.message.content, 'length']),
  );
  const moved = answers.filter(({ provenance }) => provenance?.splices === 1);
  expect(moved.map(({ provenance }) => provenance?.nodes)).toEqual(
    Array(handed).fill([peerOf(mesh.node('a')), peerOf(mesh.node('b'))]),
  );
  expect(handed).toBeGreaterThan(0);
  expect(await mesh.node('a').exited()).toBe(0);

  const last = await begin(client);
  const drain = mesh.at('gateway', 'drain', '--grace', '30s');
  const url = String(mesh.gateway.ready['baseUrl']).replace('/v1', '/readyz');
  await until(async () => ((await fetch(url)).status === 503 ? true : undefined));
  await expect(client.chat.completions.create(ask)).rejects.toMatchObject({
    status: 503,
    code: 'server_is_overloaded',
    headers: expect.toSatisfy((headers: Headers) => Number(headers.get('retry-after')) > 0),
  });
  expect(await last.ended).toMatchObject({ text: alone.choices[0]?.message.content, finish: 'length' });
  expect(await drain).toMatchObject({ command: 'gateway', finished: 1, handedOver: 0, cut: 0 });
  expect(await mesh.gateway.exited()).toBe(0);
});
