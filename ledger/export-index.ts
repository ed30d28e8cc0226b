/** What has to be known of all feeds before any attempt can be settled alone: who signed what, and which requests had several attempts. */

import { toHex } from '../protocol/crypto.ts';
import type { AuthorId, MeshId, PeerId } from '../protocol/ids.ts';
import { peerOf } from './authors.ts';
import {
  type AttemptName,
  type Mention,
  mentionsOf,
  type Origin,
  type PlacedStatement,
  statementsOf,
} from './export-read.ts';
import type { CheckedBlock } from './feed-blocks.ts';
import type { UsageLine } from './line.ts';
import { type CountersignEntry, isCountersigned, type RefusedLine } from './statement.ts';
import { SerialSet } from './verify-serials.ts';

/** What a node has signed of a statement. */
export interface Word {
  readonly node: PeerId;
  readonly refused: readonly RefusedLine[];
}

/** An attempt without a line so far. */
interface Running {
  readonly mention: Mention;
  readonly tokens: number;
}

/** A gateway, as far as it has to be remembered. */
interface AuthorIndex {
  /** Attempts of each process that have a line. */
  readonly lined: Map<string, SerialSet>;
  /** Told as running, no line yet: one for each attempt, unless it was told for several nodes. */
  readonly running: Map<string, Running[]>;
  /** Attempts that were told of in ways that an honest gateway does not. */
  readonly again: Set<string>;
  /** Requests that cannot be settled line by line, and where they are mentioned last. */
  readonly together: Map<string, string>;
}

export const requestName = ({ run, first }: Pick<UsageLine, 'run' | 'first'>): string => `${run}.${first}`;
const attemptName = ({ run, serial }: AttemptName): string => `${run}.${serial}`;
/** All but how far it has come. */
const textOf = ({ line }: Mention): string => JSON.stringify({ ...line, completionTokens: 0 });
const isOther = (a: Mention, b: Mention): boolean => a.node !== b.node || a.line.first !== b.line.first;
export const whereOf = ({ epoch, block, entry }: Pick<Origin, 'epoch' | 'block' | 'entry'>): string =>
  `${epoch}/${block}/${entry}`;

const wordName = (author: AuthorId, hash: string): string => author.slice(0, 32) + hash.slice(0, 32);

/** Filled in one pass over all blocks; asked in a second one over the same. Holds little for each statement, and nothing for most lines. */
export class ExportIndex {
  readonly #meshId: MeshId;
  readonly #words = new Map<string, Word>();
  readonly #authors = new Map<AuthorId, AuthorIndex>();
  readonly #tails = new Map<string, number>();

  constructor(meshId: MeshId) {
    this.#meshId = meshId;
  }

  take(block: CheckedBlock): void {
    const { author, epoch, number } = block.head.header;
    this.#tails.set(`${author}/${epoch}`, number);
    for (const { entry } of block.entries) if (entry.kind === 'countersign') this.#sign(author, entry);
    for (const placed of statementsOf(block)) this.#state(placed);
  }

  /** True for a block that was there in the first pass. */
  covers({ head: { header } }: CheckedBlock): boolean {
    return header.number <= (this.#tails.get(`${header.author}/${header.epoch}`) ?? -1);
  }

  wordOn({ author, hash, statement }: PlacedStatement): Word | undefined {
    const word = this.#words.get(wordName(author, hash));
    return word?.node === statement.node ? word : undefined;
  }

  /** Where a request is mentioned last that has to be settled as a whole; undefined for one that has not. */
  lastOf(author: AuthorId, line: Pick<UsageLine, 'run' | 'first'>): string | undefined {
    return this.#authors.get(author)?.together.get(requestName(line));
  }

  isAgain(author: AuthorId, line: UsageLine): boolean {
    return this.#authors.get(author)?.again.has(attemptName(line)) === true;
  }

  /** Attempts that never got a line, and are no part of a request that is settled as a whole; with their highest counts. */
  *unfinished(): Generator<Mention> {
    for (const { running, together } of this.#authors.values()) {
      for (const { mention, tokens } of [...running.values()].flat()) {
        const line = { ...mention.line, completionTokens: tokens };
        if (!together.has(requestName(line))) yield { ...mention, line };
      }
    }
  }

  #sign(author: AuthorId, entry: CountersignEntry): void {
    if (!isCountersigned(entry, { meshId: this.#meshId, gateway: peerOf(author) })) return;
    this.#words.set(wordName(author, toHex(entry.statement)), { node: entry.node, refused: entry.refused });
  }

  #of(author: AuthorId): AuthorIndex {
    const known = this.#authors.get(author);
    if (known !== undefined) return known;
    const made = { lined: new Map(), running: new Map(), again: new Set<string>(), together: new Map() };
    this.#authors.set(author, made);
    return made;
  }

  #state(placed: PlacedStatement): void {
    const index = this.#of(placed.author);
    const { node } = placed.statement;
    const told = ({ run, serial }: AttemptName): UsageLine | undefined =>
      index.running.get(attemptName({ run, serial }))?.find(({ mention }) => mention.node === node)?.mention.line;
    for (const mention of mentionsOf(placed, told)) {
      if (mention.origin.list === 'line') this.#line(index, mention);
      else this.#running(index, mention);
    }
    this.#lateProgress(index, placed);
  }

  /** Told to have come further than it had when its line was told. */
  #lateProgress(index: AuthorIndex, placed: PlacedStatement): void {
    const { run, progress } = placed.statement;
    for (const { serial } of progress) {
      if (index.running.has(attemptName({ run, serial })) || index.lined.get(run)?.has(serial) !== true) continue;
      index.again.add(attemptName({ run, serial }));
      index.together.set(requestName({ run, first: serial }), whereOf(placed));
    }
  }

  #line(index: AuthorIndex, mention: Mention): void {
    const { line } = mention;
    const lined = index.lined.get(line.run) ?? new SerialSet();
    index.lined.set(line.run, lined);
    const name = attemptName(line);
    const running = index.running.get(name) ?? [];
    const isAgain = !lined.add(line.serial) || running.some((one) => isOther(one.mention, mention));
    // Only a count above the line's own changes what it comes to.
    const isMore = running.some(({ tokens }) => tokens > line.completionTokens);
    if (isAgain) this.#again(index, mention, running);
    else if (isMore || line.first !== line.serial) this.#together(index, line, mention.origin);
    else this.#seeAgain(index, line, mention.origin);
    if (!isAgain) index.running.delete(name);
  }

  #running(index: AuthorIndex, mention: Mention): void {
    const { line, origin } = mention;
    const name = attemptName(line);
    const running = index.running.get(name) ?? [];
    const isLate = index.lined.get(line.run)?.has(line.serial) === true;
    const differs = (one: Running): boolean =>
      isOther(one.mention, mention) || (origin.list === 'running' && textOf(one.mention) !== textOf(mention));
    if (isLate || running.some(differs)) this.#again(index, mention, running);
    else if (line.first !== line.serial) this.#together(index, line, origin);
    else this.#seeAgain(index, line, origin);
    const known = running.find((one) => one.mention.node === mention.node);
    const tokens = Math.max(known?.tokens ?? 0, line.completionTokens);
    const others = running.filter((one) => one !== known);
    if (!isLate || known !== undefined)
      index.running.set(name, [...others, { mention: known?.mention ?? mention, tokens }]);
  }

  /** Everything that the attempt may belong to is settled at the end, together. */
  #again(index: AuthorIndex, { line, origin }: Mention, running: readonly Running[]): void {
    index.again.add(attemptName(line));
    const firsts = new Set([line.serial, line.first, ...running.map(({ mention }) => mention.line.first)]);
    for (const first of firsts) this.#together(index, { run: line.run, first }, origin);
  }

  #together({ together }: AuthorIndex, line: Pick<UsageLine, 'run' | 'first'>, origin: Origin): void {
    together.set(requestName(line), whereOf(origin));
  }

  #seeAgain(index: AuthorIndex, line: UsageLine, origin: Origin): void {
    if (index.together.has(requestName(line))) this.#together(index, line, origin);
  }
}
