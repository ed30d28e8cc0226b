/** Usage over everything that feeds tell: settled as it comes in, summed up when it is asked for. */

import { fromHex, toHex } from '../protocol/crypto.ts';
import type { AuthorId, MeshId, Tag } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { peerIdOf } from '../protocol/peer/identity.ts';
import type { Clock } from '../protocol/ports.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import type { HeldEntry } from './feeds.ts';
import { attemptName, type UsageLine } from './line.ts';
import { settleAll } from './settle.ts';
import type { AttemptFacts, Said, Settled } from './settlement.ts';
import { type CountersignEntry, isCountersigned, type StatementEntry, statementHash } from './statement.ts';
import type { Usage, UsageCounts, UsageDimension, UsageFilter, UsageKey, UsageRow } from './usage.ts';

export interface UsageDeps {
  readonly clock: Pick<Clock, 'wallMs'>;
}

export interface UsageOptions {
  readonly meshId: MeshId;
}

interface Stated {
  readonly author: AuthorId;
  readonly timeMs: number;
  readonly entry: StatementEntry;
}

const dayMs = 86_400_000;
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

const add = (a: UsageCounts, b: UsageCounts): UsageCounts =>
  Object.fromEntries(Object.entries(a).map(([name, count]) => [name, count + b[name as keyof UsageCounts]])) as never;

const keyOf = ({ line, node, author }: Settled): UsageKey => ({
  day: Math.floor(line.startMs / dayMs),
  tagDay: line.caller.day,
  account: line.caller.account,
  key: line.caller.key,
  model: line.model,
  node,
  gateway: author,
});

const textOf = (key: UsageKey): string =>
  [String(key.day).padStart(10, '0'), key.gateway, key.node, key.model, key.tagDay, key.account, key.key].join(' ');

function sum(rows: readonly UsageRow[]): UsageRow[] {
  const sums = new Map<string, UsageRow>();
  for (const [key, counts] of rows) {
    const name = textOf(key);
    sums.set(name, [key, add(sums.get(name)?.[1] ?? none, counts)]);
  }
  return [...sums].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row);
}

class LiveUsage implements Usage {
  readonly #deps: UsageDeps;
  readonly #options: UsageOptions;
  readonly #stated = new Map<string, Stated>();
  readonly #signed = new Map<string, CountersignEntry>();
  readonly #claims = new Set<string>();
  #settled: readonly Settled[] | undefined;

  constructor(deps: UsageDeps, options: UsageOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  apply({ entry, bytes, place }: HeldEntry): void {
    const { author, timeMs } = place;
    this.#settled = undefined;
    if (entry.kind === 'statement') {
      this.#stated.set(toHex(statementHash(bytes)), { author, timeMs, entry });
    } else if (entry.kind === 'claim') {
      this.#claims.add(toHex(statementHash(bytes)));
    } else if (entry.kind === 'countersign') {
      const by = { meshId: this.#options.meshId, gateway: peerIdOf(fromHex(author)) };
      if (isCountersigned(entry, by)) this.#signed.set(toHex(entry.statement), entry);
    }
  }

  #facts(): AttemptFacts[] {
    const facts: AttemptFacts[] = [];
    const running = new Map<string, UsageLine>();
    for (const { author, entry } of this.#stated.values()) {
      for (const line of entry.running) running.set(`${author} ${entry.node} ${attemptName(line)}`, line);
    }
    for (const [hash, { author, entry }] of this.#stated) {
      const { node, run, lines, progress } = entry;
      const signed = this.#signed.get(hash);
      const refused = new Map(signed?.refused.map(({ index, reason }) => [index, reason]));
      const say = (line: UsageLine, reason?: Said['refused']): void => {
        const one = {
          line,
          isCountersigned: signed !== undefined,
          ...(reason === undefined ? {} : { refused: reason }),
        };
        facts.push({ author, node, said: [one] });
      };
      for (const [at, line] of lines.entries()) say(line, refused.get(at));
      for (const line of entry.running) say(line);
      for (const { serial, completionTokens } of progress) {
        const told = running.get(`${author} ${node} ${attemptName({ run, serial })}`);
        if (told !== undefined) say({ ...told, completionTokens });
      }
    }
    return facts;
  }

  #all(): readonly Settled[] {
    this.#settled ??= settleAll(this.#facts());
    return this.#settled;
  }

  rows({ sinceDay = 0, untilDay = Number.POSITIVE_INFINITY, caller, model, node }: UsageFilter): readonly UsageRow[] {
    const rows = sum(this.#all().map((settled): UsageRow => [keyOf(settled), countsOf(settled)]));
    return rows.filter(
      ([key]) =>
        key.day >= sinceDay &&
        key.day < untilDay &&
        (model ?? key.model) === key.model &&
        (node ?? key.node) === key.node &&
        caller?.(key) !== false,
    );
  }

  rollUp(filter: UsageFilter, by: readonly UsageDimension[]): readonly UsageRow[] {
    const has = (dimension: UsageDimension): boolean => by.includes(dimension);
    const isTagged = has('account') || has('key');
    const bare = (key: UsageKey): UsageKey => ({
      day: has('day') ? key.day : 0,
      tagDay: isTagged ? key.tagDay : 0,
      account: has('account') ? key.account : ('' as Tag),
      key: has('key') ? key.key : ('' as Tag),
      model: has('model') ? key.model : '',
      node: has('node') ? key.node : ('' as UsageKey['node']),
      gateway: has('gateway') || (isTagged && key.tagDay === 0) ? key.gateway : ('' as AuthorId),
    });
    return sum(this.rows(filter).map(([key, counts]): UsageRow => [bare(key), counts]));
  }

  spentFrom(gateway: AuthorId, lease: Tag): number {
    return this.#all()
      .filter(({ author, line, payer }) => author === gateway && line.lease === lease && payer === 'account')
      .reduce((total, { amountMicro }) => total + amountMicro, 0);
  }

  totals() {
    const counts = this.#all().reduce((total, settled) => add(total, countsOf(settled)), none);
    const dueMs = this.#deps.clock.wallMs() - limits.attestWaitMs;
    const waiting = [...this.#stated].filter(([hash, { timeMs }]) => timeMs < dueMs && !this.#signed.has(hash));
    return { ...counts, statements: this.#stated.size, claims: this.#claims.size, unattested: waiting.length };
  }

  newestMs(): UnixMs | undefined {
    let newest: UnixMs | undefined;
    for (const { entry } of this.#stated.values()) {
      for (const { startMs, durationMs } of [...entry.lines, ...entry.running]) {
        newest = unixMs(Math.max(newest ?? 0, startMs + durationMs));
      }
    }
    return newest;
  }
}

/** Makes empty counters; give them every entry that the ledger tells. */
export const createUsage = (deps: UsageDeps, options: UsageOptions): Usage => new LiveUsage(deps, options);
