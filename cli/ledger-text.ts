/** The ledger as `helixflow status` shows it: who is fresh, who is frozen, what is damaged. */

import type { LedgerStatus } from '../ledger/ledger.ts';
import { counted } from './lists.ts';

/** An issuer, and how much of it is known here. */
export interface IssuerStatus {
  readonly issuer: string;
  /** The gateway that holds its key. */
  readonly holder?: string;
  readonly state: 'here' | 'fresh' | 'stale' | 'unheard' | 'succeeded' | 'revoked';
  /** The issuer that has its authority now. */
  readonly succeededBy?: string;
  /** Since it last vouched for everything held here; absent when it never did. */
  readonly ageSeconds?: number;
}

export interface LedgerView {
  /** Whether this process may sign. */
  readonly writing: LedgerStatus['writing'];
  readonly authors: number;
  readonly blocks: number;
  readonly issuers: readonly IssuerStatus[];
  /** Authors that have forked: `helixflow mesh unfreeze`. */
  readonly frozen: readonly string[];
  /** Blocks that were damaged on disk when the process started; they are asked for again. */
  readonly damaged: readonly { readonly author: string; readonly number: number; readonly reason: string }[];
}

interface ViewOptions {
  readonly nowMs: number;
  /** The issuer whose key is here. */
  readonly own: string | undefined;
  /** An issuer that has been silent for longer is stale. */
  readonly maxStaleMs: number;
}

function issuerStatus(
  { issuer, holder, asOfMs, isRevoked, succeededBy }: LedgerStatus['issuers'][number],
  { nowMs, own, maxStaleMs }: ViewOptions,
): IssuerStatus {
  const ageMs = asOfMs === undefined ? undefined : Math.max(0, nowMs - asOfMs);
  const heard = ageMs === undefined ? 'unheard' : ageMs > maxStaleMs ? 'stale' : 'fresh';
  const counts = succeededBy !== undefined ? 'succeeded' : issuer === own ? 'here' : heard;
  return {
    issuer,
    ...(holder === undefined ? {} : { holder }),
    state: isRevoked ? 'revoked' : counts,
    ...(succeededBy === undefined ? {} : { succeededBy }),
    ...(ageMs === undefined ? {} : { ageSeconds: Math.round(ageMs / 1_000) }),
  };
}

/** What the status line says of a ledger. */
export const ledgerView = (status: LedgerStatus, options: ViewOptions): LedgerView => ({
  writing: status.writing,
  authors: status.authors,
  blocks: status.blocks,
  issuers: status.issuers.map((issuer) => issuerStatus(issuer, options)),
  frozen: status.frozen,
  damaged: status.open.damaged.map(({ author, number, reason }) => ({ author, number, reason })),
});

const short = (id: string): string => `${id.slice(0, 8)}…`;

/** Of one that is here or out of office it does not matter when it was heard. */
export const ageText = ({ state, ageSeconds }: IssuerStatus): string =>
  ageSeconds === undefined || state === 'here' || state === 'succeeded' || state === 'revoked'
    ? ''
    : `${ageSeconds} s ago`;

function issuerText(status: IssuerStatus): string {
  const { issuer, state, succeededBy } = status;
  const heir = succeededBy === undefined ? '' : `${state === 'revoked' ? ', succeeded' : ''} by ${short(succeededBy)}`;
  const age = ageText(status);
  return `${short(issuer)} ${state}${heir}${age === '' ? '' : ` (${age})`}`;
}

/** Lines for one screen. */
export function ledgerLines({ writing, authors, blocks, issuers, frozen, damaged }: LedgerView): string[] {
  const signs = writing === 'recovering' ? ', asking others what it wrote before' : '';
  return [
    `  ledger      ${counted(blocks, 'block')} of ${counted(authors, 'author')}${signs}`,
    `  issuers     ${issuers.map(issuerText).join(', ') || 'none'}`,
    ...frozen.map((author) => `  FROZEN      ${author} has forked: helixflow mesh unfreeze`),
    ...damaged.map(({ author, number, reason }) => `  damaged     block ${number} of ${short(author)}: ${reason}`),
  ];
}
