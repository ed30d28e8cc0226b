/** Statements as an auditor reads them: the chain of each tab, each attempt once, and what nodes and gateways have signed of them. */

import { isSameBytes, sha256 } from '../protocol/crypto.ts';
import type { AuthorId, EpochId, MeshId, PeerId } from '../protocol/ids.ts';
import { peerOf } from './authors.ts';
import {
  addTotals,
  type ClaimEntry,
  type CountersignEntry,
  isClaimed,
  isCountersigned,
  noTotals,
  type RefusedLine,
  type StatementEntry,
  statementHash,
  type TabTotals,
} from './statement.ts';
import { hashName, type MoneyAudit } from './verify-money.ts';
import { type EntrySpot, entryText, lineText, type Problems } from './verify-place.ts';
import { SerialSet } from './verify-serials.ts';

/** A statement that was read. */
interface Stated {
  readonly node: PeerId;
  readonly number: number;
  readonly lines: number;
  /** What its node has signed of it. */
  refused: readonly RefusedLine[] | undefined;
}

/** The newest statement of a tab in the epoch at hand. */
interface TabEnd {
  readonly node: PeerId;
  readonly number: number;
  readonly hash: Uint8Array;
  readonly totals: TabTotals;
  /** Attempts that were told as running. */
  readonly running: Set<number>;
}

/** Attempts of one process. */
interface RunSerials {
  readonly attempts: SerialSet;
  readonly requests: SerialSet;
}

interface Repeat {
  readonly stated: Stated;
  readonly at: number;
  readonly place: string;
}

interface Epoch {
  readonly author: AuthorId;
  readonly epoch: EpochId;
  /** By `hashName`. */
  readonly stated: Map<string, Stated>;
}

/** Beyond that a claim that comes again is checked again. */
const claimsMax = 65_536;

const epochName = (author: AuthorId, epoch: EpochId): string => `${author}/${epoch}`;

const isSameWord = (a: readonly RefusedLine[], b: readonly RefusedLine[]): boolean =>
  a.length === b.length && a.every(({ index, reason }, at) => index === b[at]?.index && reason === b[at]?.reason);

/** Takes the entries of each epoch in their order. */
export class StatementAudit {
  readonly #problems: Problems;
  readonly #money: MoneyAudit;
  readonly #meshId: MeshId;
  readonly #epochs = new Map<string, Epoch>();
  readonly #runs = new Map<string, RunSerials>();
  readonly #repeats: Repeat[] = [];
  /** Those that checked, by hash. */
  readonly #claims = new Set<string>();
  readonly #waiting: { readonly spot: EntrySpot; readonly entry: CountersignEntry }[] = [];
  #current: Epoch | undefined;
  #tabs = new Map<PeerId, TabEnd>();
  /** What stands before the statements that come next is not known. */
  #isBroken = false;
  lines = 0;

  constructor(problems: Problems, money: MoneyAudit, meshId: MeshId) {
    this.#problems = problems;
    this.#money = money;
    this.#meshId = meshId;
  }

  /** Logical requests of which there is a line. */
  get requests(): number {
    return [...this.#runs.values()].reduce((sum, { requests }) => sum + requests.size, 0);
  }

  /** The blocks that come now are of this epoch. @param isBroken Blocks before them are not held. */
  begin(author: AuthorId, epoch: EpochId, isBroken: boolean): void {
    const name = epochName(author, epoch);
    const known = this.#epochs.get(name) ?? { author, epoch, stated: new Map() };
    this.#epochs.set(name, known);
    this.#current = known;
    this.#tabs = new Map();
    this.#isBroken = isBroken;
  }

  statement(spot: EntrySpot, entry: StatementEntry, bytes: Uint8Array): void {
    const hash = statementHash(bytes);
    const { node, number, lines } = entry;
    const before = this.#tabs.get(node);
    if (before !== undefined || !this.#isBroken || number === 0) this.#checkChain(spot, entry, before);
    // One string for each node: those that are read are all different ones.
    const stated: Stated = { node: before?.node ?? node, number, lines: lines.length, refused: undefined };
    this.#current?.stated.set(hashName(hash), stated);
    const running = before?.running ?? new Set<number>();
    this.#checkRunning(spot, entry, running);
    this.#tabs.set(node, { node: stated.node, number, hash, totals: entry.totals, running });
    this.#takeLines(spot, entry, stated);
  }

  #checkChain(spot: EntrySpot, entry: StatementEntry, before: TabEnd | undefined): void {
    const add = (what: string): void => this.#problems.add(entryText(spot), what);
    const number = before === undefined ? 0 : before.number + 1;
    if (entry.number !== number) add(`statement ${entry.number} of its tab stands where ${number} should`);
    const isNext = isSameBytes(entry.previous, before?.hash ?? new Uint8Array(32));
    if (!isNext) add('it does not follow the statement of its tab before it');
    const { lines, promptTokens, completionTokens } = addTotals(before?.totals ?? noTotals, entry.lines);
    const { totals } = entry;
    if (totals.lines === lines && totals.promptTokens === promptTokens && totals.completionTokens === completionTokens)
      return;
    add('its totals are not those before it and its lines together');
  }

  #checkRunning(spot: EntrySpot, { running, progress, lines, run }: StatementEntry, told: Set<number>): void {
    for (const { serial } of running) told.add(serial);
    for (const { serial } of progress) {
      if (told.has(serial) || this.#isBroken) continue;
      this.#problems.add(
        entryText(spot),
        `it tells how far attempt ${run}.${serial} is, which it never told as running`,
      );
    }
    if (told.size > 0) for (const line of lines) if (line.run === run) told.delete(line.serial);
  }

  #takeLines(spot: EntrySpot, entry: StatementEntry, stated: Stated): void {
    this.lines += entry.lines.length;
    for (const [at, line] of entry.lines.entries()) {
      const { attempts, requests } = this.#serialsOf(spot.author, line.run);
      requests.add(line.first);
      if (attempts.add(line.serial)) this.#money.take(spot, entry, at);
      else this.#repeats.push({ stated, at, place: lineText(spot, 'line', at, line) });
    }
  }

  #serialsOf(author: AuthorId, run: string): RunSerials {
    const name = author + run;
    const known = this.#runs.get(name) ?? { attempts: new SerialSet(), requests: new SerialSet() };
    this.#runs.set(name, known);
    return known;
  }

  countersign(spot: EntrySpot, entry: CountersignEntry): void {
    const stated = this.#epochs.get(epochName(spot.author, entry.epoch))?.stated.get(hashName(entry.statement));
    if (stated === undefined) this.#waiting.push({ spot, entry });
    else this.#checkWord(spot, entry, stated);
  }

  #checkWord(spot: EntrySpot, entry: CountersignEntry, stated: Stated): void {
    const fault = this.#faultOf(spot, entry, stated);
    if (fault === undefined) stated.refused = entry.refused;
    else this.#problems.add(entryText(spot), fault);
  }

  #faultOf(spot: EntrySpot, entry: CountersignEntry, stated: Stated): string | undefined {
    const { node, number, refused } = entry;
    if (stated.node !== node) return `${node} countersigns a statement of the tab with ${stated.node}`;
    if (stated.number !== number) return `it names statement ${stated.number} of its tab as ${number}`;
    const signed = { meshId: this.#meshId, gateway: peerOf(spot.author) };
    if (!isCountersigned(entry, signed)) return `its signature is not that of ${node}`;
    const last = refused.at(-1);
    if (last !== undefined && last.index >= stated.lines) return `it refuses line ${last.index} of ${stated.lines}`;
    const isOther = stated.refused !== undefined && !isSameWord(stated.refused, refused);
    return isOther ? `${node} has signed another word on this statement before` : undefined;
  }

  /** Several gateways may have appended the same. */
  claim(spot: EntrySpot, entry: ClaimEntry, bytes: Uint8Array): void {
    const name = hashName(sha256(bytes));
    if (this.#claims.has(name)) return;
    if (!isClaimed(entry, this.#meshId)) {
      this.#problems.add(entryText(spot), `its signature is not that of ${entry.node}`);
    } else if (this.#claims.size < claimsMax) this.#claims.add(name);
  }

  /** @param hasHole Whether something of an epoch is missing or damaged: what it leaves open is told by the hole alone. */
  finish(hasHole: (author: AuthorId, epoch: EpochId) => boolean): void {
    for (const { spot, entry } of this.#waiting) {
      const stated = this.#epochs.get(epochName(spot.author, entry.epoch))?.stated.get(hashName(entry.statement));
      if (stated !== undefined) this.#checkWord(spot, entry, stated);
      else if (!hasHole(spot.author, entry.epoch)) {
        this.#problems.add(entryText(spot), `it countersigns a statement that does not stand in epoch ${entry.epoch}`);
      }
    }
    for (const { stated, at, place } of this.#repeats) {
      const isRefused = stated.refused?.some(({ index, reason }) => index === at && reason === 'repeated') === true;
      if (!isRefused) this.#problems.add(place, 'the attempt was stated before');
    }
  }
}
