/**
 * What a request costs in bytes: between gateways, as they are on the socket, and on the disks of all who hold it; whole
 * gateways and nodes at a steady rate of requests. `node tests/performance/bytes.ts [seconds] [requests a second …]`.
 */

import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Block } from '../../ledger/block.ts';
import { parseEntry } from '../../ledger/entry.ts';
import { sizeOfBlock } from '../../ledger/feed-blocks.ts';
import { StreamChannel } from '../../protocol/adapters/libp2p/channel.ts';
import { toHex } from '../../protocol/crypto.ts';
import type { AccountId, KeyId, PeerId, PriceId, RequestId } from '../../protocol/ids.ts';
import { LEDGER_PROTOCOL } from '../../protocol/messages/ledger.ts';
import type { Connection, Store } from '../../protocol/ports.ts';
import { seconds as secondsOf, unixMs } from '../../protocol/units.ts';
import { SimRandom } from '../../sim/random.ts';
import { accessOf } from '../support/access.ts';
import { makeGateway, makeNode, meshNamed, watchSockets } from './real-peers.ts';

const keyCount = 1_000;
/** For the first searches of the directory, and for what is on its way. */
const startMs = 12_000;
const settleMs = 4_000;
/** Before a frame of some size. */
const lengthBytes = 2;
/** What a frame of a tab has beside its parts. */
const frameBytes = 16;
const all = { gte: new Uint8Array(0), lt: new Uint8Array(64).fill(255) };

/** Bytes a request, at one rate. */
export interface BytesRow {
  readonly requestsPerSecond: number;
  readonly linesPerStatement: number;
  /** Both ways on the socket between two gateways, encrypted, with everything else that is said there. */
  readonly socket: number;
  /** Frames of the ledger on it, both ways: what requests cost. */
  readonly ledger: number;
  /** On the socket while no request comes, a second: mostly searches of the directory. */
  readonly idlePerSecond: number;
  readonly statements: number;
  readonly countersigns: number;
  readonly headers: number;
  /** Statements with their proofs and countersignatures, as frames between gateway and node. */
  readonly node: number;
  /** Rows that stay, keys and values. */
  readonly rows: Record<'gateway' | 'other' | 'node', number>;
  /** LevelDB's files, once they are compacted. */
  readonly disk: Record<'gateway' | 'other' | 'node', number>;
}

export interface BytesReport {
  readonly loadBefore: number;
  readonly loadAfter: number;
  readonly rows: readonly BytesRow[];
}

type Gateway = Awaited<ReturnType<typeof makeGateway>>;
type Node = Awaited<ReturnType<typeof makeNode>>;

interface Stage extends AsyncDisposable {
  readonly dir: string;
  readonly gateway: Gateway;
  readonly other: Gateway;
  readonly node: Node;
}

const pass = (passMs: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, passMs));

async function until(condition: () => boolean): Promise<void> {
  const endMs = performance.now() + 60_000;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`not within a minute: ${condition}`);
    await pass(20);
  }
}

async function openStage(name: string): Promise<Stage> {
  const dir = mkdtempSync(join(tmpdir(), 'hx-bytes-'));
  const mesh = await meshNamed(`bytes ${name}`);
  const peer = (of: string) => ({ mesh, name: `${name} ${of}`, dir: join(dir, of) });
  const gateway = await makeGateway({ ...peer('gateway'), isIssuer: true });
  await gateway.gateway.start();
  const price = { kind: 'price', id: 'ab'.repeat(8) as PriceId, model: '*', fromMs: unixMs(Date.now()) } as const;
  await gateway.gateway.ledger.append('issuer', [
    { ...price, prompt: 1_000_000, cached: 100_000, completion: 3_000_000 },
  ]);
  const bootstrap = [gateway.contact];
  const other = await makeGateway({ ...peer('other'), bootstrap });
  const node = await makeNode({ ...peer('node'), bootstrap });
  await other.gateway.start();
  await node.node.start();
  await until(() => gateway.gateway.gateway.models().length > 0 && other.gateway.ledger.heads().length > 0);
  return {
    ...{ dir, gateway, other, node },
    [Symbol.asyncDispose]: async () => {
      for (const running of [node, other, gateway]) await running[Symbol.asyncDispose]();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** The socket between two peers, at the end of the one that was dialled. */
function socketBetween(sockets: ReadonlySet<Socket>, at: Gateway, peer: PeerId): Socket {
  const ports = at.network
    .connections()
    .filter((connection) => connection.peer === peer)
    .map(({ remoteAddress }) => Number(remoteAddress.split('/')[4]));
  const found = [...sockets].filter(({ remotePort = 0, destroyed }) => !destroyed && ports.includes(remotePort));
  if (found.length !== 1 || found[0] === undefined) throw new Error(`${found.length} sockets between two gateways`);
  return found[0];
}

/** Bytes of ledger frames that left on each connection. */
const framed = new Map<Connection, number>();
const { send } = StreamChannel.prototype;

function watchFrames(): void {
  StreamChannel.prototype.send = function (this: StreamChannel, frame) {
    if (this.protocol === LEDGER_PROTOCOL) {
      framed.set(this.connection, (framed.get(this.connection) ?? 0) + frame.length + lengthBytes);
    }
    return send.call(this, frame);
  };
}

const framedBetween = (a: Gateway, b: Gateway): number =>
  [...a.network.connections(), ...b.network.connections()]
    .filter(({ peer }) => peer === a.network.self || peer === b.network.self)
    .reduce((sum, connection) => sum + (framed.get(connection) ?? 0), 0);

const passed = ({ bytesRead, bytesWritten }: Socket): number => bytesRead + bytesWritten;

/** Sends requests at a steady rate. @returns a function that ends it. */
function drive({ gateway }: Stage, perSecond: number): () => number {
  const random = new SimRandom(`requests ${perSecond}`);
  let answered = 0;
  const timer = setInterval(() => {
    const key = Math.floor(keyCount * random.float() ** 3);
    const keyId = key.toString(16).padStart(16, '0') as KeyId;
    gateway.gateway.gateway.chat(
      {
        request: toHex(random.bytes(16)) as RequestId,
        caller: accessOf({ keyId, account: `account-${key % 300}` as AccountId }),
        model: 'synthetic',
        chat: {
          messages: [{ role: 'user', content: 'Say it. '.repeat(1 + random.int(100)) }],
          maxTokens: 1 + random.int(500),
        },
        deadlineMs: secondsOf(60),
      },
      {
        committed: () => {},
        delta: () => {},
        done: () => {
          answered += 1;
        },
        failed: (error) => {
          throw error;
        },
      },
    );
  }, 1_000 / perSecond);
  return () => {
    clearInterval(timer);
    return answered;
  };
}

async function rowBytes(store: Store): Promise<number> {
  let bytes = 0;
  for await (const [key, value] of store.range(all)) bytes += key.length + value.length;
  return bytes;
}

async function fileBytes(store: Store, dir: string): Promise<number> {
  await store.purge?.(all);
  return readdirSync(dir).reduce((sum, name) => sum + (/\.ldb$/.test(name) ? statSync(join(dir, name)).size : 0), 0);
}

async function sizes({ dir, gateway, other, node }: Stage) {
  const of = async ({ store }: { readonly store: Store }, name: string) => ({
    files: await fileBytes(store, join(dir, name)),
    rows: await rowBytes(store),
  });
  return { gateway: await of(gateway, 'gateway'), other: await of(other, 'other'), node: await of(node, 'node') };
}

/** What the blocks of the gateway's own feed came to, by what is in them. */
function sumOf(blocks: readonly Block[]) {
  const sum = { lines: 0, statementCount: 0, statements: 0, countersigns: 0, headers: 0, node: 0 };
  for (const block of blocks) {
    sum.headers += sizeOfBlock(block);
    const steps = Math.ceil(Math.log2(block.entries.length));
    for (const bytes of block.entries) {
      const entry = parseEntry(bytes);
      sum.headers -= bytes.length;
      if (entry.kind === 'statement') {
        sum.lines += entry.lines.length;
        sum.statementCount += 1;
        sum.statements += bytes.length;
        sum.node += bytes.length + block.head.bytes.length + 64 + 34 * steps + frameBytes;
      } else if (entry.kind === 'countersign') {
        sum.countersigns += bytes.length;
        sum.node += bytes.length + frameBytes;
      }
    }
  }
  return sum;
}

async function measure(sockets: ReadonlySet<Socket>, requestsPerSecond: number, seconds: number): Promise<BytesRow> {
  await using stage = await openStage(`${requestsPerSecond}`);
  const { gateway, other } = stage;
  const { ledger } = gateway.gateway;
  const own = ledger.own()?.author;
  const blocks: Block[] = [];
  await pass(startMs);
  const socket = socketBetween(sockets, gateway, other.network.self);
  const idleFrom = passed(socket);
  await pass(seconds * 1_000);
  const idleBytes = passed(socket) - idleFrom;
  const stop = drive(stage, requestsPerSecond);
  await pass(settleMs);
  const before = await sizes(stage);
  ledger.onBlock((block) => {
    if (block.head.header.author === own && 'entries' in block) blocks.push(block);
  });
  const from = { socket: passed(socket), ledger: framedBetween(gateway, other) };
  await pass(seconds * 1_000);
  const socketBytes = passed(socket) - from.socket;
  const ledgerBytes = framedBetween(gateway, other) - from.ledger;
  const sum = sumOf(blocks.splice(0));
  stop();
  await pass(settleMs);
  const rest = sumOf(blocks);
  const after = await sizes(stage);
  const perLine = (bytes: number): number => Math.round(bytes / sum.lines);
  const grown = (of: 'rows' | 'files') => {
    const at = (who: 'gateway' | 'other' | 'node'): number =>
      Math.round((after[who][of] - before[who][of]) / (sum.lines + rest.lines));
    return { gateway: at('gateway'), other: at('other'), node: at('node') };
  };
  return {
    requestsPerSecond,
    linesPerStatement: Math.round((10 * sum.lines) / sum.statementCount) / 10,
    socket: perLine(socketBytes),
    ledger: perLine(ledgerBytes),
    idlePerSecond: Math.round(idleBytes / seconds),
    statements: perLine(sum.statements),
    countersigns: perLine(sum.countersigns),
    headers: perLine(sum.headers),
    node: perLine(sum.node),
    rows: grown('rows'),
    disk: grown('files'),
  };
}

/** All rates at once, each in a mesh of its own. */
export async function measureBytes(seconds = 30, rates: readonly number[] = [1, 5, 25, 100]): Promise<BytesReport> {
  const sockets = watchSockets();
  watchFrames();
  const loadBefore = loadavg()[0] ?? 0;
  const rows = await Promise.all(rates.map((rate) => measure(sockets, rate, seconds)));
  return { loadBefore, loadAfter: loadavg()[0] ?? 0, rows };
}

/** For people. */
export function bytesText({ rows, loadBefore, loadAfter }: BytesReport): string {
  const row = (...cells: readonly (string | number)[]): string => {
    const [first = '', ...rest] = cells.map(String);
    return first.padEnd(22) + rest.map((cell) => cell.padStart(13)).join('');
  };
  const each = rows.flatMap((one) => {
    const { statements, countersigns, headers, socket, ledger, node } = one;
    return [
      row(`${one.linesPerStatement} lines a statement`, ledger, statements, countersigns, headers, socket, node),
      row(
        '  rows, once compacted',
        ...(['gateway', 'other', 'node'] as const).map((at) => `${one.rows[at]}, ${one.disk[at]}`),
      ),
    ];
  });
  return [
    `bytes a request between two gateways (to reach: ≤ 300 at ≥ 25 lines a statement, ≤ 900 at one), and on disk at the gateway, the other gateway and the node; load ${loadBefore} to ${loadAfter}`,
    row('', 'ledger', 'statements', 'countersig.', 'headers', 'socket', 'to node'),
    ...each,
    `without requests: ${Math.max(...rows.map(({ idlePerSecond }) => idlePerSecond))} B/s on the socket`,
  ].join('\n');
}

if (import.meta.main) {
  const [seconds, ...rates] = process.argv.slice(2).map(Number);
  const report = await measureBytes(seconds, rates.length === 0 ? undefined : rates);
  process.stdout.write(`${JSON.stringify(report, undefined, 1)}\n`);
  process.exit();
}
