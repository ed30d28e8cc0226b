/** The line log: finished attempts on disk before anybody is told of their end, until a statement of the feed holds them. */

import type { Value } from '../protocol/codec.ts';
import { fromHex } from '../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError, toHelixFlowError } from '../protocol/errors.ts';
import { isPeerId, type PeerId, type ProcessId } from '../protocol/ids.ts';
import type { Clock, Store, StoreOp } from '../protocol/ports.ts';
import { Reader } from '../protocol/reader.ts';
import { LineSize } from './gateway-tab-size.ts';
import { LineReader, LineWriter, type UsageLine } from './line.ts';
import { readSealedRow, sealRow } from './sealed-rows.ts';

/** Every key of the log. */
export const lineKeys = { gte: Uint8Array.of(0x6c, 0x2f), lt: Uint8Array.of(0x6c, 0x30) };

const runAt = lineKeys.gte.length;
const numberAt = runAt + 16;
const keyBytes = numberAt + 8;
/** Of one row; a write has as many rows as its lines need. */
const room = { linesMax: 256, bytesMax: 61_440 };
const headBytes = 64;

/** A row of the store, which goes when all its lines are stated. */
export interface LogRow {
  readonly key: Uint8Array;
  /** Lines that no statement holds yet. */
  unstated: number;
}

/** A line, and the node that did the work. */
export interface LoggedLine {
  readonly node: PeerId;
  readonly line: UsageLine;
}

/** What was on disk at the start. */
export interface LogReport {
  readonly lines: readonly (LoggedLine & { readonly row: LogRow })[];
  /** Rows of which a byte has changed; they are gone. */
  readonly damaged: number;
}

type StoreFailed = HelixFlowError<'STORE_FAILED'>;

/** Called once the line would survive a power cut, with the row it lies in; or with why nobody knows whether it would. */
type Written = (row: LogRow | StoreFailed) => void;

interface Waiting extends LoggedLine {
  readonly written: Written;
}

function keyOf(run: ProcessId, number: number): Uint8Array {
  const key = new Uint8Array(keyBytes);
  key.set(lineKeys.gte);
  key.set(fromHex(run), runAt);
  new DataView(key.buffer).setBigUint64(numberAt, BigInt(number));
  return key;
}

/** Lines as a sealed row. */
function writeRow(key: Uint8Array, logged: readonly LoggedLine[]): Uint8Array {
  const writer = new LineWriter();
  const nodes: PeerId[] = [];
  const rows = logged.map(({ node, line }): Value => {
    const known = nodes.indexOf(node);
    return [known === -1 ? nodes.push(node) - 1 : known, writer.write(line)];
  });
  return sealRow(key, [writer.tables(), nodes, rows]);
}

function readRow(key: Uint8Array, row: Uint8Array): LoggedLine[] | undefined {
  if (key.length !== keyBytes) return undefined;
  return readSealedRow(key, row, (r) => {
    const reader = new LineReader(r.row());
    const nodes = r.list(room.linesMax, (value) => new Reader([value], 'node').text(64));
    return r.list(room.linesMax, (value) => {
      const pair = new Reader(value, 'line');
      const node = nodes[pair.int(room.linesMax)];
      if (!isPeerId(node)) throw new HelixFlowError('FRAME_MALFORMED', { reason: 'lines: no node' });
      return { node, line: reader.read(pair.list(32, (item) => item)) };
    });
  });
}

/** Under load a write begins no sooner than this after the one before, unless so many lines wait. */
const paceMs = 1;
const paceLines = 64;

/**
 * Lines of one turn, and those that come during a write, share the next one and its sync. While several come at a time,
 * those of a millisecond do: a write costs as much as some dozens of lines. One that comes alone never waits.
 */
export class LineLog {
  readonly #ports: { readonly clock: Clock; readonly store: Store };
  readonly #run: ProcessId;
  #queue: Waiting[] = [];
  #gone: Uint8Array[] = [];
  #number = 0;
  #failure: StoreFailed | undefined;
  #running: Promise<void> | undefined;
  /** Lines of the last write, and when it began. */
  #last = { lines: 0, atMs: 0 };

  /** @param run Names the rows of this process; never used before. */
  constructor(ports: { readonly clock: Clock; readonly store: Store }, run: ProcessId) {
    this.#ports = ports;
    this.#run = run;
  }

  /** Why nothing is written any more. */
  get failure(): StoreFailed | undefined {
    return this.#failure;
  }

  /** Lines that are not on disk yet. */
  get waiting(): number {
    return this.#queue.length;
  }

  /** Reads what earlier processes left. @throws HelixFlowError STORE_FAILED */
  async open(): Promise<LogReport> {
    const lines: (LoggedLine & { readonly row: LogRow })[] = [];
    let damaged = 0;
    for await (const [key, value] of this.#ports.store.range(lineKeys)) {
      const logged = readRow(key, value);
      if (logged === undefined) {
        damaged += 1;
        this.#gone.push(key);
        continue;
      }
      const row = { key, unstated: logged.length };
      for (const { node, line } of logged) lines.push({ node, line, row });
    }
    return { lines, damaged };
  }

  /** `written` is called in a later turn. */
  write(node: PeerId, line: UsageLine, written: Written): void {
    this.#queue.push({ node, line, written });
    this.#running ??= this.#work();
  }

  /** A statement that would survive a power cut holds one more line of the row. Call `sweep` when all are told. */
  stated(row: LogRow): void {
    row.unstated -= 1;
    if (row.unstated === 0) this.#gone.push(row.key);
  }

  /** Takes rows that are stated off the disk; without a sync, since the feed says the same. */
  sweep(): void {
    if (this.#gone.length > 0) this.#running ??= this.#work();
  }

  /** Resolves when everything that waits is written, or has failed. */
  async settled(): Promise<void> {
    await this.#running;
  }

  async #work(): Promise<void> {
    // What others hand over in this turn belongs to the same write.
    await this.#ports.clock.turn();
    while (this.#queue.length > 0 || (this.#gone.length > 0 && this.#failure === undefined)) {
      await this.#pace();
      await this.#commit();
    }
    this.#running = undefined;
  }

  /** Waits while lines come, where several came lately. */
  async #pace(): Promise<void> {
    const { clock } = this.#ports;
    const untilMs = this.#last.atMs + paceMs;
    let lines = 0;
    while (this.#last.lines > 1 && lines < this.#queue.length && this.#queue.length < paceLines) {
      if (clock.nowMs() >= untilMs) return;
      lines = this.#queue.length;
      await clock.turn();
    }
  }

  async #commit(): Promise<void> {
    const waiting = this.#queue;
    const gone = this.#gone;
    this.#queue = [];
    this.#gone = [];
    const rows = this.#cut(waiting);
    this.#last = { lines: waiting.length, atMs: this.#ports.clock.nowMs() };
    try {
      if (this.#failure !== undefined) throw this.#failure;
      const ops: StoreOp[] = gone.map((key) => ({ type: 'del', key }));
      for (const { row, logged } of rows) ops.push({ type: 'put', key: row.key, value: writeRow(row.key, logged) });
      await this.#ports.store.batch(ops, { sync: rows.length > 0 });
    } catch (cause) {
      const failure = this.#fail(cause);
      for (const { written } of waiting) written(failure);
      return;
    }
    for (const { row, logged } of rows) for (const { written } of logged) written(row);
  }

  #fail(cause: unknown): StoreFailed {
    const error = toHelixFlowError(cause, () => new HelixFlowError('STORE_FAILED', { reason: 'write' }, { cause }));
    // Nothing is known of what reached the disk, so nothing is ever written again.
    this.#failure ??= isHelixFlowError(error, 'STORE_FAILED')
      ? error
      : new HelixFlowError('STORE_FAILED', { reason: error.code }, { cause });
    return this.#failure;
  }

  #cut(waiting: readonly Waiting[]): { readonly row: LogRow; readonly logged: Waiting[] }[] {
    const rows: { row: LogRow; logged: Waiting[] }[] = [];
    let size: LineSize | undefined;
    for (const next of waiting) {
      if (size?.take(next.line, next.node) !== true) {
        size = new LineSize(room, headBytes);
        size.take(next.line, next.node);
        rows.push({ row: { key: keyOf(this.#run, this.#number), unstated: 0 }, logged: [] });
        this.#number += 1;
      }
      const last = rows.at(-1);
      last?.logged.push(next);
    }
    for (const { row, logged } of rows) row.unstated = logged.length;
    return rows;
  }
}
