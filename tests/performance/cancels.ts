/** Clients that leave: how long it takes until the slot of their answer is free again, in every mode. */

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Trace } from '../../gateway/route/trace.ts';
import { quantile } from './load.ts';
import { type BenchMesh, startBenchMesh } from './mesh.ts';

/** How a client leaves. */
type Mode = 'streamed' | 'whole' | 'prefilling' | 'queued';
const modes: readonly Mode[] = ['streamed', 'whole', 'prefilling', 'queued'];

interface ModeReport {
  readonly mode: Mode;
  readonly cancels: number;
  /** Clients that left when the answer had ended, or before it had left the gateway. */
  readonly late: number;
  readonly unheard: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface CancelsReport {
  readonly engine: string;
  readonly modes: readonly ModeReport[];
}

const engines = {
  synthetic: { model: 'synthetic', flags: ['--engine', 'synthetic', '--tokens-per-second', '40', '--slots', '8'] },
  embedded: { model: 'helix-tiny', flags: [] },
} as const;
export type CancelEngine = keyof typeof engines;

/** Prompt characters: the embedded model computes a long one for a second or so. */
const promptChars: Readonly<Record<Mode, number>> = { streamed: 40, whole: 40, prefilling: 12_000, queued: 40 };
/** When the client leaves, after it asked. */
const leaveMs: Readonly<Record<Mode, readonly [number, number]>> = {
  streamed: [150, 600],
  whole: [100, 500],
  prefilling: [10, 120],
  queued: [50, 150],
};
const slots = 8;

/** Asks, and leaves. @returns the id of the request, where its headers had come; else nothing. */
function askAndLeave(mesh: BenchMesh, body: string, afterMs: number): Promise<void> {
  return new Promise((resolve) => {
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...mesh.headers };
    const request = http.request(mesh.url, { method: 'POST', agent: false, headers });
    const leave = setTimeout(() => request.destroy(), afterMs);
    const end = (): void => {
      clearTimeout(leave);
      resolve();
    };
    request.on('error', end);
    request.on('response', (response) => {
      response.on('error', end);
      response.on('end', end);
      response.resume();
    });
    request.end(body);
  });
}

const settlesOf = (traces: readonly Trace[]): (number | undefined)[] =>
  traces.flatMap(({ steps }) =>
    steps.flatMap((step) => (step.kind === 'cancelled' && step.why === 'client' ? [step.settledMs] : [])),
  );

async function measureMode(mesh: BenchMesh, model: string, mode: Mode, count: number): Promise<ModeReport> {
  const before = new Set((await mesh.stories()).map(({ request }) => request));
  const chat = (index: number) =>
    JSON.stringify({
      model,
      messages: [{ role: 'user', content: `${index} ${'mesh of nodes '.repeat(promptChars[mode] / 14)}` }],
      max_tokens: 400,
      stream: mode !== 'whole',
    });
  const holders =
    mode === 'queued' ? Array.from({ length: slots }, (_, at) => askAndLeave(mesh, chat(at), 20_000)) : [];
  await sleep(500);
  const [from, to] = leaveMs[mode];
  let next = 0;
  const lanes = Array.from({ length: 4 }, async () => {
    while (next < count) {
      const index = next;
      next += 1;
      await askAndLeave(mesh, chat(1_000 + index), from + ((to - from) * (index % 17)) / 16);
    }
  });
  await Promise.all(lanes);
  await Promise.all(holders);
  await sleep(2_500);
  const traces = (await mesh.stories()).filter(({ request }) => !before.has(request));
  const settles = settlesOf(traces);
  const heard = settles.filter((time) => time !== undefined);
  return {
    mode,
    cancels: settles.length,
    late: count - Math.min(count, settles.length),
    unheard: settles.length - heard.length,
    p50: quantile(heard, 0.5),
    p99: quantile(heard, 0.99),
    max: Math.max(0, ...heard),
  };
}

/** Plays it on real processes. */
export async function measureCancels(dir: string, engine: CancelEngine, count: number): Promise<CancelsReport> {
  const { model, flags } = engines[engine];
  await using mesh = await startBenchMesh(dir, { nodes: 1, node: () => flags });
  const reports: ModeReport[] = [];
  for (const mode of modes) reports.push(await measureMode(mesh, model, mode, count));
  return { engine, modes: reports };
}

export const cancelsText = ({ engine, modes: reports }: CancelsReport): string =>
  [
    `${engine} engine: from a client's leaving to the node's word that the slot is free (to reach: p99 ≤ 100 ms)`,
    ...reports.map(
      ({ mode, cancels, late, unheard, p50, p99, max }) =>
        `${mode.padEnd(11)} ${cancels} cancels, p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, at most ${max.toFixed(1)} ms; ${late} too late to matter, ${unheard} unheard`,
    ),
  ].join('\n');
