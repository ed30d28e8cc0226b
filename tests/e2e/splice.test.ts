/** Nodes of the embedded model that die, freeze or produce nothing in mid-answer, as the official SDK sees it. */

import type OpenAI from 'openai';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { until } from '../support/daemons.ts';
import { holdEngine, ProcessMesh, type Provenance, peerOf, provenanceOf } from '../support/process-mesh.ts';

type Asked = Omit<OpenAI.ChatCompletionCreateParamsNonStreaming, 'stream'>;

/** An answer of many hundred tokens, of which each depends on those before it. They go to node `a`, while that can take them. */
const count = {
  model: 'helix-tiny',
  messages: [{ role: 'user' as const, content: 'Count from one to one hundred.' }],
  max_tokens: 900,
  helixflow: { region: 'a' },
};
const greedy = { ...count, temperature: 0 };
const sampled = { ...count, temperature: 0.9, seed: 7 };

/** What must be the same whatever happens to nodes. */
interface Answer {
  readonly text: string;
  readonly finish: string | null | undefined;
  readonly promptTokens: number | undefined;
  readonly completionTokens: number | undefined;
}

interface Streamed extends Answer {
  readonly ids: ReadonlySet<string>;
  readonly provenance: Provenance | undefined;
  readonly headers: Headers;
}

let mesh: ProcessMesh;
let client: OpenAI;

beforeAll(async () => {
  const nodes = { a: ['--region', 'a'], b: ['--region', 'b'] };
  // Long enough for a process to start on a busy machine.
  const gateway = ['--metrics-listen', '127.0.0.1:0', '--wait-timeout', '30s'];
  mesh = await ProcessMesh.start({ gateway, nodes });
  client = await mesh.client();
});

afterAll(async () => {
  await mesh[Symbol.asyncDispose]();
});

/** Pieces of an answer that its client has when something happens. */
const begunPieces = 8;

/** @param begun Called with one of the first pieces. */
async function stream(asked: Asked, begun: () => void = () => {}): Promise<Streamed> {
  const request = { ...asked, stream: true as const, stream_options: { include_usage: true } };
  const { data, response } = await client.chat.completions.create(request).withResponse();
  const ids = new Set<string>();
  let pieces = 0;
  let [text, finish, usage, provenance]: [string, Answer['finish'], OpenAI.CompletionUsage?, Provenance?] = ['', null];
  for await (const chunk of data) {
    const [choice] = chunk.choices;
    ids.add(chunk.id);
    text += choice?.delta.content ?? '';
    finish ??= choice?.finish_reason;
    usage = chunk.usage ?? usage;
    provenance = provenanceOf(chunk) ?? provenance;
    if (choice?.delta.content) pieces += 1;
    if (choice?.delta.content && pieces === begunPieces) begun();
  }
  const tokens = { promptTokens: usage?.prompt_tokens, completionTokens: usage?.completion_tokens };
  return { text, finish, ...tokens, ids, provenance, headers: response.headers };
}

const answerOf = ({ text, finish, promptTokens, completionTokens }: Answer): Answer => ({
  text,
  finish,
  promptTokens,
  completionTokens,
});

/** A part of the text that begins after most of it, and comes nowhere before. */
function lateIn(text: string): string {
  const chars = 12;
  for (let at = Math.floor(text.length * 0.6); at < text.length - chars; at += 1) {
    const part = text.slice(at, at + chars);
    if (text.indexOf(part) === at) return part;
  }
  throw new Error('the text only repeats itself');
}

const both = (): string[] => [peerOf(mesh.node('a')), peerOf(mesh.node('b'))];

describe('a node that is killed', () => {
  test('in mid-answer leaves answers as if nothing had happened: greedy, with a seed, with stop texts, and whole', async ({
    expect,
  }) => {
    await mesh.mend();
    const { text } = await stream(sampled);
    const asked = [greedy, sampled, { ...sampled, stop: lateIn(text) }, { ...sampled, max_tokens: 400 }];
    const undisturbed: Answer[] = [];
    for (const each of asked) undisturbed.push(answerOf(await stream(each)));
    const whole = client.chat.completions.create(greedy);
    const begun = asked.map(() => Promise.withResolvers<void>());
    const streams = asked.map((each, at) => stream(each, begun[at]?.resolve));
    await Promise.all(begun.map(({ promise }) => promise));
    mesh.node('a').kill('SIGKILL');
    const answers = await Promise.all(streams);
    expect(answers.map(answerOf)).toEqual(undisturbed);
    expect(undisturbed.map(({ finish }) => finish)).toEqual(['length', 'length', 'stop', 'length']);
    expect(answers.map(({ provenance }) => provenance)).toEqual(
      asked.map(() => expect.objectContaining({ splices: 1, attempts: 2, nodes: both() })),
    );
    expect(answers.map(({ ids }) => ids.size)).toEqual(asked.map(() => 1));
    const { choices, usage, ...rest } = await whole;
    expect([choices[0]?.message.content, usage?.completion_tokens]).toEqual([undisturbed[0]?.text, count.max_tokens]);
    expect(provenanceOf(rest)).toMatchObject({ splices: 1, nodes: both() });
  });

  test('before its first content goes unnoticed', async ({ expect }) => {
    await mesh.mend();
    const alone = await stream(greedy);
    using _slow = holdEngine(mesh.node('a'));
    using slower = new DisposableStack();
    slower.use(holdEngine(mesh.node('b')));
    const answer = stream(greedy);
    await until(async () => ((await mesh.row('a'))?.active === 1 ? true : undefined));
    mesh.node('a').kill('SIGKILL');
    slower.dispose();
    const { provenance, headers, ...told } = await answer;
    expect(answerOf(told)).toEqual(answerOf(alone));
    expect(provenance).toMatchObject({ splices: 0, attempts: 2, nodes: [peerOf(mesh.node('b'))] });
    expect(headers.get('x-helixflow-node')).toBe(peerOf(mesh.node('b')));
  });
});

describe('the only node that may serve a request', () => {
  test('goes on with its own answer when it is started again in time', async ({ expect }) => {
    await mesh.mend();
    const only = { ...sampled, helixflow: { nodes: { allow: both().slice(0, 1) } } };
    const alone = await stream(only);
    const { promise, resolve } = Promise.withResolvers<void>();
    const answer = stream(only, () => {
      mesh.node('a').kill('SIGKILL');
      resolve();
    });
    await promise;
    await mesh.node('a').exited();
    await mesh.mend();
    const { provenance, ...told } = await answer;
    expect(answerOf(told)).toEqual(answerOf(alone));
    expect(provenance).toMatchObject({ splices: 1, attempts: 2 });
    expect(new Set(provenance?.nodes)).toEqual(new Set(both().slice(0, 1)));
  });
});

describe('a node that is there, and does nothing', () => {
  test('frozen in mid-answer, another one goes on, and it serves again once it is heard', async ({ expect }) => {
    await mesh.mend();
    const alone = await stream(greedy);
    const answer = await stream(greedy, () => mesh.node('a').kill('SIGSTOP'));
    mesh.node('a').kill('SIGCONT');
    expect(answerOf(answer)).toEqual(answerOf(alone));
    expect(answer.provenance).toMatchObject({ splices: 1, nodes: both() });
    await mesh.mend();
    expect((await stream(greedy)).provenance).toMatchObject({ splices: 0, nodes: [peerOf(mesh.node('a'))] });
  });

  test('alive, but with an engine that produces nothing: another one goes on, and it gets no more until it works', async ({
    expect,
  }) => {
    await mesh.mend();
    const alone = await stream(greedy);
    using held = new DisposableStack();
    const answer = await stream(greedy, () => held.use(holdEngine(mesh.node('a'))));
    expect(answerOf(answer)).toEqual(answerOf(alone));
    expect(answer.provenance).toMatchObject({ splices: 1, nodes: both() });
    const metrics = await (await fetch(String(mesh.gateway.ready['metricsUrl']))).text();
    expect(metrics).toMatch(/^helixflow_gateway_breakers\{state="(open|half-open)"\} 1$/m);
    expect(metrics).toMatch(/^helixflow_gateway_attempts_stalled_total [1-9]/m);
    expect((await mesh.row('a'))?.responsive).toBe(true);
    const [id = ''] = answer.ids;
    expect((await mesh.daemons.run(['why', id, '--data-dir', mesh.gateway.dir])).stdout).toMatch(
      /n1 fails after \d+ tokens: NODE_STALLED[\s\S]*n2 is done after \d+ tokens/,
    );
    held.dispose();
    const isBack = async (): Promise<true | undefined> =>
      (await stream({ ...greedy, max_tokens: 1 })).headers.get('x-helixflow-node') === both()[0] ? true : undefined;
    expect(await until(isBack, 20_000)).toBe(true);
  });
});
