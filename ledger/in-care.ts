/** What an issuer's desk looks after: its own keys and accounts, and those of the issuers it took over from. */

import type { AuthorId, IssuerId } from '../protocol/ids.ts';
import { unixMs } from '../protocol/units.ts';
import type { Ledger } from './ledger.ts';
import type { AccountStanding, KeyStanding } from './standing.ts';

/** Authors whose keys and accounts an issuer looks after, oldest first: itself, and all in whose line it stands. */
export function authorsInCareOf(ledger: Pick<Ledger, 'roots' | 'authorsOf'>, issuer: IssuerId): readonly AuthorId[] {
  const [own] = ledger.authorsOf(issuer);
  if (own === undefined) return [];
  const issuers = [...ledger.roots.issuers.keys()];
  const lines = issuers.map((named) => ledger.authorsOf(named)).filter((line) => line.includes(own));
  // The longest line begins with the oldest.
  return [...new Set(lines.toSorted((a, b) => b.length - a.length).flat())];
}

function joinRevoked(a: KeyStanding['revoked'], b: KeyStanding['revoked']): KeyStanding['revoked'] {
  if (a === undefined || b === undefined) return a ?? b;
  return { fromMs: unixMs(Math.min(a.fromMs, b.fromMs)), cut: a.cut || b.cut };
}

function joinTwo(before: KeyStanding, next: KeyStanding): KeyStanding {
  const made = before.made ?? next.made;
  const terms = next.terms ?? before.terms;
  const revoked = joinRevoked(before.revoked, next.revoked);
  return {
    key: before.key,
    by: before.by,
    ...(made === undefined ? {} : { made }),
    ...(terms === undefined ? {} : { terms }),
    ...(revoked === undefined ? {} : { revoked }),
  };
}

/** What several authors say of one key: made by the first, on the terms of the last, revoked by any. */
export const joinKeys = ([first, ...later]: readonly KeyStanding[]): KeyStanding | undefined =>
  first && later.reduce(joinTwo, first);

/** What several authors say of one account: opened by the first, on the terms of the last. */
export function joinAccounts(standings: readonly AccountStanding[]): AccountStanding | undefined {
  const [first] = standings;
  const last = standings.at(-1);
  return first && last && { ...last, by: first.by, createdMs: first.createdMs };
}

/** Rows of the same id, each as one. */
export function joinAll<Row>(
  rows: readonly Row[],
  idOf: (row: Row) => string,
  join: (rows: readonly Row[]) => Row | undefined,
): readonly Row[] {
  const groups = new Map<string, Row[]>();
  for (const row of rows) groups.set(idOf(row), [...(groups.get(idOf(row)) ?? []), row]);
  return [...groups.values()].flatMap((group) => join(group) ?? []);
}
