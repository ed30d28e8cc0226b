/** `helixflow usage`: what was used and what it cost, in whole UTC days. */

import type { UsageView } from '../../gateway/admin/usage-rows.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { dayMs } from '../../protocol/units.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { usageOptions } from '../config/account-tables.ts';
import type { Span } from '../config/values.ts';
import { listAll } from '../lists.ts';
import { usageCsv, usageTable, usageValue } from '../usage-text.ts';

const defaultDays = 30;

const startOfDay = (momentMs: number): number => Math.floor(momentMs / dayMs) * dayMs;

/** The first moment that counts, and the first that does not any more. */
function rangeOf(since: Span | undefined, until: Span | undefined, nowMs: number) {
  const from = since ?? { agoMs: defaultDays * dayMs };
  const sinceMs = Math.max(0, startOfDay('agoMs' in from ? nowMs - from.agoMs : from.fromMs));
  const to = until ?? { agoMs: 0 };
  const lastMs = 'agoMs' in to ? nowMs - to.agoMs : Math.max(to.fromMs, to.toMs - 1);
  const untilMs = startOfDay(lastMs) + dayMs;
  if (untilMs > sinceMs) return { sinceMs, untilMs };
  if (until === undefined) throw new HelixFlowError('CONFIG_INVALID', { reason: '--since lies in the future' });
  throw new HelixFlowError('CONFIG_INVALID', { reason: '--until lies before --since' });
}

export const runUsage: RunCommand<typeof usageOptions> = async (config, { common, output }) => {
  const { by, since, until, account, model, csv } = config;
  if (csv && common.json) throw new HelixFlowError('CONFIG_INVALID', { reason: '--csv and --json exclude each other' });
  const range = rangeOf(since, until, Date.now());
  const asked = {
    by: by.join(','),
    ...range,
    ...(account === undefined ? {} : { account }),
    ...(model === undefined ? {} : { model }),
  };
  await using admin = await openAdmin(common.dataDir, 'usage');
  let total: Awaited<ReturnType<typeof ask>>['total'] | undefined;
  const ask = (page: { readonly after?: string }) => admin.call('usage.show', { ...asked, ...page, limit: 10_000 });
  const rows: readonly UsageView[] = await listAll(
    async (page) => {
      const piece = await ask(page);
      total ??= piece.total;
      return piece;
    },
    ({ id }) => id,
  );
  const report = { by, range, rows, total: total ?? (await ask({})).total };
  output.data(usageValue(report), csv ? usageCsv(report) : usageTable(report));
  return 0;
};
