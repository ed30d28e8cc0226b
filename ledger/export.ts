/** `ledger export`: every attempt once, settled, with the place of the line that counts; in two passes, so that no feed has to fit into memory. */

import type { AuthorId, MeshId } from '../protocol/ids.ts';
import type { Store } from '../protocol/ports.ts';
import type { UnixMs } from '../protocol/units.ts';
import type { BlockHeader } from './block.ts';
import { ExportIndex, requestName, type Word, whereOf } from './export-index.ts';
import {
  type Mention,
  mentionsOf,
  type Origin,
  type PlacedStatement,
  readBlocks,
  statementsOf,
} from './export-read.ts';
import type { CheckedBlock } from './feed-blocks.ts';
import type { UsageLine } from './line.ts';
import { settleAll, settleAttempt } from './settle.ts';
import type { AttemptFacts, Said, Settled } from './settlement.ts';
import type { RefusalReason } from './statement.ts';
import { rowsInOrder } from './verify-rows.ts';

/** One attempt, and where what counts of it was said. */
export interface ExportRow {
  readonly settled: Settled;
  readonly origin: Origin;
  readonly refused?: RefusalReason;
}

export interface ExportOptions {
  readonly meshId: MeshId;
  readonly holds: 'all' | 'open';
  /** Attempts that began from then on, or before; all without. */
  readonly sinceMs?: UnixMs | undefined;
  readonly untilMs?: UnixMs | undefined;
  /** Told of each block whose settled statements are gone: they are not exported. */
  readonly pruned?: ((head: BlockHeader) => void) | undefined;
}

/** Something said, with what its node has signed of it. */
interface Fact {
  readonly mention: Mention;
  readonly said: Said;
}

/** A request that is settled as a whole. */
interface Group {
  readonly facts: Fact[];
  /** Something in it was said twice: it may hang together with other requests, so it waits for all of them. */
  waits: boolean;
}

export const saidOf = ({ line, origin }: Mention, word: Word | undefined): Said => {
  const refused = origin.list === 'line' ? word?.refused.find(({ index }) => index === origin.at)?.reason : undefined;
  return { line, isCountersigned: word !== undefined, ...(refused === undefined ? {} : { refused }) };
};

const factsOf = ({ mention, said }: Fact): AttemptFacts => ({
  author: mention.origin.author,
  node: mention.node,
  said: [said],
});

function rowOf(settled: Settled, { mention, said }: Fact): ExportRow {
  return { settled, origin: mention.origin, ...(said.refused === undefined ? {} : { refused: said.refused }) };
}

/** What facts come to together, each with the place of the one that counts. */
function settleFacts(facts: readonly Fact[]): ExportRow[] {
  const byLine = new Map<UsageLine, Fact>(facts.map((fact) => [fact.mention.line, fact]));
  return settleAll(facts.map(factsOf)).flatMap((settled) => {
    const fact = byLine.get(settled.line);
    return fact === undefined ? [] : [rowOf(settled, fact)];
  });
}

const toldName = (node: string, run: string, serial: number): string => `${node} ${run}.${serial}`;

/** The second pass over one gateway's feed. */
class AuthorExport {
  readonly #index: ExportIndex;
  readonly #author: AuthorId;
  readonly #groups = new Map<string, Group>();
  /** Of requests that are settled as a whole, what was told as running. */
  readonly #told = new Map<string, UsageLine>();

  constructor(index: ExportIndex, author: AuthorId) {
    this.#index = index;
    this.#author = author;
  }

  *take(placed: PlacedStatement): Generator<ExportRow> {
    const word = this.#index.wordOn(placed);
    const where = whereOf(placed);
    const ended = new Set<string>();
    for (const mention of mentionsOf(placed, ({ run, serial }) =>
      this.#told.get(toldName(placed.statement.node, run, serial)),
    )) {
      const { line, node, origin } = mention;
      const last = this.#index.lastOf(this.#author, line);
      const fact: Fact = { mention, said: saidOf(mention, word) };
      if (last === undefined) {
        const settled = origin.list === 'line' ? settleAttempt(factsOf(fact)) : undefined;
        if (settled !== undefined) yield rowOf(settled, fact);
        continue;
      }
      if (origin.list === 'running') this.#told.set(toldName(node, line.run, line.serial), line);
      this.#keep(fact);
      if (last === where) ended.add(requestName(line));
    }
    for (const name of ended) yield* this.#end(name);
  }

  #keep(fact: Fact): void {
    const { line } = fact.mention;
    const name = requestName(line);
    const group = this.#groups.get(name) ?? { facts: [], waits: false };
    this.#groups.set(name, group);
    group.facts.push(fact);
    group.waits ||= this.#index.isAgain(this.#author, line);
  }

  #end(name: string): ExportRow[] {
    const group = this.#groups.get(name);
    if (group === undefined || group.waits) return [];
    this.#groups.delete(name);
    for (const { mention } of group.facts) {
      this.#told.delete(toldName(mention.node, mention.line.run, mention.line.serial));
    }
    return settleFacts(group.facts);
  }

  finish(): ExportRow[] {
    return settleFacts([...this.#groups.values()].flatMap(({ facts }) => facts));
  }
}

/** @throws HelixFlowError what reading the rows throws. */
export async function* exportSettled(
  rows: Pick<Store, 'range'>,
  { sinceMs, untilMs, pruned, ...options }: ExportOptions,
): AsyncGenerator<ExportRow> {
  const index = new ExportIndex(options.meshId);
  for await (const block of readBlocks(rowsInOrder(rows), options)) {
    index.take(block);
    if (options.holds === 'all' && !('entries' in block.block)) pruned?.(block.head.header);
  }
  const isAsked = ({ settled: { line } }: ExportRow): boolean =>
    line.startMs >= (sinceMs ?? 0) && line.startMs < (untilMs ?? Number.POSITIVE_INFINITY);
  for await (const row of settledRows(rows, index, options)) if (isAsked(row)) yield row;
}

async function* settledRows(
  rows: Pick<Store, 'range'>,
  index: ExportIndex,
  options: Pick<ExportOptions, 'meshId' | 'holds'>,
): AsyncGenerator<ExportRow> {
  let author: AuthorId | undefined;
  let exporting: AuthorExport | undefined;
  for await (const block of readBlocks(rowsInOrder(rows), options)) {
    if (!index.covers(block)) continue;
    const { header } = block.head;
    if (header.author !== author || exporting === undefined) {
      yield* exporting?.finish() ?? [];
      author = header.author;
      exporting = new AuthorExport(index, author);
    }
    yield* rowsOf(exporting, block);
  }
  yield* exporting?.finish() ?? [];
  for (const mention of index.unfinished()) {
    const fact: Fact = { mention, said: saidOf(mention, undefined) };
    const settled = settleAttempt(factsOf(fact));
    if (settled !== undefined) yield rowOf(settled, fact);
  }
}

function* rowsOf(exporting: AuthorExport, block: CheckedBlock): Generator<ExportRow> {
  for (const placed of statementsOf(block)) yield* exporting.take(placed);
}
