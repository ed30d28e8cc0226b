/** What an issuer has written about one account: for whoever takes its data along. */

import type { AccountId, AuthorId, EpochId, KeyId } from '../protocol/ids.ts';
import type { UnixMs } from '../protocol/units.ts';
import { type Entry, parseEntry } from './entry.ts';
import type { EpochHead } from './feeds.ts';
import type { Ledger } from './ledger.ts';

/** An entry, and where it stands. */
export interface ToldEntry {
  readonly author: AuthorId;
  readonly epoch: EpochId;
  readonly number: number;
  readonly index: number;
  readonly timeMs: UnixMs;
  readonly entry: Entry;
}

export interface AboutAccount {
  readonly account: AccountId;
  readonly keys: ReadonlySet<KeyId>;
}

/** Bytes of blocks that are read at a time. */
const windowBytes = 1_048_576;

function isAbout(entry: Entry, { account, keys }: AboutAccount, leases: Set<string>): boolean {
  switch (entry.kind) {
    case 'account':
    case 'erase':
      return entry.account === account;
    case 'lease':
      if (entry.account !== account) return false;
      leases.add(entry.lease);
      return true;
    case 'writeoff':
      return leases.has(entry.lease);
    case 'key':
    case 'terms':
    case 'revoke':
      return keys.has(entry.key);
    default:
      return false;
  }
}

async function* blocksOf(ledger: Pick<Ledger, 'read'>, { author, epoch, number }: EpochHead) {
  for (let from = 0; from <= number; ) {
    const blocks = await ledger.read(author, epoch, from, windowBytes);
    const last = blocks.at(-1);
    if (last === undefined) return;
    for (const block of blocks) if ('entries' in block) yield block;
    from = last.head.header.number + 1;
  }
}

/** Feeds of these authors are read from their beginning, so this takes as long as they are. At most `max` entries come. */
export async function entriesAbout(
  ledger: Pick<Ledger, 'heads' | 'read'>,
  authors: ReadonlySet<AuthorId>,
  about: AboutAccount,
  max: number,
): Promise<{ readonly entries: readonly ToldEntry[]; readonly isComplete: boolean }> {
  const entries: ToldEntry[] = [];
  const leases = new Set<string>();
  const heads = ledger.heads().filter(({ author }) => authors.has(author));
  for (const epochHead of heads.toSorted((a, b) => a.generation - b.generation)) {
    for await (const { head, entries: texts } of blocksOf(ledger, epochHead)) {
      for (const [index, bytes] of texts.entries()) {
        const entry = parseEntry(bytes);
        if (!isAbout(entry, about, leases)) continue;
        if (entries.length === max) return { entries, isComplete: false };
        const { author, epoch, number, timeMs } = head.header;
        entries.push({ author, epoch, number, index, timeMs, entry });
      }
    }
  }
  return { entries, isComplete: true };
}
