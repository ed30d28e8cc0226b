/** What an export to PostgreSQL comes to, summed up there. */

import type { Client } from 'pg';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { MeshId } from '../../protocol/ids.ts';
import { type Sums, sumsOf, usageFields } from '../reconcile.ts';
import type { UsageCounts, UsageKey } from '../usage.ts';
import { connectPostgres, exportError, isDatabaseError, type PostgresTarget } from './export-postgres-connect.ts';

const sums = `SELECT floor(extract(epoch FROM start) / 86400)::bigint AS day, author, node, model, tag_day, account_tag, key_tag,
  count(*) FILTER (WHERE billed) AS requests,
  count(*) AS attempts,
  sum(prompt_tokens) AS "promptTokens",
  sum(cached_tokens) AS "cachedTokens",
  sum(completion_tokens) AS "completionTokens",
  coalesce(sum(amount_micro) FILTER (WHERE payer = 'account'), 0) AS "accountMicro",
  coalesce(sum(amount_micro) FILTER (WHERE payer = 'gateway'), 0) AS "gatewayMicro",
  count(*) FILTER (WHERE state = 'refused') AS refused,
  count(*) FILTER (WHERE state = 'lower') AS lower
FROM helixflow.lines GROUP BY 1, 2, 3, 4, 5, 6, 7`;

type Cells = Readonly<Record<string, string | number>>;

const keyOf = (row: Cells): UsageKey =>
  ({
    day: Number(row['day']),
    gateway: row['author'],
    node: row['node'],
    model: row['model'],
    tagDay: Number(row['tag_day']),
    account: row['account_tag'],
    key: row['key_tag'],
  }) as UsageKey;

const countsOf = (row: Cells): UsageCounts =>
  Object.fromEntries(usageFields.map((field) => [field, Number(row[field])])) as never;

async function read(client: Client, target: PostgresTarget, meshId: MeshId): Promise<Sums> {
  const { rows: meshes } = await client.query('SELECT mesh_id FROM helixflow.mesh');
  const held: unknown = meshes[0]?.mesh_id;
  if (held !== meshId) {
    const reason = held === undefined ? 'it holds no ledger' : `it holds the ledger of mesh ${String(held)}`;
    throw new HelixFlowError('EXPORT_FAILED', { target: target.name, reason });
  }
  const { rows } = await client.query(sums);
  return sumsOf((rows as Cells[]).map((row) => [keyOf(row), countsOf(row)] as const));
}

/** @throws HelixFlowError EXPORT_FAILED */
export async function postgresSums(target: PostgresTarget, meshId: MeshId): Promise<Sums> {
  const client = await connectPostgres(target);
  try {
    return await read(client, target, meshId);
  } catch (error) {
    throw isDatabaseError(error) ? exportError(target, error) : error;
  } finally {
    await client.end();
  }
}
