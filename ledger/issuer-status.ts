/** What `status` shows of the issuers: who holds their keys, how fresh each is, who took over from whom. */

import { issuerIdOf } from '../protocol/grants.ts';
import { authorKeyOf } from './block.ts';
import type { Feeds } from './feeds.ts';
import { authorOf, type Issuers } from './issuers.ts';
import type { Ledger, LedgerStatus } from './ledger.ts';

/** Every issuer that the root has named, that was succeeded, or that has written, revoked ones among them. */
export function describeIssuers(
  ledger: Pick<Ledger, 'roots' | 'holderOf' | 'freshness'>,
  { issuers, feeds }: { readonly issuers: Issuers; readonly feeds: Feeds },
): LedgerStatus['issuers'] {
  const { roots } = ledger;
  const succeeded = [...roots.issuers.values()].flatMap(({ succeeds }) => succeeds?.issuer ?? []);
  const writers = feeds.heads().filter(({ author }) => issuers.isIssuer(author));
  const written = writers.map(({ author }) => issuerIdOf(authorKeyOf(author)));
  return [...new Set([...roots.issuers.keys(), ...written, ...succeeded])].map((issuer) => {
    const [first] = issuers.line(issuer);
    const head = first && feeds.newestOf(authorOf(first));
    const heir = roots.successorsOf(issuer).at(-1)?.issuer;
    return {
      issuer,
      holder: ledger.holderOf(issuer),
      asOfMs: ledger.freshness(issuer).asOfMs,
      isRevoked: roots.isRevoked(issuer),
      ...(head === undefined ? {} : { newest: { epoch: head.epoch, number: head.number } }),
      ...(first?.succeeds === undefined ? {} : { succeeds: first.succeeds }),
      ...(heir === undefined ? {} : { succeededBy: heir }),
    };
  });
}
