/** Lines: what became of one attempt, as the gateway that made it writes it down (design §6). */

import type { Value } from '../protocol/codec.ts';
import { fromHex, toHex } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { ModelDigest, PriceId, ProcessId, RequestId, Tag } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { Reader } from '../protocol/reader.ts';
import { type Ms, ms, type UnixMs, unixMs } from '../protocol/units.ts';
import { maxPriceMicro, type Price } from './price.ts';

/**
 * How an attempt ended: `done` whole; `cancelled` by its client, or because the key was taken back; `cut` by the
 * gateway (a deadline, a budget that ran out); `lost` with its node or its session; `failed` at the node, or refused
 * there after admission; `hedged` when another attempt was faster. `running` stands only among a statement's running.
 */
export const lineOutcomes = ['done', 'cancelled', 'cut', 'lost', 'failed', 'hedged', 'running'] as const;
export type LineOutcome = (typeof lineOutcomes)[number];

/** Who pays: the account, or the gateway itself (hedges that lost, work outside a lease). */
export type Payer = 'account' | 'gateway';

/** Whose request it was, as tags whose key belongs to a day; only gateways can tell what they stand for. */
export interface Caller {
  /** Days since 1970 of the key of both tags; 0 for a key that this gateway drew by itself. */
  readonly day: number;
  readonly account: Tag;
  readonly key: Tag;
}

/** One attempt at a node. `run` and `serial` name it among all attempts of a gateway, and are never used twice. */
export interface UsageLine {
  /** The process that made the attempt. */
  readonly run: ProcessId;
  /** Counts the attempts of that process, from 1. */
  readonly serial: number;
  /** Serial of the request's first attempt; its own where it was the first. */
  readonly first: number;
  readonly request: RequestId;
  readonly model: string;
  readonly digest: ModelDigest;
  readonly caller: Caller;
  readonly price: Price;
  /** Stands for the money lease it is paid from; undefined where the account has no budget. */
  readonly lease?: Tag;
  readonly payer: Payer;
  readonly startMs: UnixMs;
  /** From the start to the first content; 0 when none came. */
  readonly firstMs: Ms;
  readonly durationMs: Ms;
  /** The node's count, at most the bound from the prompt's bytes. */
  readonly promptTokens: number;
  /** Of these, not computed again. */
  readonly cachedTokens: number;
  /** What the gateway received and counted. */
  readonly completionTokens: number;
  /** The node's own count, where it told one. */
  readonly nodeTokens?: number;
  readonly outcome: LineOutcome;
}

/** Names an attempt within its gateway. */
export const attemptName = ({ run, serial }: Pick<UsageLine, 'run' | 'serial'>): string => `${run}.${serial}`;

/** More tokens than any context holds. */
export const lineTokensMax = 100_000_000;
/** Distinct runs, models and prices that one statement may name, and attempts that it tells of as running. */
export const tableMax = 512;
/** One for each row, at most. */
const callersMax = 1_024;
/** The last moment that a calendar can show. */
export const momentMaxMs = 8_640_000_000_000_000;
export const durationMaxMs = 30 * 86_400_000;
const dayMax = 100_000_000;
const tagBytes = 8;
/** Attempts of one process between the first of a request and its last. */
const backMax = 2 ** 40;
const payers: readonly Payer[] = ['account', 'gateway'];
/** One number for outcome, payer and how far back the request began: nearly always a single byte. */
const payerStep = 8;
const backStep = 16;

const malformed = (reason: string): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: `line: ${reason}` });

/** `value`, where a reader takes it, too. @throws HelixFlowError FRAME_MALFORMED */
export function inBounds(value: number, max: number, min = 0): number {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw malformed(`${value} is no integer from ${min} to ${max}`);
}

/** The bytes behind lower-case hex, where they are so many. @throws HelixFlowError FRAME_MALFORMED */
export function bytesOf(hex: string, length: number): Uint8Array {
  const bytes = fromHex(hex);
  if (bytes.length === length && hex.length === 2 * length) return bytes;
  throw malformed(`no ${length} bytes in hex`);
}

function writePrice({ id, prompt, cached, completion }: Price): Value {
  if (id === '' && prompt + cached + completion > 0) throw malformed('a price of no entry');
  const numbers = [prompt, cached, completion].map((micro) => inBounds(micro, maxPriceMicro));
  return [id === '' ? new Uint8Array(0) : bytesOf(id, 8), ...numbers];
}

function writeModel(digest: ModelDigest, model: string): Value {
  if (model.length > limits.modelNameMaxChars) throw malformed('the name of a model is too long');
  return [bytesOf(digest, 32), model];
}

/** The attempts of one process that were told, each once. */
class Serials {
  /** The one told last; 0 before. */
  before = 0;
  readonly #told = new Set<number>();

  take(serial: number): void {
    if (this.#told.has(serial)) throw malformed('an attempt twice');
    this.#told.add(serial);
    this.before = serial;
  }
}

/** Places in the tables of a writer. */
interface Refers {
  readonly run: number;
  readonly model: number;
  readonly caller: number;
  readonly price: number;
}

/** Writes lines as rows that refer to tables and to the row before. */
export class LineWriter {
  readonly #runs: Value[] = [];
  readonly #models: Value[] = [];
  readonly #prices: Value[] = [];
  /** Callers with their leases, in groups of one day each. */
  readonly #callers: Value[][] = [];
  #callerCount = 0;
  readonly #known = new Map<string, number>();
  readonly #serials: Serials[] = [];
  #startMs = 0;
  /** The line before, and what it refers to: the next one nearly always refers to the same. */
  #before: UsageLine | undefined;
  #refers: Refers = { run: 0, model: 0, caller: 0, price: 0 };

  #indexOf(table: Value[], name: string, write: () => Value): number {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const index = table.push(write()) - 1;
    this.#known.set(name, index);
    return index;
  }

  #callerOf({ caller, lease }: UsageLine): number {
    const { day, account, key } = caller;
    const name = `c${day} ${account}${key}${lease ?? ''}`;
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const tags = lease === undefined ? [account, key] : [account, key, lease];
    const bytes = new Uint8Array(tags.length * tagBytes);
    for (const [at, tag] of tags.entries()) bytes.set(bytesOf(tag, tagBytes), at * tagBytes);
    const group = this.#callers.at(-1);
    if (group?.[0] === day) group.push(bytes);
    else this.#callers.push([inBounds(day, dayMax), bytes]);
    this.#known.set(name, this.#callerCount);
    this.#callerCount += 1;
    return this.#callerCount - 1;
  }

  #runOf({ run }: UsageLine): number {
    return this.#indexOf(this.#runs, `r${run}`, () => {
      this.#serials.push(new Serials());
      return bytesOf(run, 16);
    });
  }

  #priceOf({ price }: UsageLine): number {
    const { id, prompt, cached, completion } = price;
    return this.#indexOf(this.#prices, `p${id} ${prompt} ${cached} ${completion}`, () => writePrice(price));
  }

  #referTo(line: UsageLine): Refers {
    const { run, digest, model, caller, lease, price } = line;
    const before = this.#before;
    const isSameModel = before?.model === model && before.digest === digest;
    const isSameCaller = before?.caller === caller && before.lease === lease;
    const refers = {
      run: before?.run === run ? this.#refers.run : this.#runOf(line),
      model: isSameModel
        ? this.#refers.model
        : this.#indexOf(this.#models, `m${digest}${model}`, () => writeModel(digest, model)),
      caller: isSameCaller ? this.#refers.caller : this.#callerOf(line),
      price: before?.price === price ? this.#refers.price : this.#priceOf(line),
    };
    this.#before = line;
    this.#refers = refers;
    return refers;
  }

  /** The row of a line. @throws HelixFlowError FRAME_MALFORMED where a reader would. */
  write(line: UsageLine): Value {
    const { serial, completionTokens, nodeTokens } = line;
    const { run, model, caller, price } = this.#referTo(line);
    const serialBefore = this.#serials[run]?.before ?? 0;
    this.#serials[run]?.take(inBounds(serial, Number.MAX_SAFE_INTEGER, 1));
    const startBefore = this.#startMs;
    this.#startMs = inBounds(line.startMs, momentMaxMs);
    const promptTokens = inBounds(line.promptTokens, lineTokensMax);
    const back = serial - inBounds(line.first, serial, Math.max(1, serial - backMax));
    return [
      run,
      serial - serialBefore,
      bytesOf(line.request, 16),
      model,
      caller,
      price,
      line.startMs - startBefore,
      inBounds(Math.round(line.firstMs), durationMaxMs),
      inBounds(Math.round(line.durationMs), durationMaxMs),
      promptTokens,
      inBounds(line.cachedTokens, promptTokens),
      inBounds(completionTokens, lineTokensMax),
      nodeTokens === undefined ? null : inBounds(nodeTokens, lineTokensMax) - completionTokens,
      lineOutcomes.indexOf(line.outcome) + payers.indexOf(line.payer) * payerStep + back * backStep,
    ];
  }

  /** Notes attempts that have no row. @throws HelixFlowError FRAME_MALFORMED where one has. */
  take(run: ProcessId, attempts: readonly { readonly serial: number }[]): void {
    const serials = this.#serials[this.#known.get(`r${run}`) ?? -1];
    for (const { serial } of attempts) serials?.take(serial);
  }

  /** The tables, for `LineReader`. Grows with each row. */
  tables(): Value {
    return [this.#runs, this.#models, this.#prices, this.#callers];
  }
}

const readTag = (bytes: Uint8Array, at: number): Tag => toHex(bytes, at * tagBytes, (at + 1) * tagBytes) as Tag;

function readPrice(value: Value): Price {
  const r = new Reader(value, 'price');
  const id = r.bytes(8);
  if (id.length !== 0 && id.length !== 8) throw malformed('no price');
  const price: Price = {
    id: toHex(id) as PriceId | '',
    prompt: r.int(maxPriceMicro),
    cached: r.int(maxPriceMicro),
    completion: r.int(maxPriceMicro),
  };
  if (price.id === '' && price.prompt + price.cached + price.completion > 0) throw malformed('a price of no entry');
  return price;
}

interface Payee {
  readonly caller: Caller;
  readonly lease?: Tag;
}

function readCallers(value: Value): Payee[] {
  const r = new Reader(value, 'callers');
  const day = r.int(dayMax);
  const found: Payee[] = [];
  while (r.hasMore) {
    const bytes = r.bytes(3 * tagBytes);
    const tags = bytes.length / tagBytes;
    if (tags !== 2 && tags !== 3) throw malformed('no caller');
    const caller = { day, account: readTag(bytes, 0), key: readTag(bytes, 1) };
    found.push(tags === 2 ? { caller } : { caller, lease: readTag(bytes, 2) });
  }
  return found;
}

interface Run {
  readonly run: ProcessId;
  readonly serials: Serials;
}

/** Reads rows that refer to tables and to the row before; each attempt at most once. */
export class LineReader {
  readonly #runs: readonly Run[];
  readonly #models: readonly { readonly digest: ModelDigest; readonly model: string }[];
  readonly #prices: readonly Price[];
  readonly #callers: readonly Payee[];
  #startMs = 0;

  /** @throws HelixFlowError FRAME_MALFORMED */
  constructor(tables: Reader) {
    this.#runs = tables.list(tableMax, (value) => {
      const run = toHex(new Reader([value], 'run').bytes(16, 16)) as ProcessId;
      return { run, serials: new Serials() };
    });
    if (new Set(this.#runs.map(({ run }) => run)).size < this.#runs.length) throw malformed('a process twice');
    this.#models = tables.list(tableMax, (value) => {
      const r = new Reader(value, 'model');
      return { digest: toHex(r.bytes(32, 32)) as ModelDigest, model: r.text(limits.modelNameMaxChars) };
    });
    this.#prices = tables.list(tableMax, readPrice);
    this.#callers = tables.list(callersMax, readCallers).flat();
  }

  #at<T>(table: readonly T[], r: Reader, what: string): T {
    const found = table[r.int(callersMax)];
    if (found === undefined) throw malformed(`no such ${what}`);
    return found;
  }

  /** Notes attempts that have no row. @throws HelixFlowError FRAME_MALFORMED where one has. */
  take(run: ProcessId, attempts: readonly { readonly serial: number }[]): void {
    const serials = this.#runs.find((other) => other.run === run)?.serials;
    for (const { serial } of attempts) serials?.take(serial);
  }

  /** @throws HelixFlowError FRAME_MALFORMED */
  read(value: Value): UsageLine {
    const r = new Reader(value, 'line');
    const { run, serials } = this.#at(this.#runs, r, 'run');
    const more = r.int(Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER);
    const serial = inBounds(serials.before + more, Number.MAX_SAFE_INTEGER, 1);
    serials.take(serial);
    const request = toHex(r.bytes(16, 16)) as RequestId;
    const { model, digest } = this.#at(this.#models, r, 'model');
    const { caller, lease } = this.#at(this.#callers, r, 'caller');
    const price = this.#at(this.#prices, r, 'price');
    const startMs = unixMs(inBounds(this.#startMs + r.int(momentMaxMs, -momentMaxMs), momentMaxMs));
    this.#startMs = startMs;
    const firstMs = ms(r.int(durationMaxMs));
    const durationMs = ms(r.int(durationMaxMs));
    const promptTokens = r.int(lineTokensMax);
    const cachedTokens = r.int(promptTokens);
    const completionTokens = r.int(lineTokensMax);
    const difference = r.optional((row) => row.int(lineTokensMax - completionTokens, -completionTokens));
    const marks = r.int(backMax * backStep + backStep - 1);
    const outcome = lineOutcomes[marks % payerStep];
    if (outcome === undefined) throw malformed('no such outcome');
    return {
      run,
      serial,
      first: inBounds(serial - Math.floor(marks / backStep), serial, 1),
      request,
      model,
      digest,
      caller,
      price,
      ...(lease === undefined ? {} : { lease }),
      payer: payers[Math.floor((marks % backStep) / payerStep)] as Payer,
      startMs,
      firstMs,
      durationMs,
      promptTokens,
      cachedTokens,
      completionTokens,
      ...(difference === undefined ? {} : { nodeTokens: completionTokens + difference }),
      outcome,
    };
  }
}
