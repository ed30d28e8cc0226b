/** Feeds of usage for tests: statements and countersignatures with their places, and what they come to, slowly. */

import { type Entry, encodeEntry } from '../../ledger/entry.ts';
import type { HeldEntry } from '../../ledger/feeds.ts';
import { attemptName, type UsageLine } from '../../ledger/line.ts';
import { settleAll } from '../../ledger/settle.ts';
import type { AttemptFacts, Said, Settled } from '../../ledger/settlement.ts';
import {
  type CountersignEntry,
  noTotals,
  type Progress,
  type RefusedLine,
  type StatementEntry,
  signCountersign,
  statementHash,
} from '../../ledger/statement.ts';
import type { Usage, UsageCounts, UsageKey, UsageRow } from '../../ledger/usage.ts';
import { fromHex, toHex } from '../../protocol/crypto.ts';
import type { AuthorId, EpochId, MeshId, PeerId, ProcessId } from '../../protocol/ids.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import { unixMs } from '../../protocol/units.ts';
import { dayMs, keyOfNode, runs } from './usage-stage.ts';

export const meshId = 'ab'.repeat(32) as MeshId;
export const epochs = ['0a', '0b'].map((two) => two.repeat(16) as EpochId) as [EpochId, EpochId];

/** What a gateway states of one node at once. */
export interface Stated {
  readonly author: AuthorId;
  readonly epoch: EpochId;
  readonly node: PeerId;
  readonly run?: ProcessId;
  readonly lines?: readonly UsageLine[];
  readonly running?: readonly UsageLine[];
  readonly progress?: readonly Progress[];
  /** What the node says of it; undefined: nothing. */
  readonly refused?: readonly RefusedLine[] | undefined;
  /** When the block with it was signed. */
  readonly timeMs?: number;
}

/** Gives statements and countersignatures their numbers and places, in the order in which they come. */
export class UsageFeeds {
  readonly held: HeldEntry[] = [];
  readonly #numbers = new Map<string, number>();

  #next(name: string): number {
    const number = this.#numbers.get(name) ?? 0;
    this.#numbers.set(name, number + 1);
    return number;
  }

  append(author: AuthorId, epoch: EpochId, entry: Entry, timeMs = 1_000): HeldEntry {
    const number = this.#next(`${author} ${epoch}`);
    const place = { author, epoch, generation: epochs.indexOf(epoch), number, index: 0, timeMs, isAfterFork: false };
    const held = { entry, bytes: encodeEntry(entry), place };
    this.held.push(held);
    return held;
  }

  state({ author, epoch, node, refused, run = runs[0], timeMs, ...rows }: Stated): HeldEntry {
    const entry: StatementEntry = {
      kind: 'statement',
      node,
      number: this.#next(`${author} ${epoch} ${node}`),
      previous: new Uint8Array(32),
      run,
      lines: rows.lines ?? [],
      running: (rows.running ?? []).map((line) => ({ ...line, run })),
      progress: rows.progress ?? [],
      totals: noTotals,
    };
    const held = this.append(author, epoch, entry, timeMs);
    if (refused !== undefined) this.append(author, epoch, countersign(held, refused), timeMs);
    return held;
  }
}

/** A node's word on a statement. */
export function countersign(
  { entry, bytes, place }: HeldEntry,
  refused: readonly RefusedLine[] = [],
): CountersignEntry {
  if (entry.kind !== 'statement') throw new Error('only statements are countersigned');
  const { node, number } = entry;
  const said = { kind: 'countersign', node, epoch: place.epoch, number, statement: statementHash(bytes) } as const;
  const gateway = peerIdOf(fromHex(place.author));
  return signCountersign({ ...said, refused, timeMs: unixMs(2_000) }, { meshId, gateway }, keyOfNode(node));
}

/** All that was said, as facts; each statement once. */
export function factsIn(held: readonly HeldEntry[]): AttemptFacts[] {
  const signed = new Map<string, CountersignEntry>();
  const stated = new Map<string, HeldEntry & { readonly entry: StatementEntry }>();
  for (const { entry, bytes, place } of held) {
    if (entry.kind === 'countersign') signed.set(`${place.author} ${entry.epoch} ${toHex(entry.statement)}`, entry);
    if (entry.kind === 'statement') {
      stated.set(`${place.author} ${place.epoch} ${toHex(statementHash(bytes))}`, { entry, bytes, place });
    }
  }
  const facts: AttemptFacts[] = [];
  const counts = new Map<string, number>();
  const nameOf = (author: AuthorId, node: PeerId, line: Pick<UsageLine, 'run' | 'serial'>) =>
    `${author} ${node} ${attemptName(line)}`;
  for (const [name, { entry, place }] of stated) {
    const { author } = place;
    const { node, run } = entry;
    const word = signed.get(name);
    const say = (line: UsageLine, reason?: Said['refused']): void => {
      const said = { line, isCountersigned: word !== undefined, ...(reason === undefined ? {} : { refused: reason }) };
      facts.push({ author, node, said: [said] });
    };
    for (const [at, line] of entry.lines.entries()) say(line, word?.refused.find(({ index }) => index === at)?.reason);
    for (const line of entry.running) say(line);
    for (const { serial, completionTokens } of entry.progress) {
      const about = nameOf(author, node, { run, serial });
      counts.set(about, Math.max(counts.get(about) ?? 0, completionTokens));
    }
  }
  return facts.map((fact) => {
    const [one] = fact.said as [Said];
    const runningTokens = counts.get(nameOf(fact.author, fact.node, one.line));
    return runningTokens === undefined ? fact : { ...fact, runningTokens };
  });
}

const none: UsageCounts = {
  requests: 0,
  attempts: 0,
  promptTokens: 0,
  cachedTokens: 0,
  completionTokens: 0,
  accountMicro: 0,
  gatewayMicro: 0,
  refused: 0,
  lower: 0,
};
const countsOf = (settled: Settled): UsageCounts => ({
  requests: settled.isBilled ? 1 : 0,
  attempts: 1,
  promptTokens: settled.promptTokens,
  cachedTokens: settled.cachedTokens,
  completionTokens: settled.completionTokens,
  accountMicro: settled.payer === 'account' ? settled.amountMicro : 0,
  gatewayMicro: settled.payer === 'gateway' ? settled.amountMicro : 0,
  refused: settled.state === 'refused' ? 1 : 0,
  lower: settled.state === 'lower' ? 1 : 0,
});
export const addCounts = (a: UsageCounts, b: UsageCounts): UsageCounts => ({
  requests: a.requests + b.requests,
  attempts: a.attempts + b.attempts,
  promptTokens: a.promptTokens + b.promptTokens,
  cachedTokens: a.cachedTokens + b.cachedTokens,
  completionTokens: a.completionTokens + b.completionTokens,
  accountMicro: a.accountMicro + b.accountMicro,
  gatewayMicro: a.gatewayMicro + b.gatewayMicro,
  refused: a.refused + b.refused,
  lower: a.lower + b.lower,
});
const keyOf = ({ line, node, author }: Settled): UsageKey => ({
  day: Math.floor(line.startMs / dayMs),
  tagDay: line.caller.day,
  account: line.caller.account,
  key: line.caller.key,
  model: line.model,
  node,
  gateway: author,
});
const compare = (a: string | number, b: string | number): number => (a < b ? -1 : a > b ? 1 : 0);

/** Rows that differ in nothing, summed, in the order of their keys. */
export function sumRows(rows: readonly UsageRow[]): UsageRow[] {
  const sums = new Map<string, UsageRow>();
  for (const [key, counts] of rows) {
    const name = JSON.stringify(key);
    sums.set(name, [key, addCounts(sums.get(name)?.[1] ?? none, counts)]);
  }
  const order = ['day', 'tagDay', 'account', 'key', 'gateway', 'model', 'node'] as const;
  return [...sums.values()].sort(([a], [b]) => order.reduce((found, name) => found || compare(a[name], b[name]), 0));
}

/** What usage should say of these, by everything at once. */
export function expectedOf(held: readonly HeldEntry[]) {
  const settled = settleAll(factsIn(held));
  const spent = new Map<string, number>();
  for (const { author, line, payer, amountMicro } of settled) {
    const name = `${author} ${line.lease}`;
    if (payer === 'account' && line.lease !== undefined) spent.set(name, (spent.get(name) ?? 0) + amountMicro);
  }
  return {
    rows: sumRows(settled.map((one): UsageRow => [keyOf(one), countsOf(one)])),
    totals: settled.reduce((total, one) => addCounts(total, countsOf(one)), none),
    spent: [...spent].filter(([, micro]) => micro > 0).sort(),
  };
}

/** The same, as it is asked for. */
export function answersOf(usage: Usage, leases: readonly (readonly [AuthorId, UsageLine['lease']])[]) {
  const { statements: _, claims: __, unattested: ___, ...totals } = usage.totals();
  const spent = leases.flatMap(([author, lease]): [string, number][] => {
    const micro = lease === undefined ? 0 : usage.spentFrom(author, lease);
    return micro > 0 ? [[`${author} ${lease}`, micro]] : [];
  });
  return { rows: usage.rows({}), totals, spent: spent.sort() };
}
