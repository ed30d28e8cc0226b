/** Ten times more requests than the nodes can serve: how much of it is still served, who gets it, and what the others are told. */

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { quantile } from './load.ts';
import { type BenchMesh, startBenchMesh } from './mesh.ts';

interface Outcome {
  readonly account: string;
  readonly status: number;
  readonly tookMs: number;
  readonly retryAfterMs: number;
}

interface LoadReport {
  /** Requests per second that came, and that were answered whole in time. */
  readonly offered: number;
  readonly goodput: number;
  readonly refused: number;
  readonly late: number;
  readonly p99Ms: number;
}

export interface OverloadReport {
  /** What the slots could do if nothing else took any time. */
  readonly ideal: number;
  readonly loads: readonly (LoadReport & { readonly factor: number })[];
  /** Goodput at ten times the capacity, of the best there was. */
  readonly share: number;
  /** A modest account beside one that asks ten times too much: what it was answered of what it asked for. */
  readonly modest: { readonly asked: number; readonly answered: number; readonly p99Ms: number };
  /** Of those refused: what they were told to wait. */
  readonly retryAfterMs: { readonly p50: number; readonly max: number };
}

const nodes = 2;
const slots = 8;
const tokensPerSecond = 100;
const tokens = 50;
const secondsEach = 12;
/** An answer that takes longer is worth nothing to its client. */
const patienceMs = 12_000;
const ideal = (nodes * slots * tokensPerSecond) / tokens;

function ask(mesh: BenchMesh, headers: Readonly<Record<string, string>>, index: number, account: string) {
  return new Promise<Outcome>((resolve) => {
    const startMs = performance.now();
    const body = JSON.stringify({
      model: 'synthetic',
      messages: [{ role: 'user', content: `request ${index}` }],
      max_tokens: tokens,
    });
    const all = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...headers };
    const request = http.request(mesh.url, { method: 'POST', agent, headers: all }, (response) => {
      response.resume();
      response.on('end', () => {
        const retryAfterMs = Number(response.headers['retry-after-ms'] ?? Number.NaN);
        resolve({ account, status: response.statusCode ?? 0, tookMs: performance.now() - startMs, retryAfterMs });
      });
    });
    request.on('error', () => resolve({ account, status: 0, tookMs: performance.now() - startMs, retryAfterMs: 0 }));
    request.end(body);
  });
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 8_192 });

/** Sends at a steady pace, whatever becomes of it. */
async function offer(mesh: BenchMesh, from: { name: string; headers: Record<string, string> }, perSecond: number) {
  const outcomes: Promise<Outcome>[] = [];
  const startMs = performance.now();
  while (performance.now() - startMs < secondsEach * 1_000) {
    const due = Math.floor(((performance.now() - startMs) * perSecond) / 1_000);
    while (outcomes.length < due) outcomes.push(ask(mesh, from.headers, outcomes.length, from.name));
    await sleep(5);
  }
  return Promise.all(outcomes);
}

const isGood = ({ status, tookMs }: Outcome): boolean => status === 200 && tookMs <= patienceMs;

function reportOf(outcomes: readonly Outcome[], seconds: number): LoadReport {
  const good = outcomes.filter(isGood);
  return {
    offered: outcomes.length / secondsEach,
    goodput: good.length / seconds,
    refused: outcomes.filter(({ status }) => status === 429 || status === 503).length,
    late: outcomes.filter((outcome) => outcome.status === 200 && !isGood(outcome)).length,
    p99Ms: quantile(
      good.map(({ tookMs }) => tookMs),
      0.99,
    ),
  };
}

/** Plays it on real processes. */
export async function measureOverload(dir: string): Promise<OverloadReport> {
  const flags = ['--engine', 'synthetic', '--tokens-per-second', String(tokensPerSecond), '--slots', String(slots)];
  await using mesh = await startBenchMesh(dir, { nodes, node: () => flags });
  const greedy = { name: 'greedy', headers: { ...(await mesh.keyFor('greedy')) } };
  const modest = { name: 'modest', headers: { ...(await mesh.keyFor('modest')) } };
  await offer(mesh, greedy, ideal / 2);
  const loads: (LoadReport & { factor: number })[] = [];
  for (const factor of [0.5, 0.9, 1.2, 10]) {
    const startMs = performance.now();
    const outcomes = await offer(mesh, greedy, factor * ideal);
    loads.push({ factor, ...reportOf(outcomes, (performance.now() - startMs) / 1_000) });
  }
  const [flood, few] = await Promise.all([offer(mesh, greedy, 10 * ideal), offer(mesh, modest, ideal / 8)]);
  const waits = flood.filter(({ status }) => status !== 200).map(({ retryAfterMs }) => retryAfterMs);
  agent.destroy();
  const best = Math.max(...loads.map(({ goodput }) => goodput));
  return {
    ideal,
    loads,
    share: (loads.at(-1)?.goodput ?? 0) / best,
    modest: {
      asked: few.length,
      answered: few.filter(isGood).length,
      p99Ms: quantile(
        few.filter(isGood).map(({ tookMs }) => tookMs),
        0.99,
      ),
    },
    retryAfterMs: { p50: quantile(waits, 0.5), max: Math.max(0, ...waits) },
  };
}

export const overloadText = ({ ideal: most, loads, share, modest, retryAfterMs }: OverloadReport): string =>
  [
    `${nodes} nodes × ${slots} slots, answers of ${(1_000 * tokens) / tokensPerSecond} ms: ${most} requests/s at best`,
    ...loads.map(
      ({ factor, offered, goodput, refused, late, p99Ms }) =>
        `${factor} × capacity: ${offered.toFixed(0)}/s came, ${goodput.toFixed(1)}/s answered in time (p99 ${p99Ms.toFixed(0)} ms), ${refused} refused, ${late} too late`,
    ),
    `goodput at ten times the capacity: ${share.toFixed(2)} of the best (to reach: ≥ 0.9)`,
    `an account that asks for an eighth of the capacity beside one that asks for ten times it: ${modest.answered} of ${modest.asked} answered, p99 ${modest.p99Ms.toFixed(0)} ms`,
    `refused requests are told to wait ${retryAfterMs.p50.toFixed(0)} ms (median), at most ${retryAfterMs.max.toFixed(0)} ms`,
  ].join('\n');
