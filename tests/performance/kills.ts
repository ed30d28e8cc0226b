/** Nodes that die while they answer: what clients see of it, and for how long nothing comes. */

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Trace } from '../../gateway/route/trace.ts';
import { quantile } from './load.ts';
import { type BenchMesh, startBenchMesh } from './mesh.ts';
import { type ReadAnswer, readAnswer } from './read-stream.ts';

export interface KillsPlan {
  readonly streams: number;
  readonly kills: number;
  /** `SIGSTOP`: the node hangs, its connection stays; it goes on a while later. */
  readonly signal: 'SIGKILL' | 'SIGSTOP';
  readonly engine: 'synthetic' | 'embedded';
  /** Nodes die while they read prompts, before any content. */
  readonly isEarly: boolean;
}

export interface KillsReport extends KillsPlan {
  /** Streams that ended whole, and those whose text and counts are those of the undisturbed run. */
  readonly answers: number;
  readonly whole: number;
  readonly equal: number;
  /** Kills that hit at least one stream, and all hits. */
  readonly effective: number;
  readonly hits: number;
  readonly splices: number;
  /** Between the piece before a hit and the one after it. */
  readonly gapMs: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly errors: readonly string[];
}

const nodes = 3;
const tokensPerSecond = 10;
/** Between kills: the killed node has to come back, and to be worth killing again. */
const everyMs = 2_000;
/** For a process that was killed to serve again, on a busy machine. */
const backMs = 3_000;
const model = { synthetic: 'synthetic', embedded: 'helix-tiny' } as const;
const engineFlags = {
  synthetic: ['--engine', 'synthetic', '--tokens-per-second', String(tokensPerSecond)],
  embedded: [],
} as const;

/** What a prompt takes until its first content, where that is when nodes die. */
const promptWords = 600;
const earlyFlags = ['--engine', 'synthetic', '--tokens-per-second', '100', '--prefill-tokens-per-second', '600'];

function askedOf(mesh: BenchMesh, plan: KillsPlan, at: number) {
  const livedTokens = Math.ceil((plan.kills * (everyMs + backMs) * tokensPerSecond) / 1_000);
  const maxTokens = plan.isEarly ? 20 : plan.engine === 'synthetic' ? livedTokens : 400;
  const words = plan.isEarly ? ' word'.repeat(promptWords) : '';
  const body = JSON.stringify({
    model: model[plan.engine],
    messages: [
      { role: 'user', content: `Tell story number ${at} of the mesh, from its beginning to its end.${words}` },
    ],
    max_tokens: maxTokens,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  });
  return { url: mesh.url, headers: mesh.headers, body };
}

const isSame = (a: ReadAnswer, b: ReadAnswer): boolean =>
  a.text === b.text && a.isWhole && a.usage?.completion_tokens === b.usage?.completion_tokens && a.ids.size === 1;

/** A kill, by whom and when. */
interface Kill {
  readonly peer: string;
  readonly atMs: number;
}

const endsOf = (trace: Trace): { readonly peer: string; readonly atMs: number }[] =>
  trace.steps.flatMap((step) =>
    step.kind === 'failed' && step.code === 'NODE_LOST'
      ? [{ peer: step.node as string, atMs: trace.startMs + step.atMs }]
      : [],
  );

async function killAround(mesh: BenchMesh, { kills, signal, engine, isEarly }: KillsPlan, first = 0): Promise<Kill[]> {
  const done: Kill[] = [];
  const restarts: Promise<void>[] = [];
  for (let at = 0; at < kills; at += 1) {
    if (engine === 'synthetic' && !isEarly) await sleep(everyMs);
    // One at a time: the others are there to go on. Who was spared longest serves the most.
    await restarts.at(-1);
    const place = (first + at) % mesh.nodes.length;
    const node = mesh.nodes[place];
    if (node === undefined) continue;
    done.push({ peer: node.peer, atMs: Date.now() });
    process.kill(node.child.pid, signal);
    if (signal === 'SIGKILL') restarts.push(sleep(200).then(() => mesh.restart(place)));
    else restarts.push(sleep(1.5 * everyMs).then(() => void process.kill(node.child.pid, 'SIGCONT')));
  }
  await Promise.all(restarts);
  return done;
}

type Ask = (at: number) => Promise<ReadAnswer>;

interface Played {
  /** Of stream number `at % streams`. */
  readonly answers: readonly ReadAnswer[];
  readonly kills: readonly Kill[];
}

/** All streams at once, each of which lives through every kill. */
async function onePass(mesh: BenchMesh, plan: KillsPlan, ask: Ask): Promise<Played> {
  const killing = sleep(1_000).then(() => killAround(mesh, plan));
  const answers = await Promise.all(Array.from({ length: plan.streams }, (_, at) => ask(at)));
  return { answers, kills: await killing };
}

/** Answers of a real model are short: one kill for each round of them. */
async function inRounds(mesh: BenchMesh, plan: KillsPlan, ask: Ask): Promise<Played> {
  const answers: ReadAnswer[] = [];
  const kills: Kill[] = [];
  for (let round = 0; round < plan.kills; round += 1) {
    const asking = Promise.all(Array.from({ length: plan.streams }, (_, at) => ask(at)));
    await sleep(150 + 50 * (round % 8));
    kills.push(...(await killAround(mesh, { ...plan, kills: 1 }, round)));
    answers.push(...(await asking));
  }
  return { answers, kills };
}

/** Plays it on real processes. */
export async function measureKills(dir: string, plan: KillsPlan): Promise<KillsReport> {
  await using mesh = await startBenchMesh(dir, {
    nodes,
    node: () => (plan.isEarly ? earlyFlags : engineFlags[plan.engine]),
  });
  const agent = new http.Agent({ keepAlive: true, maxSockets: plan.streams });
  const ask = (at: number): Promise<ReadAnswer> => readAnswer(askedOf(mesh, plan, at), agent);
  const all = Array.from({ length: plan.streams }, (_, at) => at);
  const undisturbed = await Promise.all(all.map(ask));
  const { answers, kills } = await (plan.engine === 'synthetic' && !plan.isEarly
    ? onePass(mesh, plan, ask)
    : inRounds(mesh, plan, ask));
  agent.destroy();
  const traces = await Promise.all(answers.map(({ requestId }) => mesh.why(requestId)));
  const hits = traces.flatMap(endsOf);
  const nearMs = plan.signal === 'SIGKILL' ? 1_000 : 3_000;
  const isHit = (kill: Kill): boolean =>
    hits.some(({ peer, atMs }) => peer === kill.peer && atMs >= kill.atMs - 50 && atMs < kill.atMs + nearMs);
  const gaps = answers.flatMap(({ gapsMs, helixflow }) => gapsMs.slice(0, helixflow?.splices ?? 0));
  return {
    ...plan,
    answers: answers.length,
    whole: answers.filter(({ isWhole }) => isWhole).length,
    equal: answers.filter((answer, at) => isSame(answer, undisturbed[at % plan.streams] as ReadAnswer)).length,
    effective: kills.filter(isHit).length,
    hits: hits.length,
    splices: answers.reduce((sum, { helixflow }) => sum + (helixflow?.splices ?? 0), 0),
    gapMs: { p50: quantile(gaps, 0.5), p99: quantile(gaps, 0.99), max: Math.max(0, ...gaps) },
    errors: answers.flatMap(({ error }) => (error === undefined ? [] : [error])).slice(0, 5),
  };
}

export const killsText = (report: KillsReport): string => {
  const { streams, kills, signal, engine, gapMs } = report;
  return [
    `${signal}${report.isEarly ? ' before first content' : ''}, ${engine} engine: ${streams} streams, ${kills} kills, ${report.effective} of which hit a running stream (${report.hits} hits)`,
    `of ${report.answers} answers whole ${report.whole}, equal to the undisturbed run ${report.equal}, splices ${report.splices}`,
    `nothing came for: p50 ${Math.round(gapMs.p50)} ms, p99 ${Math.round(gapMs.p99)} ms, at most ${Math.round(gapMs.max)} ms`,
    ...report.errors,
  ].join('\n');
};
