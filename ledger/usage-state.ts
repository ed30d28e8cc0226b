/** What is remembered of one gateway's statements; `usage-gateway.ts` changes it, checkpoints write it down. */

import { toHex } from '../protocol/crypto.ts';
import type { AuthorId, EpochId, PeerId, ProcessId } from '../protocol/ids.ts';
import type { Entry } from './entry.ts';
import { Intervals } from './intervals.ts';
import { type CountersignEntry, encodeUsage, statementHash } from './statement.ts';
import type { OpenRequest, Saying } from './usage-request.ts';
import { SerialTable } from './usage-serials.ts';

/** How much of one gateway is kept in memory. */
export interface UsageBounds {
  /** Settled requests that are kept, in case that more is said of them; some 0.6 kB each. */
  readonly wholeMax: number;
  /** Requests that nothing has ended yet, or whose attempts run. */
  readonly unendedMax: number;
  /** Lines and running rows of one request; one of which more is said is let go. */
  readonly sayingsMax: number;
  /** Lines of statements that wait for their countersignatures. */
  readonly unsignedLinesMax: number;
  /** Countersignatures, and counts of running attempts, of which the statement is not known yet. */
  readonly earlyMax: number;
  /** Processes of which lines may be. */
  readonly runsMax: number;
  /** Gaps between the serials of all its processes; beyond it the oldest count as settled. */
  readonly gapsMax: number;
  /** Tabs, by epoch and node. */
  readonly tabsMax: number;
}

export const usageBounds: UsageBounds = {
  wholeMax: 4_096,
  unendedMax: 16_384,
  sayingsMax: 64,
  unsignedLinesMax: 65_536,
  earlyMax: 8_192,
  runsMax: 16_384,
  gapsMax: 262_144,
  tabsMax: 65_536,
};

/** One process of a gateway. */
export interface Run {
  /** Serials of settled requests that were let go. */
  readonly past: Intervals;
  readonly open: SerialTable<OpenRequest>;
}

/** A statement that waits for its node. */
export interface Unsigned {
  readonly node: PeerId;
  readonly epoch: EpochId;
  readonly hash: string;
  readonly timeMs: number;
  /** Of its lines; of one that changes nothing whatever its node says undefined. */
  readonly lines: readonly (Saying | undefined)[];
  readonly running: readonly Saying[];
}

/** Of one tab in one epoch. */
export const tabName = (epoch: EpochId, node: PeerId): string => `${epoch} ${node}`;
/** Of a statement, as its countersignature names it. */
export const signName = (epoch: EpochId, node: PeerId, hash: string): string => `${epoch} ${node} ${hash}`;

export function setBounded<T>(map: Map<string, T>, name: string, value: T, max: number): void {
  map.set(name, value);
  if (map.size <= max) return;
  const [oldest] = map.keys();
  if (oldest !== undefined) map.delete(oldest);
}

/** Of one gateway. */
export class GatewayState {
  readonly author: AuthorId;
  readonly bounds: UsageBounds;
  readonly runs = new Map<ProcessId, Run>();
  /** Numbers of the statements that are known, by epoch and node. */
  readonly tabs = new Map<string, Intervals>();
  readonly unsigned = new Map<string, Unsigned>();
  unsignedLines = 0;
  /** Countersignatures that came before their statements, and running counts before their attempts. */
  readonly earlySigns = new Map<string, CountersignEntry>();
  readonly earlyCounts = new Map<string, number>();
  gaps = 0;
  /** Statements that nobody waits for any more. */
  abandoned = 0;
  statements = 0;
  newestMs = 0;

  constructor(author: AuthorId, bounds: UsageBounds) {
    this.author = author;
    this.bounds = bounds;
  }

  /** The numbers of a tab; undefined when there are too many tabs. */
  tabOf(name: string): Intervals | undefined {
    const known = this.tabs.get(name);
    if (known !== undefined || this.tabs.size >= this.bounds.tabsMax) return known;
    const numbers = new Intervals(this.bounds.earlyMax);
    this.tabs.set(name, numbers);
    return numbers;
  }

  /** Undefined when there are too many. */
  runOf(id: ProcessId): Run | undefined {
    const known = this.runs.get(id);
    if (known !== undefined || this.runs.size >= this.bounds.runsMax) return known;
    const run = { past: new Intervals(this.bounds.gapsMax), open: new SerialTable<OpenRequest>() };
    this.runs.set(id, run);
    return run;
  }

  /** Whether a countersignature would say nothing that is not known, or not taken. */
  isHeard({ epoch, node, number, statement }: CountersignEntry): boolean {
    const isKnown = this.tabs.get(tabName(epoch, node))?.has(number) === true;
    return isKnown && !this.unsigned.has(signName(epoch, node, toHex(statement)));
  }

  /** Adds one that waits. */
  wait(unsigned: Unsigned): void {
    this.unsigned.set(signName(unsigned.epoch, unsigned.node, unsigned.hash), unsigned);
    this.unsignedLines += unsigned.lines.length;
  }

  /** Takes one away. */
  waited(name: string): Unsigned | undefined {
    const unsigned = this.unsigned.get(name);
    if (unsigned === undefined) return undefined;
    this.unsigned.delete(name);
    this.unsignedLines -= unsigned.lines.length;
    return unsigned;
  }

  /** Every request that is open, each once. */
  requests(): readonly OpenRequest[] {
    const all = [...this.runs.values()].flatMap(({ open }) => open.entries().map(([, request]) => request));
    return [...new Set(all)];
  }
}

/** Tells which statements, and words on them, are settled for good in this state, whatever becomes of it later. */
export function coverOf({ tabs, unsigned, bounds }: GatewayState): (epoch: EpochId, entry: Entry) => boolean {
  const known = new Map<string, Intervals | undefined>();
  for (const [name, numbers] of tabs) known.set(name, Intervals.of(numbers.steps(), bounds.earlyMax));
  const waiting = new Set(unsigned.keys());
  return (epoch, entry) => {
    if (entry.kind !== 'statement' && entry.kind !== 'countersign') return false;
    const of = entry.kind === 'statement' ? epoch : entry.epoch;
    const isKnown = known.get(tabName(of, entry.node))?.has(entry.number) === true;
    const hash = toHex(entry.kind === 'statement' ? statementHash(encodeUsage(entry)) : entry.statement);
    return isKnown && !waiting.has(signName(of, entry.node, hash));
  };
}
