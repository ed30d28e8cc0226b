/** The first entry of an epoch that this process writes: what proves that its author may. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { PeerId } from '../protocol/ids.ts';
import type { AuthorEntry } from './entry.ts';
import type { EpochHead } from './feeds.ts';
import type { LedgerOptions } from './ledger.ts';

/** @throws HelixFlowError LEDGER_UNREADY for a gateway that is no member yet. */
export function firstEntry(
  as: AuthorEntry['role'],
  after: EpochHead | undefined,
  { credentials, issuer, self }: Pick<LedgerOptions, 'credentials' | 'issuer'> & { readonly self: PeerId },
): AuthorEntry {
  const place = after === undefined ? {} : { after: { epoch: after.epoch, number: after.number } };
  const common = { kind: 'author', role: as, peer: self, ...place } as const;
  if (as === 'issuer') return { ...common, certificate: issuer?.certificate ?? '', membership: '' };
  const shown = credentials();
  if (shown === undefined) throw new HelixFlowError('LEDGER_UNREADY', { reason: 'this gateway is no member yet' });
  return { ...common, certificate: shown.certificate, membership: shown.membership };
}
