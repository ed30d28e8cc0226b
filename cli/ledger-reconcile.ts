/** Sums of the feeds beside those of others: the daemon's counters, a database, a provider's file. */

import type { AdminApi } from '../gateway/admin/operations.ts';
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
import { dayMs } from '../protocol/units.ts';
import { openAdmin } from './admin.ts';
import { callOperation, isSocketAlive } from './control-client.ts';
import { openDataDir } from './data-dir.ts';
import { fileExists } from './files.ts';
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

type Counters = AdminApi['ledger.counters'];

/** Everything that was counted as lines came in, a day at a time. */
async function countedSums(ask: (day: Counters['request']) => Promise<Counters['response']>): Promise<Sums> {
  const { days } = await ask({});
  const rows = [];
  for (const day of days) rows.push(...(await ask({ day })).rows);
  return sumsOf(rows);
}

const daemonSums = ({ dir }: LedgerSource): Promise<Sums> =>
  countedSums((asked) => callOperation(dir.socket, 'ledger.counters', asked));

/** What the last gateway of a directory that no daemon holds had counted; undefined of others. */
export async function keptSums(dataDir: string | undefined): Promise<Sums | undefined> {
  const dir = await openDataDir(dataDir, 'read');
  if ((await isSocketAlive(dir.socket)) || !(await fileExists(dir.peer('gateway').store))) return undefined;
  await using admin = await openAdmin(dataDir, 'ledger reconcile');
  return await countedSums((asked) => admin.call('ledger.counters', asked));
}

const isUrl = (text: string): boolean => /^postgres(ql)?:\/\//.test(text);

/**
 * Compares with everything that there is to compare with.
 * @param other A URL of PostgreSQL, or a file.
 * @throws HelixFlowError CONFIG_INVALID when there is nothing; EXPORT_FAILED
 */
export async function reconcile(
  source: LedgerSource,
  other: string | undefined,
  moments: Asked = {},
  kept?: Sums,
): Promise<Reconciled> {
  const isCounting = source.isLive && source.role === 'gateway';
  if (other === undefined && kept === undefined && !isCounting) {
    const reason = 'a node counts no usage: reconcile at a gateway, or say with what to compare (--with)';
    throw new HelixFlowError('CONFIG_INVALID', { reason });
  }
  const compared: Compared[] = [];
  const differences: Reconciled['differences'][number][] = [];
  const before = isCounting ? await daemonSums(source) : kept;
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
    const found = compareSums(whole(feeds), whole(before), whole(isCounting ? await daemonSums(source) : before));
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
