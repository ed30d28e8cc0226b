/** What earlier processes of this gateway left: lines on disk, some of which their statements hold already. */

import type { AuthorId, EpochId, ProcessId } from '../protocol/ids.ts';
import { parseEntry } from './entry.ts';
import type { EntryPlace } from './feeds.ts';
import type { PendingLine } from './gateway-tab.ts';
import { Ranges } from './gateway-tab-ranges.ts';
import type { Ledger } from './ledger.ts';
import { attemptName, type UsageLine } from './line.ts';
import type { LoggedLine } from './line-log.ts';

/** Blocks that are read back at a time. */
const readBytes = 262_144;

type Attempt = Pick<UsageLine, 'run' | 'serial'>;

/** What the statements of one epoch told. */
interface ToldEpoch {
  readonly generation: number;
  /** The last block with a statement. */
  furthest: number;
  readonly runs: Map<ProcessId, Ranges>;
}

/** Blocks of an epoch that only this gateway has. */
interface Unheard {
  readonly epoch: EpochId;
  readonly generation: number;
  readonly from: number;
  readonly to: number;
}

export class Past {
  /** What was stated before this process began; asked while the log is read, and let go then. */
  #stated: Map<ProcessId, Ranges> | undefined = new Map();
  readonly #left = new Map<string, PendingLine>();
  readonly #epochs = new Map<EpochId, ToldEpoch>();

  /** Everything that was on disk is known. */
  get isRead(): boolean {
    return this.#stated === undefined;
  }

  /** @param hasUnheard As `hasUnheard` says. */
  read(hasUnheard: boolean): void {
    this.#stated = undefined;
    if (!hasUnheard) this.#epochs.clear();
  }

  /** A statement with these lines stands here. */
  found({ epoch, generation, number }: EntryPlace, lines: readonly UsageLine[]): void {
    const told = this.#epochs.get(epoch) ?? { generation, furthest: number, runs: new Map<ProcessId, Ranges>() };
    this.#epochs.set(epoch, told);
    told.furthest = Math.max(told.furthest, number);
    for (const { run, serial } of lines) {
      const serials = told.runs.get(run) ?? new Ranges();
      told.runs.set(run, serials);
      serials.add(serial);
    }
  }

  /** Where statements stand behind a lost block: nobody else hears of them. */
  #unheard(ledger: Pick<Ledger, 'heads'>, author: AuthorId): readonly Unheard[] {
    const own = ledger.heads().filter((head) => head.author === author);
    return [...this.#epochs].flatMap(([epoch, { generation, furthest }]) => {
      const from = (own.find((head) => head.epoch === epoch)?.number ?? -1) + 1;
      return from <= furthest ? [{ epoch, generation, from, to: furthest }] : [];
    });
  }

  hasUnheard(ledger: Pick<Ledger, 'heads'>, author: AuthorId): boolean {
    return this.#unheard(ledger, author).length > 0;
  }

  /**
   * The lines of those statements that were not stated again since. Ask once others have had their time to give back
   * what is lost.
   */
  async *unheard(ledger: Pick<Ledger, 'heads' | 'read'>, author: AuthorId): AsyncGenerator<LoggedLine> {
    for (const { epoch, generation, from, to } of this.#unheard(ledger, author)) {
      for (let at = from; at <= to; ) {
        const blocks = await ledger.read(author, epoch, at, readBytes);
        for (const bytes of blocks.flatMap((block) => ('entries' in block ? block.entries : []))) {
          const entry = parseEntry(bytes);
          if (entry.kind !== 'statement') continue;
          for (const line of entry.lines) if (!this.#isToldAfter(generation, line)) yield { node: entry.node, line };
        }
        at += Math.max(1, blocks.length);
      }
    }
  }

  #isToldAfter(generation: number, { run, serial }: Attempt): boolean {
    for (const told of this.#epochs.values()) {
      if (told.generation > generation && told.runs.get(run)?.has(serial) === true) return true;
    }
    return false;
  }

  isStated({ run, serial }: Attempt): boolean {
    return this.#stated?.get(run)?.has(serial) ?? false;
  }

  /** No statement is known that holds this line. */
  leave(pending: PendingLine): void {
    this.#left.set(attemptName(pending.line), pending);
  }

  /** An earlier process stated this attempt. @returns the line that was left of it. */
  stated({ run, serial }: Attempt): PendingLine | undefined {
    if (this.#stated === undefined)
      return this.#left.size === 0 ? undefined : this.#left.get(attemptName({ run, serial }));
    let serials = this.#stated.get(run);
    if (serials === undefined) {
      serials = new Ranges();
      this.#stated.set(run, serials);
    }
    serials.add(serial);
    return undefined;
  }

  /** A statement holds the line. */
  done({ line }: PendingLine): void {
    if (this.#left.size > 0) this.#left.delete(attemptName(line));
  }
}
