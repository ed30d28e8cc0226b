/** What clients and keys may ask of routing, and what it tells of itself, through the official SDK. */

import OpenAI from 'openai';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { type Daemon, until } from '../support/daemons.ts';
import { ProcessMesh, peerOf, provenanceOf } from '../support/process-mesh.ts';

const engine = ['--engine', 'synthetic', '--tokens-per-second', '500'];
/** Prompts take time, unless the node remembers them. */
const memory = ['--prefill-tokens-per-second', '4000', '--cache-tokens', '100000'];

let mesh: ProcessMesh;
let client: OpenAI;
let east: string;
let west: string;

beforeAll(async () => {
  const nodes = { east: [...engine, ...memory, '--region', 'east'], west: [...engine, ...memory, '--region', 'west'] };
  mesh = await ProcessMesh.start({ nodes });
  client = await mesh.client();
  [east, west] = [peerOf(mesh.node('east')), peerOf(mesh.node('west'))];
});

afterAll(async () => {
  await mesh[Symbol.asyncDispose]();
});

const ask = { model: 'synthetic', messages: [{ role: 'user' as const, content: 'hello' }], max_tokens: 3 };

const wishing = (helixflow: object) => ({ ...ask, helixflow });

/** The nodes that answer four requests with these wishes. */
async function servedBy(helixflow: object, by = client): Promise<Set<string | null>> {
  const answers = Array.from({ length: 4 }, () => by.chat.completions.create(wishing(helixflow)).withResponse());
  return new Set((await Promise.all(answers)).map(({ response }) => response.headers.get('x-helixflow-node')));
}

const refusalOf = (helixflow: object, by = client): Promise<unknown> =>
  by.chat.completions.create(wishing(helixflow)).catch((error: unknown) => error);

const noNode = { status: 400, code: 'no_node_allowed' };

describe('preferences', () => {
  test('of a request choose its nodes', async ({ expect }) => {
    expect(await servedBy({ nodes: { allow: [west] } })).toEqual(new Set([west]));
    expect(await servedBy({ nodes: { deny: [west] } })).toEqual(new Set([east]));
    expect(await servedBy({ region: 'west' })).toEqual(new Set([west]));
    expect(await servedBy({ region: 'east', prefer: 'price' })).toEqual(new Set([east]));
    // A region is a wish, not a condition.
    expect(await servedBy({ region: 'nowhere', nodes: { allow: [east] } })).toEqual(new Set([east]));
  });

  test('that leave no node are refused at once, with the reason', async ({ expect }) => {
    expect(await refusalOf({ nodes: { deny: [east, west] } })).toMatchObject(noNode);
    expect(await refusalOf({ nodes: { allow: [] } })).toMatchObject(noNode);
  });

  test('that nobody knows are refused, and named', async ({ expect }) => {
    const refusals = [await refusalOf({ colour: 'red' }), await refusalOf({ nodes: { only: [east] } })];
    expect(refusals).toMatchObject([
      { status: 400, code: 'unsupported_value', param: 'helixflow.colour' },
      { status: 400, code: 'unsupported_value', param: 'helixflow.nodes.only' },
    ]);
  });

  test('of a key hold for its requests, which can narrow them only', async ({ expect }) => {
    const westward = await mesh.client(['--region', 'west']);
    const eastOnly = await mesh.client(['--allow-nodes', east]);
    expect(await servedBy({}, westward)).toEqual(new Set([west]));
    expect(await servedBy({ region: 'east' }, westward)).toEqual(new Set([east]));
    expect(await servedBy({ region: 'west' }, eastOnly)).toEqual(new Set([east]));
    expect(await refusalOf({ nodes: { allow: [west] } }, eastOnly)).toMatchObject(noNode);
    expect(await refusalOf({ nodes: { deny: [east] } }, eastOnly)).toMatchObject(noNode);
  });
});

/** No two begin alike. */
let conversations = 0;

describe('a conversation', () => {
  test.for([1, 2, 3])('goes on where it began (%d)', async (_, { expect }) => {
    conversations += 1;
    const system = `You are assistant number ${conversations}. ${'Be brief, be kind, be right. '.repeat(100)}`;
    const messages: OpenAI.ChatCompletionMessageParam[] = [
      { role: 'system', content: system },
      { role: 'user', content: 'Who are you?' },
    ];
    const first = await client.chat.completions.create({ ...ask, messages }).withResponse();
    const said = first.data.choices[0]?.message.content ?? '';
    messages.push({ role: 'assistant', content: said }, { role: 'user', content: 'And who am I?' });
    const second = await client.chat.completions.create({ ...ask, messages }).withResponse();
    const nodes = [first, second].map(({ response }) => response.headers.get('x-helixflow-node'));
    expect(nodes[1]).toBe(nodes[0]);
    const cached = [first, second].map(({ data }) => data.usage?.prompt_tokens_details?.cached_tokens ?? 0);
    expect(cached[0]).toBe(0);
    expect(cached[1]).toBeGreaterThan(0.9 * (first.data.usage?.prompt_tokens ?? 0));
    const { steps } = await mesh.story(second.data.id);
    expect(steps.find(({ kind }) => kind === 'choice')).toMatchObject({ chosen: nodes[0], reason: 'prefix' });
  });
});

describe('helixflow why', () => {
  const why = (id: string, ...more: string[]) => mesh.daemons.run(['why', id, '--data-dir', mesh.gateway.dir, ...more]);

  test('tells of an answer where it went, by its id', async ({ expect }) => {
    const answer = await client.chat.completions.create(wishing({ nodes: { deny: [east] } }));
    const { code, stdout } = await why(answer.id);
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(/→ {2}n1[\s\S]*n2 {4}denied[\s\S]*n1 is done after 3 tokens/),
    ]);
    expect(stdout).toContain(`n1        ${west}`);
    const told = JSON.parse((await why(answer.id, '--json')).stdout) as unknown;
    expect(told).toMatchObject({
      model: 'synthetic',
      steps: [
        { kind: 'choice', purpose: 'first', chosen: west, refusals: [{ peer: east, reason: 'denied' }] },
        { kind: 'attempt', node: west },
        { kind: 'content', node: west },
        { kind: 'done', node: west, tokens: 3 },
      ],
    });
  });

  test('tells of a refusal why, by the header of its answer', async ({ expect }) => {
    const refusal = await refusalOf({ nodes: { deny: [east, west] } });
    expect(refusal).toBeInstanceOf(OpenAI.APIError);
    const { requestID } = refusal as InstanceType<typeof OpenAI.APIError>;
    const told = JSON.parse((await why(String(requestID), '--json')).stdout) as unknown;
    expect(told).toMatchObject({
      steps: [
        { kind: 'choice', refusals: expect.arrayContaining([{ peer: east, reason: 'denied' }]) },
        { kind: 'ended', code: 'NODES_EXCLUDED' },
      ],
    });
    expect((await why('0'.repeat(32))).code).toBe(3);
  });
});

describe('--provenance off', () => {
  let quiet: Daemon;

  beforeAll(async () => {
    const args = ['gateway', '--port', '0', '--join', '-', '--provenance', 'off'];
    quiet = await mesh.daemons.start('quiet', args, await mesh.invite('gateway'));
    await until(async () => {
      const { nodes } = (await quiet.status())['gateway'] as { readonly nodes: readonly unknown[] };
      return nodes.length === 2 ? true : undefined;
    }, 15_000);
  });

  test('keeps nodes, attempts and times to the gateway', async ({ expect }) => {
    const other = client.withOptions({ baseURL: String(quiet.ready['baseUrl']) });
    const { data, response } = await other.chat.completions.create(ask).withResponse();
    expect(provenanceOf(data)).toEqual({ splices: 0, digest: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect([...response.headers.keys()].filter((name) => name.startsWith('x-helixflow'))).toEqual([]);
    const told = await mesh.daemons.json(['why', data.id, '--data-dir', quiet.dir]);
    expect(told).toMatchObject({ steps: expect.arrayContaining([expect.objectContaining({ kind: 'done' })]) });
    const open = await client.chat.completions.create(ask);
    expect(Object.keys(provenanceOf(open) ?? {}).toSorted()).toEqual([
      'attempts',
      'digest',
      'nodes',
      'splices',
      'timings',
    ]);
  });
});
