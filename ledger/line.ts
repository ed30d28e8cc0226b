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
/** Distinct runs, models, prices and callers that one statement may name. */
export const tableMax = 256;
const durationMaxMs = 30 * 86_400_000;

/** What lines share, written once for many of them. */
export interface LineTables {
  readonly runs: Value[];
  readonly models: Value[];
  readonly prices: Value[];
  readonly callers: Value[];
}

/** Writes lines as rows that refer to tables; the tables grow as they are used. */
export class LineWriter implements LineTables {
  readonly runs: Value[] = [];
  readonly models: Value[] = [];
  readonly prices: Value[] = [];
  readonly callers: Value[] = [];
  readonly #known = new Map<string, number>();
  readonly #baseMs: number;

  /** @param baseMs Times are written relative to it; not after any line's start. */
  constructor(baseMs: UnixMs) {
    this.#baseMs = baseMs;
  }

  #indexOf(table: Value[], name: string, write: () => Value): number {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const index = table.push(write()) - 1;
    this.#known.set(name, index);
    return index;
  }

  /** The row of a line. */
  write(line: UsageLine): Value {
    const { model, digest, caller, price, lease } = line;
    const { day, account, key } = caller;
    return [
      this.#indexOf(this.runs, `r${line.run}`, () => fromHex(line.run)),
      line.serial,
      line.serial - line.first,
      fromHex(line.request),
      this.#indexOf(this.models, `m${digest}${model}`, () => [fromHex(digest), model]),
      this.#indexOf(this.callers, `c${day} ${account}${key}`, () => [day, fromHex(account), fromHex(key)]),
      this.#indexOf(this.prices, `p${price.id} ${price.prompt} ${price.cached} ${price.completion}`, () => [
        fromHex(price.id),
        price.prompt,
        price.cached,
        price.completion,
      ]),
      lease === undefined ? null : fromHex(lease),
      line.payer === 'gateway',
      line.startMs - this.#baseMs,
      Math.round(line.firstMs),
      Math.round(line.durationMs),
      line.promptTokens,
      line.cachedTokens,
      line.completionTokens,
      line.nodeTokens ?? null,
      lineOutcomes.indexOf(line.outcome),
    ];
  }

  /** The tables, for `LineReader`. */
  tables(): Value {
    return [this.runs, this.models, this.prices, this.callers];
  }
}

const malformed = (reason: string): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: `line: ${reason}` });

const asBytes = (value: Value | undefined, length: number): Uint8Array => {
  if (value instanceof Uint8Array && value.length === length) return value;
  throw malformed(`no ${length} bytes`);
};

const readTag = (r: Reader): Tag => toHex(r.bytes(8, 8)) as Tag;

function readPrice(value: Value): Price {
  const r = new Reader(value, 'price');
  const id = r.bytes(8);
  if (id.length !== 0 && id.length !== 8) throw malformed('no price');
  return {
    id: toHex(id) as PriceId,
    prompt: r.int(maxPriceMicro),
    cached: r.int(maxPriceMicro),
    completion: r.int(maxPriceMicro),
  };
}

/** Reads rows that refer to tables. */
export class LineReader {
  readonly #runs: readonly ProcessId[];
  readonly #models: readonly { readonly digest: ModelDigest; readonly model: string }[];
  readonly #prices: readonly Price[];
  readonly #callers: readonly Caller[];
  readonly #baseMs: number;

  /** @throws HelixFlowError FRAME_MALFORMED */
  constructor(tables: Reader, baseMs: UnixMs) {
    this.#baseMs = baseMs;
    this.#runs = tables.list(tableMax, (value) => toHex(asBytes(value, 16)) as ProcessId);
    this.#models = tables.list(tableMax, (value) => {
      const r = new Reader(value, 'model');
      return { digest: toHex(r.bytes(32, 32)) as ModelDigest, model: r.text(limits.modelNameMaxChars) };
    });
    this.#prices = tables.list(tableMax, readPrice);
    this.#callers = tables.list(tableMax, (value) => {
      const r = new Reader(value, 'caller');
      return { day: r.int(1_000_000), account: readTag(r), key: readTag(r) };
    });
  }

  #at<T>(table: readonly T[], r: Reader, what: string): T {
    const found = table[r.int(tableMax)];
    if (found === undefined) throw malformed(`no such ${what}`);
    return found;
  }

  /** @throws HelixFlowError FRAME_MALFORMED */
  read(value: Value): UsageLine {
    const r = new Reader(value, 'line');
    const run = this.#at(this.#runs, r, 'run');
    const serial = r.int(Number.MAX_SAFE_INTEGER, 1);
    const first = serial - r.int(serial - 1);
    const request = toHex(r.bytes(16, 16)) as RequestId;
    const { model, digest } = this.#at(this.#models, r, 'model');
    const caller = this.#at(this.#callers, r, 'caller');
    const price = this.#at(this.#prices, r, 'price');
    const lease = r.optional(readTag);
    const payer: Payer = r.bool() ? 'gateway' : 'account';
    const startMs = unixMs(this.#baseMs + r.int());
    const firstMs = ms(r.int(durationMaxMs));
    const durationMs = ms(r.int(durationMaxMs));
    const promptTokens = r.int(lineTokensMax);
    const cachedTokens = r.int(promptTokens);
    const completionTokens = r.int(lineTokensMax);
    const nodeTokens = r.optional((row) => row.int(lineTokensMax));
    const outcome = lineOutcomes[r.int(lineOutcomes.length - 1)] as LineOutcome;
    return {
      run,
      serial,
      first,
      request,
      model,
      digest,
      caller,
      price,
      ...(lease === undefined ? {} : { lease }),
      payer,
      startMs,
      firstMs,
      durationMs,
      promptTokens,
      cachedTokens,
      completionTokens,
      ...(nodeTokens === undefined ? {} : { nodeTokens }),
      outcome,
    };
  }
}
