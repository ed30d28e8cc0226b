/** Attempts that are kept elsewhere, brought up to date with what is newly said: what was known, what came, and what it comes to now. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, PeerId } from '../protocol/ids.ts';
import type { ExportRow } from './export.ts';
import type { Cell } from './export-columns.ts';
import type { Word } from './export-index.ts';
import type { AttemptName, Mention, Origin } from './export-read.ts';
import { type LineOutcome, lineOutcomes, type UsageLine } from './line.ts';
import { settleAll } from './settle.ts';
import type { AttemptFacts, Said } from './settlement.ts';

/** An attempt at one node, as far as it was told of. */
export interface StoredAttempt {
  readonly author: AuthorId;
  readonly node: PeerId;
  /** Its lines; where there are none, what it was told to be as running. Never empty. */
  readonly mentions: readonly Mention[];
  /** How far it was told to be while it ran, at most; undefined for one that was never told as running. */
  readonly runningTokens: number | undefined;
}

/** What is to be kept. */
export interface MergedAttempt extends ExportRow {
  /** What else was said of it, beside what counts. */
  readonly others: readonly Mention[];
  readonly runningTokens: number | undefined;
}

/** A running attempt has come further. */
export interface Further extends AttemptName {
  readonly author: AuthorId;
  readonly node: PeerId;
  readonly tokens: number;
}

interface Attempt {
  readonly author: AuthorId;
  readonly node: PeerId;
  mentions: Mention[];
  runningTokens: number | undefined;
}

const placeOf = ({ origin: { epoch, block, entry, list, at } }: Mention): string =>
  `${epoch}/${block}/${entry}/${list}/${at}`;
/** All but how far it has come, and where that was said. */
const runningText = ({ line }: Mention): string => JSON.stringify({ ...line, completionTokens: 0 });
const isRunning = ({ line }: Mention): boolean => line.outcome === 'running';

/** Attempts of any gateways. Takes them as they were kept, then what is new, then settles all that it has. */
export class AttemptMerge {
  readonly #attempts = new Map<string, Attempt>();

  #of(author: AuthorId, node: PeerId, { run, serial }: AttemptName): Attempt {
    const name = `${author} ${run}.${serial} ${node}`;
    const known = this.#attempts.get(name) ?? { author, node, mentions: [], runningTokens: undefined };
    this.#attempts.set(name, known);
    return known;
  }

  keep({ author, node, mentions, runningTokens }: StoredAttempt): void {
    const [first] = mentions;
    if (first === undefined) return;
    const attempt = this.#of(author, node, first.line);
    attempt.mentions = [...mentions];
    attempt.runningTokens = runningTokens;
  }

  /** A line, or a running attempt that is told in full. Twice the same changes nothing. */
  add(mention: Mention): void {
    const attempt = this.#of(mention.origin.author, mention.node, mention.line);
    if (isRunning(mention)) {
      attempt.runningTokens = Math.max(attempt.runningTokens ?? 0, mention.line.completionTokens);
      if (!attempt.mentions.every(isRunning)) return;
      const text = runningText(mention);
      if (attempt.mentions.every((known) => runningText(known) !== text)) attempt.mentions.push(mention);
      return;
    }
    // From now on only how far it had come counts of what was told while it ran.
    attempt.mentions = attempt.mentions.filter((known) => !isRunning(known));
    if (attempt.mentions.every((known) => placeOf(known) !== placeOf(mention))) attempt.mentions.push(mention);
  }

  /** Counts for an attempt that was told as running, here or before; whether a node signed it is not kept. */
  further({ author, node, tokens, ...name }: Further): void {
    const attempt = this.#attempts.get(`${author} ${name.run}.${name.serial} ${node}`);
    if (attempt?.runningTokens !== undefined) attempt.runningTokens = Math.max(attempt.runningTokens, tokens);
  }

  /** Of the statements that it has to do with. */
  hashes(): readonly string[] {
    const mentions = [...this.#attempts.values()].flatMap((attempt) => attempt.mentions);
    return [...new Set(mentions.map(({ origin }) => origin.hash))];
  }

  /** @param wordOn What a node has signed of the statement with this hash. */
  settle(wordOn: (origin: Origin) => Word | undefined): MergedAttempt[] {
    const mentions = new Map<UsageLine, { readonly mention: Mention; readonly said: Said; readonly of: Attempt }>();
    const facts: AttemptFacts[] = [];
    for (const attempt of this.#attempts.values()) {
      const { author, node, runningTokens } = attempt;
      for (const mention of attempt.mentions) {
        const word = wordOn(mention.origin);
        const said = saidOf(mention, word?.node === node ? word : undefined, runningTokens);
        mentions.set(said.line, { mention, said, of: attempt });
        facts.push({ author, node, said: [said] });
        if (runningTokens === undefined || isRunning(mention)) continue;
        const line: UsageLine = { ...mention.line, outcome: 'running', completionTokens: runningTokens };
        facts.push({ author, node, said: [{ line, isCountersigned: false }] });
      }
    }
    return settleAll(facts).flatMap((settled) => {
      const found = mentions.get(settled.line);
      if (found === undefined) return [];
      const { mention, said, of } = found;
      const { refused } = said;
      const others = of.mentions.filter((other) => other !== mention);
      const { origin } = mention;
      return [
        { settled, origin, ...(refused === undefined ? {} : { refused }), others, runningTokens: of.runningTokens },
      ];
    });
  }
}

function saidOf({ line, origin }: Mention, word: Word | undefined, runningTokens: number | undefined): Said {
  const refused = origin.list === 'line' ? word?.refused.find(({ index }) => index === origin.at)?.reason : undefined;
  const told =
    line.outcome === 'running' ? { ...line, completionTokens: runningTokens ?? line.completionTokens } : line;
  return { line: told, isCountersigned: word !== undefined, ...(refused === undefined ? {} : { refused }) };
}

/** A row as it was kept, by the names of the columns. */
export type StoredRow = Readonly<Record<string, Cell | undefined>>;

const damaged = (column: string): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: `export: column ${column} holds something else` });

/** Reads the cells of a row; whoever may write the database may have written anything. */
class Cells {
  readonly #row: StoredRow;

  constructor(row: StoredRow) {
    this.#row = row;
  }

  text<T extends string>(name: string): T {
    const cell = this.#row[name];
    if (typeof cell !== 'string') throw damaged(name);
    return cell as T;
  }

  count(name: string): number {
    const count = Number(this.#row[name] ?? Number.NaN);
    if (!Number.isSafeInteger(count) || count < 0) throw damaged(name);
    return count;
  }

  optional<T>(name: string, read: (name: string) => T): T | undefined {
    const cell = this.#row[name];
    return cell === null || cell === undefined ? undefined : read.call(this, name);
  }
}

function lineOf(cells: Cells): UsageLine {
  const lease = cells.optional<UsageLine['caller']['account']>('lease_tag', (name) => cells.text(name));
  const nodeTokens = cells.optional('node_tokens', (name) => cells.count(name));
  const outcome = cells.text<LineOutcome>('outcome');
  if (!lineOutcomes.includes(outcome)) throw damaged('outcome');
  return {
    run: cells.text('run'),
    serial: cells.count('serial'),
    first: cells.count('first'),
    request: cells.text('request'),
    model: cells.text('model'),
    digest: cells.text('digest'),
    caller: { day: cells.count('tag_day'), account: cells.text('account_tag'), key: cells.text('key_tag') },
    price: {
      id: cells.text('price'),
      prompt: cells.count('price_prompt_micro'),
      cached: cells.count('price_cached_micro'),
      completion: cells.count('price_completion_micro'),
    },
    ...(lease === undefined ? {} : { lease }),
    payer: cells.text('line_payer') === 'gateway' ? 'gateway' : 'account',
    startMs: cells.count('start') as UsageLine['startMs'],
    firstMs: cells.count('first_ms') as UsageLine['firstMs'],
    durationMs: cells.count('duration_ms') as UsageLine['durationMs'],
    promptTokens: cells.count('line_prompt_tokens'),
    cachedTokens: cells.count('line_cached_tokens'),
    completionTokens: cells.count('line_completion_tokens'),
    ...(nodeTokens === undefined ? {} : { nodeTokens }),
    outcome,
  };
}

function originOf(cells: Cells): Origin {
  const list = cells.text<Origin['list']>('list');
  return {
    author: cells.text('author'),
    epoch: cells.text('epoch'),
    block: cells.count('block'),
    entry: cells.count('entry'),
    list: list === 'running' || list === 'progress' ? list : 'line',
    at: cells.count('position'),
    statement: cells.count('statement'),
    hash: cells.text('statement_hash'),
  };
}

/** What a row of `columns` was made of: moments as milliseconds. @throws HelixFlowError FRAME_MALFORMED */
export function mentionOf(row: StoredRow): Mention {
  const cells = new Cells(row);
  return { node: cells.text('node'), line: lineOf(cells), origin: originOf(cells) };
}
