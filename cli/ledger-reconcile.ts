/** Sums of the feeds beside those of others: the daemon's counters, a database, a provider's file. */

import { parsePostgresUrl } from '../ledger/adapters/export-postgres-connect.ts';
import { readProviderFile } from '../ledger/adapters/reconcile-file.ts';
import { postgresSums } from '../ledger/adapters/reconcile-postgres.ts';
import type { BlockHeader } from '../ledger/block.ts';
import { type ExportOptions, type ExportRow, exportSettled } from '../ledger/export.ts';
import {
  compareProvider,
  compareSums,
  type Difference,
  type ProviderDifference,
  providerSums,
  type Sums,
  sumsFrom,
  sumsOf,
  sumUp,
} from '../ledger/reconcile.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import { callOperation } from './control-client.ts';
import type { LedgerSource } from './ledger-source.ts';

/** What the feeds were compared with. */
export type Compared = 'counters' | 'database' | 'file';

export interface Reconciled {
  readonly ok: boolean;
  readonly compared: readonly Compared[];
  /** The first day whose statements are all here, where those of others are gone. */
  readonly from?: string;
  readonly differences: readonly (
    | (Difference & { readonly with: Compared })
    | (ProviderDifference & { readonly with: Compared })
  )[];
}

/** Which attempts a file is about. */
type Asked = Pick<ExportOptions, 'sinceMs' | 'untilMs' | 'pruned'>;

const settled = ({ rows, known, role }: LedgerSource, moments: Asked = {}): AsyncGenerator<ExportRow> =>
  exportSettled(rows, { meshId: known.mesh.meshId, holds: role === 'gateway' ? 'all' : 'open', ...moments });

/** Everything that the daemon has counted, a day at a time. */
async function daemonSums({ dir }: LedgerSource): Promise<Sums> {
  const { days } = await callOperation(dir.socket, 'ledger.counters', {});
  const rows = [];
  for (const day of days) {
    const counted = await callOperation(dir.socket, 'ledger.counters', { day });
    rows.push(...counted.rows);
  }
  return sumsOf(rows);
}

const dayMs = 86_400_000;
const isUrl = (text: string): boolean => /^postgres(ql)?:\/\//.test(text);

/**
 * Compares with everything that there is to compare with.
 * @param other A URL of PostgreSQL, or a file.
 * @throws HelixFlowError DAEMON_UNREACHABLE when there is nothing; EXPORT_FAILED, CONFIG_INVALID
 */
export async function reconcile(
  source: LedgerSource,
  other: string | undefined,
  moments: Asked = {},
): Promise<Reconciled> {
  if (other === undefined && !source.isLive)
    throw new HelixFlowError('DAEMON_UNREACHABLE', { path: source.dir.socket });
  const compared: Compared[] = [];
  const differences: Reconciled['differences'][number][] = [];
  const before = source.isLive ? await daemonSums(source) : undefined;
  const theirs = other !== undefined && isUrl(other) ? parsePostgresUrl(other) : undefined;
  const database = theirs && (await postgresSums(theirs, source.known.mesh.meshId));
  let prunedMs = -1;
  const pruned = ({ timeMs }: BlockHeader): void => {
    prunedMs = Math.max(prunedMs, timeMs);
  };
  const feeds = before !== undefined || database !== undefined ? await sumUp(settled(source, { pruned })) : undefined;
  // What was stated on a day had begun on it, or before.
  const fromDay = prunedMs < 0 ? 0 : Math.floor(prunedMs / dayMs) + 1;
  const whole = (sums: Sums): Sums => sumsFrom(sums, fromDay);
  if (feeds !== undefined && before !== undefined) {
    const found = compareSums(whole(feeds), whole(before), whole(await daemonSums(source)));
    compared.push('counters');
    differences.push(...found.map((one) => ({ with: 'counters' as const, ...one })));
  }
  if (feeds !== undefined && database !== undefined) {
    compared.push('database');
    differences.push(
      ...compareSums(whole(feeds), whole(database)).map((one) => ({ with: 'database' as const, ...one })),
    );
  }
  if (other !== undefined && !isUrl(other)) {
    const { key, rows } = await readProviderFile(other);
    const found = await compareProvider(settled(source, moments), providerSums(rows), key);
    compared.push('file');
    differences.push(...found.map((one) => ({ with: 'file' as const, ...one })));
  }
  const from = fromDay === 0 ? {} : { from: new Date(fromDay * dayMs).toISOString().slice(0, 10) };
  return { ok: differences.length === 0, compared, ...from, differences };
}
