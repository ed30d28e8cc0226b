/**
 * What the gateway costs, beside what nothing at all costs, in one run: CPU per request beside a bare Fastify echo,
 * CPU per streamed token beside a bare SSE write, time to first token beside the same pace without a mesh.
 *
 * `npm run bench [-- --json] [-- --seconds 5]`: all of it. `npm run bench -- access`: what a known key and limits cost
 * alone. `npm run bench -- tokens [--count 1000000] [--seed 1]`: texts that are no keys. `npm run bench -- lines`: durable
 * lines beside bare LevelDB. `npm run bench -- usage`: lines settled, and questions about ten million of them, beside
 * SQLite. `npm run bench -- verify`: a million lines checked by `ledger verify`. `npm run bench -- leases`: how near gateways
 * come to what they share. `npm run bench -- catch-up`: a million lines between two gateways, beside a bare copy.
 * `npm run bench -- bytes`: what a request costs between gateways and on disks. `npm run bench -- kills [--engine embedded]
 * [--streams 200] [--kills 20] [--signal SIGSTOP] [--early]`: nodes that die while they answer. `npm run bench -- cancels`: clients that
 * leave. `npm run bench -- overload`: ten times more requests than can be served. `npm run bench -- prefixes`: requests that
 * share a beginning. Linux only: CPU times come from /proc.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type AccessReport, fuzzTokens, measureAccess } from './access.ts';
import { bytesText, measureBytes } from './bytes.ts';
import { cancelsText, measureCancels } from './cancels.ts';
import { catchUpText, measureCatchUp } from './catch-up.ts';
import { killsText, measureKills } from './kills.ts';
import { leasesText, measureLeases } from './leases.ts';
import { type LinesReport, measureLines } from './lines.ts';
import { quantile, requests, type StreamResult, streams, type Target } from './load.ts';
import { measureOverload, overloadText } from './overload.ts';
import { measurePrefixes, prefixesText } from './prefixes.ts';
import { type Child, start } from './processes.ts';
import { measureUsage, usageText } from './usage.ts';
import { measureVerify, verifyText } from './verify.ts';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '5' },
    count: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
    engine: { type: 'string', default: 'synthetic' },
    streams: { type: 'string', default: '200' },
    kills: { type: 'string', default: '20' },
    signal: { type: 'string', default: 'SIGKILL' },
    early: { type: 'boolean', default: false },
  },
});
const seconds = Number(options.seconds);
const connections = 32;
/** Until the compiler has settled: both sides get the same. */
const warmUpSeconds = 6;
const streamCount = 500;
const streamTokens = 100;
const tokensPerSecond = 20;
/** A limit that is counted, and never reached. */
const most = '2000000000';
const cli = 'cli/helixflow.mjs';

const say = (text: string): void => void process.stderr.write(`${text}\n`);

async function run(args: readonly string[]): Promise<Record<string, unknown>> {
  await using child = await start([cli, ...args, '--json']);
  return JSON.parse(child.line) as Record<string, unknown>;
}

/** A gateway and a node with the synthetic engine, as separate processes. */
async function startMesh(dir: string, engine: readonly string[]) {
  const gatewayDir = join(dir, 'gateway');
  await run(['mesh', 'create', '--data-dir', gatewayDir]);
  const gateway = await start([
    cli,
    'gateway',
    '--data-dir',
    gatewayDir,
    '--port',
    '0',
    '--log-level',
    'warn',
    '--json',
  ]);
  const { baseUrl } = JSON.parse(gateway.line) as { baseUrl: string };
  const { token } = await run(['mesh', 'invite', '--role', 'node', '--data-dir', gatewayDir]);
  const create = ['keys', 'create', '--data-dir', gatewayDir, '--name'];
  const { key } = await run([...create, 'bench']);
  const rates = ['--rpm', most, '--tpm', most, '--concurrency', '1000000'];
  const { key: limitedKey } = await run([...create, 'limited', ...rates]);
  const node = await start(
    [
      cli,
      'node',
      '--data-dir',
      join(dir, 'node'),
      '--join',
      '-',
      '--engine',
      'synthetic',
      '--log-level',
      'warn',
      ...engine,
      '--json',
    ],
    String(token),
  );
  return {
    gateway,
    node,
    url: `${baseUrl}/chat/completions`,
    headers: { authorization: `Bearer ${String(key)}` },
    limited: { authorization: `Bearer ${String(limitedKey)}` },
    [Symbol.asyncDispose]: async () => {
      await node[Symbol.asyncDispose]();
      await gateway[Symbol.asyncDispose]();
    },
  };
}

const chat = (extra: object): string =>
  JSON.stringify({
    model: 'synthetic',
    messages: [{ role: 'user', content: 'Say something about the mesh.' }],
    ...extra,
  });

async function cpuPerRequest(child: Child, target: Target): Promise<number> {
  await requests(target, connections, warmUpSeconds);
  const before = child.cpuUs();
  const answered = await requests(target, connections, seconds);
  return (child.cpuUs() - before) / answered;
}

async function cpuPerToken(child: Child, target: Target) {
  await streams(target, 50, 500);
  const before = child.cpuUs();
  const results = await streams(target, streamCount, 2_000);
  const tokens = results.reduce((sum, result) => sum + result.tokens, 0);
  return { cpuUs: (child.cpuUs() - before) / tokens, results };
}

const check = (results: readonly StreamResult[]): void => {
  const broken = results.filter(({ tokens, isWhole }) => tokens !== streamTokens || !isWhole).length;
  if (broken > 0) throw new Error(`${broken} of ${results.length} streams were not whole`);
};

const firstContent = (results: readonly StreamResult[], share: number): number =>
  quantile(
    results.map(({ firstContentMs }) => firstContentMs),
    share,
  );

const round = (value: number): number => Math.round(value * 100) / 100;

const engine = options.engine === 'embedded' ? 'embedded' : 'synthetic';

async function kills(dir: string): Promise<void> {
  const plan = { streams: Number(options.streams), kills: Number(options.kills), engine } as const;
  const signal = options.signal === 'SIGSTOP' ? 'SIGSTOP' : 'SIGKILL';
  printText(await measureKills(dir, { ...plan, signal, isEarly: options.early }), killsText);
}

const sections: Readonly<Record<string, (dir: string) => Promise<void> | void>> = {
  access: async () => printAccess(await measureAccess()),
  tokens,
  lines: async () => printLines(await measureLines(seconds)),
  usage: () => printText(measureUsage(), usageText),
  verify: async () => printText(await measureVerify(), verifyText),
  leases: async () => printText(await measureLeases(), leasesText),
  'catch-up': async () => printText(await measureCatchUp(), catchUpText),
  bytes: async () => printText(await measureBytes(), bytesText),
  kills,
  cancels: async (dir) => printText(await measureCancels(dir, engine, Number(options.streams)), cancelsText),
  overload: async (dir) => printText(await measureOverload(dir), overloadText),
  prefixes: async (dir) => printText(await measurePrefixes((name) => join(dir, name)), prefixesText),
  all,
};

async function main(): Promise<void> {
  const [section = 'all'] = positionals;
  const measure = sections[section];
  if (measure === undefined) {
    throw new Error(`no part of the bench is named ${section}; there are ${Object.keys(sections).join(', ')}`);
  }
  const dir = mkdtempSync(join(tmpdir(), 'hx-bench-'));
  try {
    await measure(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const printJson = (report: object): void => void process.stdout.write(`${JSON.stringify(report)}\n`);

function printText<T extends object>(report: T, textOf: (report: T) => string): void {
  if (options.json) printJson(report);
  else process.stdout.write(`${textOf(report)}\n`);
}

function printAccess(report: AccessReport): void {
  if (options.json) {
    printJson(report);
    return;
  }
  const { keyUs, limitsUs, hundredPiecesUs } = report;
  const lines = [
    `known key, judged          ${round(keyUs)} µs (to reach: ≤ 2)`,
    `limits, taken and settled  ${round(limitsUs)} µs, and ${round(hundredPiecesUs)} µs for 100 pieces of an answer`,
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

function printLines(report: LinesReport): void {
  if (options.json) {
    printJson(report);
    return;
  }
  const { bytesPerLine, durableMs } = report;
  const lines = [
    `durable lines     ${round(report.linesPerSecond)}/s with ${report.inFlight} in flight (to reach: ≥ 50000); ${report.statements} statements made, signed and countersigned meanwhile`,
    `bare LevelDB      ${round(report.bareLinesPerSecond)}/s for the same writes, ${round(report.linesPerWrite)} lines each; ratio ${round(report.ratio)}`,
    `until durable     p50 ${round(durableMs.p50)} ms, p99 ${round(durableMs.p99)} ms`,
    `bytes a line      ${round(bytesPerLine.log)} in the log, then ${round(bytesPerLine.feed)} in the feed`,
    `CPU a line        ${round(report.cpuUsPerLine)} µs, all of it; begin, 20 pieces and end alone ${round(report.callUs)} µs (to reach: ≤ 5)`,
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** Fails when a text was accepted, or something was thrown that is no error of keys. */
async function tokens(): Promise<void> {
  const report = await fuzzTokens(Number(options.count), Number(options.seed));
  const { count, accepted, untyped, p50Us, p99Us, p999Us, maxUs } = report;
  const times = `p50 ${round(p50Us)} µs, p99 ${round(p99Us)} µs, p99.9 ${round(p999Us)} µs, max ${round(maxUs)} µs`;
  if (options.json) printJson(report);
  else process.stdout.write(`${count} texts, ${accepted} accepted, ${untyped} untyped errors; ${times}\n`);
  if (accepted + untyped > 0) process.exitCode = 1;
}

async function all(dir: string): Promise<void> {
  say('requests: instant engine against a bare Fastify JSON echo …');
  let echoUs: number;
  let gatewayUs: number;
  let limitedUs: number;
  let idleBytes: number;
  {
    await using mesh = await startMesh(join(dir, 'instant'), []);
    await using echo = await start(['tests/performance/baseline.ts', 'echo']);
    idleBytes = mesh.gateway.residentBytes();
    const body = chat({ max_tokens: 1 });
    const bare = { url: `http://127.0.0.1:${echo.line}/v1/chat/completions`, headers: mesh.headers, body };
    const before = await cpuPerRequest(echo, bare);
    gatewayUs = await cpuPerRequest(mesh.gateway, { url: mesh.url, headers: mesh.headers, body });
    limitedUs = await cpuPerRequest(mesh.gateway, { url: mesh.url, headers: mesh.limited, body });
    echoUs = (before + (await cpuPerRequest(echo, bare))) / 2;
  }
  say(`streams: ${streamCount} at ${tokensPerSecond} tokens/s against bare SSE writes …`);
  await using mesh = await startMesh(join(dir, 'paced'), ['--tokens-per-second', String(tokensPerSecond)]);
  await using sse = await start(['tests/performance/baseline.ts', 'sse']);
  const body = chat({ max_tokens: streamTokens, stream: true });
  const bareUrl = `http://127.0.0.1:${sse.line}/?tokens=${streamTokens}&rate=${tokensPerSecond}`;
  const bare = await cpuPerToken(sse, { url: bareUrl, headers: {}, body });
  const ours = await cpuPerToken(mesh.gateway, { url: mesh.url, headers: mesh.headers, body });
  check(bare.results);
  check(ours.results);
  const report = {
    cores: cpus().length,
    cpu: cpus()[0]?.model,
    node: process.version,
    request: {
      gatewayUs: round(gatewayUs),
      limitedUs: round(limitedUs),
      echoUs: round(echoUs),
      ratio: round(gatewayUs / echoUs),
      limitedRatio: round(limitedUs / echoUs),
    },
    token: { gatewayUs: round(ours.cpuUs), sseUs: round(bare.cpuUs), ratio: round(ours.cpuUs / bare.cpuUs) },
    firstTokenAddedMs: {
      streams: streamCount,
      p50: round(firstContent(ours.results, 0.5) - firstContent(bare.results, 0.5)),
      p99: round(firstContent(ours.results, 0.99) - firstContent(bare.results, 0.99)),
    },
    gatewayResidentMB: { idle: round(idleBytes / 1e6), after500Streams: round(mesh.gateway.residentBytes() / 1e6) },
  };
  if (options.json) process.stdout.write(`${JSON.stringify(report)}\n`);
  else print(report);
}

interface Report {
  readonly cores: number;
  readonly cpu: string | undefined;
  readonly node: string;
  readonly request: {
    readonly gatewayUs: number;
    /** With a key that has limits. */
    readonly limitedUs: number;
    readonly echoUs: number;
    readonly ratio: number;
    readonly limitedRatio: number;
  };
  readonly token: { readonly gatewayUs: number; readonly sseUs: number; readonly ratio: number };
  readonly firstTokenAddedMs: { readonly streams: number; readonly p50: number; readonly p99: number };
  readonly gatewayResidentMB: { readonly idle: number; readonly after500Streams: number };
}

function print(report: Report): void {
  const { request, token, firstTokenAddedMs, gatewayResidentMB } = report;
  const row = (...[what = '', ours = '', baseline = '', ratio = '', reach = '']: string[]): string =>
    [what.padEnd(34), ours.padStart(12), baseline.padStart(24), ratio.padStart(8), reach.padStart(16)].join('  ');
  const lines = [
    `${report.cores} × ${report.cpu}, Node ${report.node}`,
    row('', 'gateway', 'baseline', 'ratio', 'to reach'),
    row('CPU per request', `${request.gatewayUs} µs`, `${request.echoUs} µs Fastify echo`, `${request.ratio}`, '≤ 2'),
    row('… with limits', `${request.limitedUs} µs`, '', `${request.limitedRatio}`, '≤ 2'),
    row('CPU per streamed token', `${token.gatewayUs} µs`, `${token.sseUs} µs bare SSE`, `${token.ratio}`, '≤ 2'),
    row(
      `first token added, ${firstTokenAddedMs.streams} streams p50`,
      `${firstTokenAddedMs.p50} ms`,
      'same pace, no mesh',
      '',
      '< 1 ms',
    ),
    row(
      `first token added, ${firstTokenAddedMs.streams} streams p99`,
      `${firstTokenAddedMs.p99} ms`,
      'same pace, no mesh',
      '',
      '< 5 ms',
    ),
    row('gateway memory, idle', `${gatewayResidentMB.idle} MB`, '', '', '< 120 MB'),
    row(
      `gateway memory, after ${firstTokenAddedMs.streams} streams`,
      `${gatewayResidentMB.after500Streams} MB`,
      '',
      '',
      '',
    ),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

await main();
