/** Requests that share a beginning: time to first token when they go to the node that holds it, beside other ways to choose. */

import http from 'node:http';
import { quantile } from './load.ts';
import { type BenchMesh, startBenchMesh } from './mesh.ts';
import { type ReadAnswer, readAnswer } from './read-stream.ts';

type Routing = 'prefix' | 'least-loaded' | 'random';
const routings: readonly Routing[] = ['random', 'least-loaded', 'prefix'];
type Workload = 'multi-turn' | 'shared-system-prompt';

interface PrefixReport {
  readonly workload: Workload;
  readonly routing: Routing;
  readonly requests: number;
  readonly firstMs: { readonly p50: number; readonly p90: number };
  /** Of the prompt tokens, those that a node had computed before. */
  readonly cachedShare: number;
}

export interface PrefixesReport {
  readonly rows: readonly PrefixReport[];
}

const nodes = 4;
/** As a middling GPU computes prompts: 4,000 tokens in one and a half seconds. */
const prefillTokensPerSecond = 2_500;
/** A node remembers some of what comes, all of them together most of it: as in real life. */
const cacheTokens = 20_000;
const engine = [
  '--engine',
  'synthetic',
  '--tokens-per-second',
  '200',
  '--slots',
  '8',
  '--prefill-tokens-per-second',
  String(prefillTokensPerSecond),
  '--cache-tokens',
  String(cacheTokens),
];

interface Message {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

const wordsOf = (seed: string, count: number): string =>
  Array.from({ length: count }, (_, at) => `${seed}${(at * 7_919) % 1_000}`).join(' ');

interface Client {
  readonly ask: (messages: readonly Message[]) => Promise<ReadAnswer>;
}

/** Conversations of several turns, each of which sends everything again. */
async function multiTurn({ ask }: Client): Promise<ReadAnswer[]> {
  const answers: ReadAnswer[] = [];
  const conversation = async (name: string): Promise<void> => {
    const messages: Message[] = [{ role: 'system', content: wordsOf(`s${name}`, 1_200) }];
    for (let turn = 0; turn < 6; turn += 1) {
      messages.push({ role: 'user', content: wordsOf(`q${name}${turn}`, 120) });
      const answer = await ask(messages);
      messages.push({ role: 'assistant', content: answer.text });
      if (turn > 0) answers.push(answer);
    }
  };
  await Promise.all(Array.from({ length: 12 }, (_, at) => conversation(`${at}x`)));
  return answers;
}

/** A few long system prompts, each of which many short requests begin with. */
async function sharedPrompt({ ask }: Client): Promise<ReadAnswer[]> {
  const systems = Array.from({ length: 14 }, (_, at) => wordsOf(`p${at}y`, 2_000));
  const answers: ReadAnswer[] = [];
  const user = async (at: number): Promise<void> => {
    for (let turn = 0; turn < 10; turn += 1) {
      const system = systems[(3 * at + 5 * turn) % systems.length] ?? '';
      const question = wordsOf(`u${at}${turn}`, 20);
      const answer = await ask([
        { role: 'system', content: system },
        { role: 'user', content: question },
      ]);
      if (turn > 1) answers.push(answer);
    }
  };
  await Promise.all(Array.from({ length: 10 }, (_, at) => user(at)));
  return answers;
}

const workloads: Readonly<Record<Workload, (client: Client) => Promise<ReadAnswer[]>>> = {
  'multi-turn': multiTurn,
  'shared-system-prompt': sharedPrompt,
};

function clientOf(mesh: BenchMesh, agent: http.Agent): Client {
  return {
    ask: (messages) => {
      const options = { max_tokens: 20, stream: true, stream_options: { include_usage: true } };
      const body = JSON.stringify({ model: 'synthetic', messages, ...options });
      return readAnswer({ url: mesh.url, headers: mesh.headers, body }, agent);
    },
  };
}

interface CountedUsage {
  readonly prompt_tokens: number;
  readonly prompt_tokens_details?: { readonly cached_tokens?: number };
}

async function measureOne(dir: string, workload: Workload, routing: Routing): Promise<PrefixReport> {
  await using mesh = await startBenchMesh(dir, { nodes, node: () => engine, gateway: ['--routing', routing] });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
  const answers = await workloads[workload](clientOf(mesh, agent));
  agent.destroy();
  const broken = answers.find(({ isWhole }) => !isWhole);
  if (broken !== undefined) throw new Error(`an answer was not whole: ${broken.error}`);
  const usages = answers.map(({ usage }) => usage as CountedUsage);
  const prompt = usages.reduce((sum, { prompt_tokens }) => sum + prompt_tokens, 0);
  const cached = usages.reduce((sum, usage) => sum + (usage.prompt_tokens_details?.cached_tokens ?? 0), 0);
  const times = answers.map(({ firstMs }) => firstMs);
  return {
    workload,
    routing,
    requests: answers.length,
    firstMs: { p50: quantile(times, 0.5), p90: quantile(times, 0.9) },
    cachedShare: cached / prompt,
  };
}

/** Plays both workloads with each way to choose a node, on real processes. */
export async function measurePrefixes(dirOf: (name: string) => string): Promise<PrefixesReport> {
  const rows: PrefixReport[] = [];
  for (const workload of ['multi-turn', 'shared-system-prompt'] as const) {
    for (const routing of routings) rows.push(await measureOne(dirOf(`${workload}-${routing}`), workload, routing));
  }
  return { rows };
}

export const prefixesText = ({ rows }: PrefixesReport): string =>
  [
    `${nodes} nodes that compute ${prefillTokensPerSecond} prompt tokens/s and remember ${cacheTokens}`,
    ...rows.map(({ workload, routing, requests, firstMs, cachedShare }) => {
      const times = `first token p50 ${firstMs.p50.toFixed(0)} ms, p90 ${firstMs.p90.toFixed(0)} ms`;
      return `${workload.padEnd(21)} ${routing.padEnd(13)} ${requests} requests, ${times}, ${(100 * cachedShare).toFixed(0)} % of the prompt cached`;
    }),
    ...(['multi-turn', 'shared-system-prompt'] as const).map((workload) => {
      const p50 = (routing: Routing): number =>
        rows.find((row) => row.workload === workload && row.routing === routing)?.firstMs.p50 ?? Number.NaN;
      const times = (routing: Routing): string => (p50(routing) / p50('prefix')).toFixed(1);
      return `${workload}: ${times('random')} × sooner than random, ${times('least-loaded')} × than least-loaded (to reach: ≥ 3)`;
    }),
  ].join('\n');
