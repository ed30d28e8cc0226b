/** Everything that the feeds of one gateway say of usage, read as an auditor would: entry by entry, from its disk. */

import { parseEntry } from '../ledger/entry.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { attemptName, type UsageLine } from '../ledger/line.ts';
import { leaseTag } from '../ledger/money.ts';
import type { AttemptFacts, Said } from '../ledger/settlement.ts';
import { statementHash } from '../ledger/statement.ts';
import { toHex } from '../protocol/crypto.ts';
import type { AccountId, AuthorId, PeerId, ProcessId, Tag } from '../protocol/ids.ts';

/** What feeds say. */
export interface UsageRead {
  readonly attempts: readonly AttemptFacts[];
  /** Statements in all, and, by author, those that their node has not countersigned. */
  readonly statements: number;
  readonly waiting: ReadonlyMap<AuthorId, number>;
  readonly claims: number;
  /** Whose money a line with this tag spends. */
  readonly leases: ReadonlyMap<Tag, AccountId>;
}

const readBytes = 1_048_576;

interface Stated {
  readonly author: AuthorId;
  readonly node: PeerId;
  readonly run: ProcessId;
  readonly lines: readonly UsageLine[];
  readonly running: readonly UsageLine[];
  readonly progress: ReadonlyMap<number, number>;
}

class Reading {
  readonly #stated = new Map<string, Stated>();
  readonly #refused = new Map<string, ReadonlyMap<number, Said['refused']>>();
  readonly #running = new Map<string, UsageLine>();
  readonly leases = new Map<Tag, AccountId>();
  claims = 0;

  take(author: AuthorId, bytes: Uint8Array): void {
    const entry = parseEntry(bytes);
    if (entry.kind === 'claim') this.claims += 1;
    if (entry.kind === 'lease') this.leases.set(leaseTag(entry.lease), entry.account);
    if (entry.kind === 'countersign') {
      const refused = new Map(entry.refused.map(({ index, reason }) => [index, reason]));
      this.#refused.set(toHex(entry.statement), refused);
    }
    if (entry.kind !== 'statement') return;
    const progress = new Map(entry.progress.map(({ serial, completionTokens }) => [serial, completionTokens]));
    const { node, run, lines, running } = entry;
    this.#stated.set(toHex(statementHash(bytes)), { author, node, run, lines, running, progress });
  }

  read(): UsageRead {
    const facts = new Map<string, { author: AuthorId; node: PeerId; said: Said[] }>();
    for (const [hash, { author, node, run, lines, running, progress }] of this.#stated) {
      const refused = this.#refused.get(hash);
      const isCountersigned = refused !== undefined;
      const say = (line: UsageLine, reason?: Said['refused']): void => {
        const name = `${author}.${attemptName(line)}`;
        const known = facts.get(name) ?? { author, node, said: [] };
        known.said.push({ line, isCountersigned, ...(reason === undefined ? {} : { refused: reason }) });
        facts.set(name, known);
      };
      for (const [at, line] of lines.entries()) say(line, refused?.get(at));
      for (const line of running) {
        this.#running.set(`${author}.${attemptName(line)}`, line);
        say(line);
      }
      for (const [serial, completionTokens] of progress) {
        const told = this.#running.get(`${author}.${attemptName({ run, serial })}`);
        if (told !== undefined) say({ ...told, completionTokens });
      }
    }
    const waiting = new Map<AuthorId, number>();
    for (const [hash, { author }] of this.#stated) {
      if (!this.#refused.has(hash)) waiting.set(author, (waiting.get(author) ?? 0) + 1);
    }
    const { claims, leases } = this;
    return { attempts: [...facts.values()], statements: this.#stated.size, waiting, claims, leases };
  }
}

/** Reads all feeds that a ledger holds. */
export async function readUsage(ledger: Ledger): Promise<UsageRead> {
  const reading = new Reading();
  for (const { author, epoch, number } of ledger.heads()) {
    for (let from = 0; from <= number; ) {
      const blocks = await ledger.read(author, epoch, from, readBytes);
      for (const block of blocks)
        if ('entries' in block) for (const bytes of block.entries) reading.take(author, bytes);
      if (blocks.length === 0) break;
      from += blocks.length;
    }
  }
  return reading.read();
}
