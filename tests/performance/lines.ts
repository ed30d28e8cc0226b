/** What usage costs a gateway: lines made durable, stated and countersigned, beside the same bytes written to LevelDB. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openLevelStore } from '../../ledger/adapters/store-level.ts';
import type { Block, OpenBlock } from '../../ledger/block.ts';
import { createFeeds } from '../../ledger/create-feeds.ts';
import type { HeldEntry } from '../../ledger/feeds.ts';
import { createGatewayTabs } from '../../ledger/gateway-tabs.ts';
import { Listeners } from '../../ledger/listeners.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import { toHex } from '../../protocol/crypto.ts';
import type { PriceId, RequestId } from '../../protocol/ids.ts';
import type { Store, StoreOp } from '../../protocol/ports.ts';
import { ms, seconds as secondsOf } from '../../protocol/units.ts';
import { silentLog } from '../ledger/feed-stage.ts';
import {
  firstEntry,
  gatewayAuthor,
  gatewayKey,
  gatewayPeer,
  meshId,
  NodeStage,
  runNamed,
  startAt,
} from '../ledger/gateway-tab-stage.ts';

const clock = systemClock();
const random = systemRandom();
const nodeCount = 8;
const price = { id: 'ab'.repeat(8) as PriceId, prompt: 1_000, cached: 100, completion: 3_000 };

export interface LinesReport {
  readonly inFlight: number;
  /** Lines that a client may be told of, a second, with statements and countersignatures made meanwhile. */
  readonly linesPerSecond: number;
  readonly statements: number;
  readonly bytesPerLine: { readonly log: number; readonly feed: number };
  readonly linesPerWrite: number;
  /** CPU of the whole process a line: log, statements, signatures, and LevelDB's own threads. */
  readonly cpuUsPerLine: number;
  readonly durableMs: { readonly p50: number; readonly p99: number };
  /** The same writes, byte for byte as many, one after the other on LevelDB alone. */
  readonly bareLinesPerSecond: number;
  readonly ratio: number;
  /** One request's share of what it waits for: `begin`, 20 × `received`, `end`. */
  readonly callUs: number;
}

interface Write {
  readonly bytes: readonly number[];
  readonly dels: number;
  readonly sync: boolean;
}

/** A store that notes what was written. */
function noting(store: Store, writes: Write[]): Store {
  return {
    get: (key) => store.get(key),
    range: (range) => store.range(range),
    close: () => store.close(),
    batch: (ops, options) => {
      const puts = ops.filter((op) => op.type === 'put');
      writes.push({
        bytes: puts.map(({ key, value }) => (key[0] === 0x6c ? value.length : -value.length)),
        dels: ops.length - puts.length,
        sync: options.sync,
      });
      return store.batch(ops, options);
    },
  };
}

async function openTabs(dir: string, writes: Write[]) {
  const store = noting(await openLevelStore(dir), writes);
  const entries = new Listeners<HeldEntry>();
  const blocks = new Listeners<Block | OpenBlock>();
  const feeds = createFeeds(
    { store, clock, random, log: silentLog },
    { meshId, holds: 'all', mayWrite: async () => true },
    { entry: (held) => entries.tell(held), added: (block) => blocks.tell(block), forked: () => {} },
  );
  const own = feeds.write(gatewayKey, firstEntry);
  const tabs = createGatewayTabs(
    {
      clock,
      store,
      log: silentLog,
      ledger: {
        append: (_as, all) => own.append(all),
        onEntry: (listener) => entries.add(listener),
        onBlock: (listener) => blocks.add(listener),
        own: () => ({ author: gatewayAuthor, epoch: own.epoch }),
        heads: () => feeds.heads(),
        read: (...place) => feeds.read(...place),
        status: () => ({
          authors: 0,
          blocks: 0,
          open: { blocks: 0, entries: 0, damaged: [] },
          frozen: [],
          issuers: [],
          writing: 'ready',
        }),
      },
    },
    { meshId, self: gatewayPeer, run: runNamed(toHex(random.bytes(8))) },
  );
  await feeds.open();
  await tabs.open();
  return { tabs, feeds, store };
}

type Open = Awaited<ReturnType<typeof openTabs>>;

/** Nodes that countersign at once, and look at nothing. */
function connect({ tabs }: Open): readonly NodeStage[] {
  return Array.from({ length: nodeCount }, (_, at) => {
    const node = new NodeStage(`bench ${at}`);
    tabs.ready({
      peer: node.peer,
      sendTab: (frame) => {
        setImmediate(() => tabs.received(node.peer, node.answer(frame)));
        return true;
      },
    });
    return node;
  });
}

/** The requests' own part, prepared before the clock runs. */
const startsFor = (nodes: readonly NodeStage[]) =>
  nodes.map(({ peer }) => ({ ...startAt(peer, peer), price, request: toHex(random.bytes(16)) as RequestId }));

const end = {
  outcome: 'done',
  firstMs: ms(50),
  promptTokens: 400,
  cachedTokens: 128,
  completionTokens: 200,
  nodeTokens: 200,
} as const;

const quantile = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;

/** Each attempt that became durable begins the next. */
async function drive(open: Open, nodes: readonly NodeStage[], inFlight: number, forMs: number) {
  const starts = startsFor(nodes);
  const untilMs = clock.nowMs() + forMs;
  const waits: number[] = [];
  let at = 0;
  let running = inFlight;
  await new Promise<void>((resolve) => {
    const next = (): void => {
      const start = starts[at % starts.length];
      at += 1;
      if (start === undefined || clock.nowMs() >= untilMs) {
        running -= 1;
        if (running === 0) resolve();
        return;
      }
      const line = open.tabs.begin(start);
      const endedMs = clock.nowMs();
      line.end(end, (error) => {
        if (error !== undefined) throw error;
        waits.push(clock.nowMs() - endedMs);
        next();
      });
    };
    for (let begun = 0; begun < inFlight; begun += 1) next();
  });
  return waits;
}

/** `begin`, some pieces, `end`: what the event loop is held up for, without the writes that follow. */
async function callsUs(open: Open, nodes: readonly NodeStage[]): Promise<number> {
  const starts = startsFor(nodes);
  const chunk = 1_000;
  const chunks = 100;
  let spentMs = 0;
  for (let round = 0; round < chunks; round += 1) {
    await new Promise<void>((resolve) => {
      let left = chunk;
      const durable = (): void => {
        left -= 1;
        if (left === 0) resolve();
      };
      const beganMs = clock.nowMs();
      for (let at = 0; at < chunk; at += 1) {
        const start = starts[at % starts.length];
        if (start === undefined) continue;
        const line = open.tabs.begin(start);
        for (let piece = 1; piece <= 20; piece += 1) line.received(piece);
        line.end(end, durable);
      }
      spentMs += clock.nowMs() - beganMs;
    });
  }
  return (1_000 * spentMs) / (chunk * chunks);
}

/** As many bytes in as many writes, nothing else. @returns how long they took. */
async function replay(dir: string, writes: readonly Write[]): Promise<number> {
  const store = await openLevelStore(dir);
  const noise = random.bytes(65_536);
  let number = 0;
  const keyAt = (at: number): Uint8Array => {
    const key = new Uint8Array(26);
    new DataView(key.buffer).setBigUint64(18, BigInt(at));
    return key;
  };
  const batches = writes.map(({ bytes, dels, sync }) => {
    const from = number;
    const ops: StoreOp[] = bytes.map((size) => {
      number += 1;
      return { type: 'put', key: keyAt(number), value: noise.subarray(0, Math.abs(size)) };
    });
    for (let at = 0; at < dels; at += 1) ops.push({ type: 'del', key: keyAt(Math.max(0, from - at)) });
    return { ops, sync };
  });
  const beganMs = clock.nowMs();
  for (const { ops, sync } of batches) await store.batch(ops, { sync });
  const tookMs = clock.nowMs() - beganMs;
  await store.close();
  return tookMs;
}

/** @param seconds For each part. */
export async function measureLines(seconds: number, inFlight = 2_000): Promise<LinesReport> {
  const dir = mkdtempSync(join(tmpdir(), 'hx-lines-'));
  try {
    const writes: Write[] = [];
    const open = await openTabs(join(dir, 'ours'), writes);
    const nodes = connect(open);
    await drive(open, nodes, inFlight, secondsOf(1));
    const callUs = await callsUs(open, nodes);
    // The clock's own timers keep no process alive.
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    writes.length = 0;
    const statementsBefore = open.tabs.status().reduce((sum, { statements }) => sum + statements, 0);
    const cpuBefore = process.cpuUsage();
    const beganMs = clock.nowMs();
    const waits = await drive(open, nodes, inFlight, secondsOf(seconds));
    const tookMs = clock.nowMs() - beganMs;
    const cpu = process.cpuUsage(cpuBefore);
    await open.tabs.close();
    const statements = open.tabs.status().reduce((sum, one) => sum + one.statements, 0) - statementsBefore;
    await open.feeds.close();
    await open.store.close();
    const bareMs = await replay(join(dir, 'bare'), writes);
    const sizes = writes.flatMap(({ bytes }) => bytes);
    const log = sizes.filter((size) => size > 0).reduce((sum, size) => sum + size, 0);
    const feed = -sizes.filter((size) => size < 0).reduce((sum, size) => sum + size, 0);
    const lines = waits.length;
    const linesPerSecond = (1_000 * lines) / tookMs;
    const bareLinesPerSecond = (1_000 * lines) / bareMs;
    waits.sort((a, b) => a - b);
    return {
      inFlight,
      linesPerSecond,
      statements,
      bytesPerLine: { log: log / lines, feed: feed / lines },
      linesPerWrite: lines / writes.filter(({ bytes }) => bytes.some((size) => size > 0)).length,
      cpuUsPerLine: (cpu.user + cpu.system) / lines,
      durableMs: { p50: quantile(waits, 0.5), p99: quantile(waits, 0.99) },
      bareLinesPerSecond,
      ratio: linesPerSecond / bareLinesPerSecond,
      callUs,
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
