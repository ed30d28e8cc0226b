/**
 * How long a gateway that was away takes to catch up, over real sockets and two LevelDBs in two processes, beside the same
 * rows copied over a bare socket into synced batches; then how long it takes to start with them.
 * `node tests/performance/catch-up.ts [lines] [lines per statement] [feeds]`.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, connect as tcpConnect } from 'node:net';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { openLevelStore } from '../../ledger/adapters/store-level.ts';
import { authorIdOf } from '../../ledger/block.ts';
import { sizeOfBlock } from '../../ledger/feed-blocks.ts';
import { blockKey, feedKeys, writeBlockRow } from '../../ledger/feed-rows.ts';
import type { PeerId } from '../../protocol/ids.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import type { Contact, StoreOp } from '../../protocol/ports.ts';
import { busyBlocks } from './busy-feeds.ts';
import { start } from './processes.ts';
import { credentialsOf, keyNamed, makeGateway, meshNamed, watchSockets } from './real-peers.ts';

const self = 'tests/performance/catch-up.ts';
const meshName = 'catch-up';
const batchBytes = 1_048_576;
const pollMs = 20;

/** What one process spent. */
interface Spent {
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Resident, at most. */
  readonly peakMiB: number;
}

interface Made {
  readonly blocks: number;
  readonly entries: number;
  /** Headers, signatures and entries. */
  readonly bytes: number;
}

export interface CatchUpReport {
  readonly lines: number;
  readonly made: Made;
  readonly loadBefore: number;
  readonly loadAfter: number;
  readonly caughtUp: Spent & { readonly receivedBytes: number; readonly sentBytes: number };
  readonly giver: { readonly cpuSeconds: number; readonly residentMiB: number };
  /** Bytes on the socket, both ways, to those of the blocks. */
  readonly byteRatio: number;
  readonly copied: Spent;
  readonly opened: Spent & { readonly ledgerSeconds: number; readonly attempts: number; readonly heapMiB: number };
}

const peakMiB = (): number => {
  const kilobytes = /VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return Math.round(Number(kilobytes) / 1_024);
};
const toMiB = (bytes: number): number => Math.round(bytes / 1_048_576);
const say = (report: object): void => void process.stdout.write(`${JSON.stringify(report)}\n`);

/** From now until it is called. */
function stopwatch(): () => Spent {
  const startMs = performance.now();
  const cpu = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(cpu);
    const seconds = (performance.now() - startMs) / 1_000;
    return { seconds, cpuSeconds: (user + system) / 1_000_000, peakMiB: peakMiB() };
  };
}

async function make(dir: string, lines: number, linesPerStatement: number, feeds: number): Promise<Made> {
  const mesh = await meshNamed(meshName);
  const store = await openLevelStore(join(dir, 'giver'));
  const made = { blocks: 0, entries: 0, bytes: 0 };
  let ops: StoreOp[] = [];
  let bytes = 0;
  for (let at = 0; at < feeds; at += 1) {
    const key = keyNamed(at === 0 ? 'giver' : `other ${at}`);
    const peer = peerIdOf(key.publicKey);
    const { certificate, membership } = await credentialsOf(mesh, peer, 'gateway');
    const first = { kind: 'author', role: 'gateway', peer, certificate, membership } as const;
    const blocks = busyBlocks({
      ...{ meshId: mesh.mesh.meshId, key, author: authorIdOf(key.publicKey), first, linesPerStatement, nodes: 4 },
      lines: Math.floor((lines + at) / feeds),
    });
    for (const block of blocks) {
      const rowKey = blockKey(block.head.header);
      ops.push({ type: 'put', key: rowKey, value: writeBlockRow(rowKey, block) });
      made.blocks += 1;
      made.entries += block.entries.length;
      made.bytes += sizeOfBlock(block);
      bytes += sizeOfBlock(block);
      if (bytes < batchBytes) continue;
      await store.batch(ops, { sync: false });
      ops = [];
      bytes = 0;
    }
  }
  await store.batch(ops, { sync: true });
  await store.close();
  return made;
}

const heldBy = ({ ledger }: Awaited<ReturnType<typeof makeGateway>>['gateway']): number =>
  ledger.heads().reduce((sum, { number }) => sum + number + 1, 0);

/** Serves until it is ended: to gateways, and rows to whoever connects to a bare socket. */
async function give(dir: string): Promise<void> {
  const running = await makeGateway({ mesh: await meshNamed(meshName), name: 'giver', dir: join(dir, 'giver') });
  await running.gateway.start();
  const server = createServer(async (socket) => {
    for await (const [key, value] of running.store.range(feedKeys)) {
      const head = Buffer.alloc(8);
      head.writeUInt32BE(key.length);
      head.writeUInt32BE(value.length, 4);
      if (!socket.write(Buffer.concat([head, key, value]))) {
        await new Promise((resolve) => socket.once('drain', resolve));
      }
    }
    socket.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  say({ contact: running.contact, port: typeof address === 'object' ? address?.port : 0 });
}

async function take(dir: string, blocks: number, contact: Contact): Promise<void> {
  const sockets = watchSockets();
  const mesh = await meshNamed(meshName);
  const running = await makeGateway({ mesh, name: 'taker', dir: join(dir, 'taker'), bootstrap: [contact] });
  const spent = stopwatch();
  await running.gateway.start();
  while (heldBy(running.gateway) < blocks) await new Promise((resolve) => setTimeout(resolve, pollMs));
  const caughtUp = spent();
  const sum = (of: 'bytesRead' | 'bytesWritten') => [...sockets].reduce((all, socket) => all + socket[of], 0);
  say({ ...caughtUp, receivedBytes: sum('bytesRead'), sentBytes: sum('bytesWritten') });
  await running[Symbol.asyncDispose]();
}

/** The same rows from a socket into a store, and nothing else. */
async function copy(dir: string, port: number): Promise<void> {
  const store = await openLevelStore(join(dir, 'copy'));
  const spent = stopwatch();
  let ops: StoreOp[] = [];
  let opsBytes = 0;
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of tcpConnect(port, '127.0.0.1') as AsyncIterable<Buffer>) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (rest.length - at >= 8) {
      const [keyBytes, valueBytes] = [rest.readUInt32BE(at), rest.readUInt32BE(at + 4)];
      if (rest.length - at < 8 + keyBytes + valueBytes) break;
      const key = rest.subarray(at + 8, at + 8 + keyBytes);
      const value = rest.subarray(at + 8 + keyBytes, at + 8 + keyBytes + valueBytes);
      ops.push({ type: 'put', key, value });
      at += 8 + keyBytes + valueBytes;
      opsBytes += keyBytes + valueBytes;
      if (opsBytes < batchBytes) continue;
      await store.batch(ops, { sync: true });
      ops = [];
      opsBytes = 0;
    }
    rest = rest.subarray(at);
  }
  await store.batch(ops, { sync: true });
  say(spent());
  await store.close();
}

/** A start with all of it on disk. */
async function reopen(dir: string): Promise<void> {
  const running = await makeGateway({ mesh: await meshNamed(meshName), name: 'taker', dir: join(dir, 'taker') });
  const spent = stopwatch();
  await running.gateway.open();
  const { seconds } = spent();
  await running.gateway.start();
  const opened = spent();
  const { attempts } = running.gateway.usage.totals();
  globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  say({ ...opened, ledgerSeconds: seconds, attempts, heapMiB: toMiB(heapUsed + arrayBuffers) });
  await running[Symbol.asyncDispose]();
}

async function ended<T>(args: readonly string[]): Promise<T> {
  await using child = await start([self, ...args]);
  return JSON.parse(child.line) as T;
}

/** @throws Error when not all came. */
export async function measureCatchUp(lines = 1_000_000, linesPerStatement = 100, feeds = 3): Promise<CatchUpReport> {
  const dir = mkdtempSync(join(process.env['BENCH_DIR'] ?? tmpdir(), 'hx-catch-up-'));
  try {
    const made = await make(dir, lines, linesPerStatement, feeds);
    const loadBefore = loadavg()[0] ?? 0;
    await using giver = await start([self, 'give', dir]);
    const { contact, port } = JSON.parse(giver.line) as { contact: Contact; port: number };
    const cpuBefore = giver.cpuUs();
    const to = JSON.stringify(contact);
    const caughtUp = await ended<CatchUpReport['caughtUp']>(['take', dir, `${made.blocks}`, to]);
    const cpuSeconds = (giver.cpuUs() - cpuBefore) / 1_000_000;
    const residentMiB = toMiB(giver.residentBytes());
    const copied = await ended<Spent>(['copy', dir, `${port}`]);
    await giver[Symbol.asyncDispose]();
    const opened = await ended<CatchUpReport['opened']>(['open', dir]);
    if (opened.attempts !== lines) throw new Error(`${opened.attempts} attempts of ${lines} lines`);
    return {
      ...{ lines, made, loadBefore, loadAfter: loadavg()[0] ?? 0, caughtUp, giver: { cpuSeconds, residentMiB } },
      byteRatio: (caughtUp.receivedBytes + caughtUp.sentBytes) / made.bytes,
      ...{ copied, opened },
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const tenth = (value: number): string => value.toFixed(1);

/** For people. */
export function catchUpText(report: CatchUpReport): string {
  const { lines, made, caughtUp, giver, byteRatio, copied, opened, loadBefore, loadAfter } = report;
  return [
    `caught up         ${lines} lines, ${made.blocks} blocks, in ${tenth(caughtUp.seconds)} s (to reach: ≤ 30); ${tenth(caughtUp.cpuSeconds)} s of CPU, ${tenth(giver.cpuSeconds)} s at who gave; ${caughtUp.peakMiB} MiB at most; load ${tenth(loadBefore)} to ${tenth(loadAfter)}`,
    `bytes             ${byteRatio.toFixed(3)} × those of the blocks, ${tenth(made.bytes / lines)} a line (to reach: ≤ 1.1)`,
    `bare copy         ${tenth(copied.seconds)} s for the same rows over a socket into synced batches; ${tenth(copied.cpuSeconds)} s of CPU`,
    `started with it   ${tenth(opened.seconds)} s, ${tenth(opened.cpuSeconds)} s of CPU; ${opened.peakMiB} MiB at most, ${opened.heapMiB} MiB then held`,
  ].join('\n');
}

if (import.meta.main) {
  // An end by signal would leave no profile behind.
  process.once('SIGTERM', () => process.exit());
  const [what = '', dir = '', third = '', fourth = ''] = process.argv.slice(2);
  if (what === 'give') await give(dir);
  else if (what === 'take') await take(dir, Number(third), JSON.parse(fourth) as Contact & { readonly peer: PeerId });
  else if (what === 'copy') await copy(dir, Number(third));
  else if (what === 'open') await reopen(dir);
  else say(await measureCatchUp(...process.argv.slice(2).map(Number)));
}
