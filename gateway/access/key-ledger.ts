/** What the ledger says of keys and accounts, asked by issuer: its own entries and those of whoever took over from it. */

import type { Ledger } from '../../ledger/ledger.ts';
import type { AccountStanding, KeyStanding } from '../../ledger/standing.ts';
import type { AccountId, AuthorId, IssuerId, KeyId } from '../../protocol/ids.ts';
import { type UnixMs, unixMs } from '../../protocol/units.ts';

/** Asked with each request, so every answer must come from memory. */
export interface KeyLedger {
  key(key: KeyId, issuer: IssuerId): Pick<KeyStanding, 'terms' | 'revoked'> | undefined;
  account(account: AccountId, issuer: IssuerId): Pick<AccountStanding, 'limits' | 'strict'> | undefined;
  /** When the issuer last vouched for what is known here; undefined when it never did. */
  asOfMs(issuer: IssuerId): UnixMs | undefined;
}

type Known = Pick<KeyStanding, 'terms' | 'revoked'>;

/** The earliest revocation counts, a cut sticks; of terms, those of the last in the line. */
function joined(earlier: Known | undefined, later: Known | undefined): Known | undefined {
  if (earlier === undefined || later === undefined) return later ?? earlier;
  const terms = later.terms ?? earlier.terms;
  const [a, b] = [earlier.revoked, later.revoked];
  const revoked = a && b ? { fromMs: unixMs(Math.min(a.fromMs, b.fromMs)), cut: a.cut || b.cut } : (a ?? b);
  return { ...(terms === undefined ? {} : { terms }), ...(revoked === undefined ? {} : { revoked }) };
}

function overAuthors<T>(
  authors: readonly AuthorId[],
  ask: (author: AuthorId) => T | undefined,
  join: (earlier: T | undefined, later: T | undefined) => T | undefined,
): T | undefined {
  const [only] = authors;
  if (authors.length === 1 && only !== undefined) return ask(only);
  return authors.map(ask).reduce(join, undefined);
}

/** Looks keys up in the ledger of this peer. */
export const keyLedgerOf = (ledger: Pick<Ledger, 'standing' | 'authorsOf' | 'freshness'>): KeyLedger => ({
  key: (key, issuer) =>
    overAuthors<Known>(ledger.authorsOf(issuer), (author) => ledger.standing.key(key, author), joined),
  account: (account, issuer) =>
    overAuthors<Pick<AccountStanding, 'limits' | 'strict'>>(
      ledger.authorsOf(issuer),
      (author) => ledger.standing.account(account, author),
      (earlier, later) => later ?? earlier,
    ),
  asOfMs: (issuer) => ledger.freshness(issuer).asOfMs,
});
