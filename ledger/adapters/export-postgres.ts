/** The export to PostgreSQL: batch by batch, each with its cursor in one transaction, so that it goes on wherever it was ended. */

import type { Client } from 'pg';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { AuthorId, EpochId, MeshId } from '../../protocol/ids.ts';
import type { Store } from '../../protocol/ports.ts';
import { readBlocks } from '../export-read.ts';
import { blockKeys } from '../feed-rows.ts';
import { epochRanges } from '../verify-rows.ts';
import { connectPostgres, exportError, isDatabaseError, type PostgresTarget } from './export-postgres-connect.ts';
import { type Connection, mergeBatch } from './export-postgres-merge.ts';
import { Batch, jsonOf, lineRow } from './export-postgres-rows.ts';
import {
  claimColumns,
  countersignatureColumns,
  foundation,
  lineColumns,
  lineKey,
  migrations,
  placeKey,
  statementColumns,
  upsert,
} from './export-postgres-schema.ts';

/** What one pass has moved. */
export interface Exported {
  readonly blocks: number;
  readonly lines: number;
}

export interface PostgresOptions {
  readonly meshId: MeshId;
  readonly holds: 'all' | 'open';
  /** Stops between two batches. */
  readonly signal?: AbortSignal;
  /** Told after each batch. */
  readonly progress?: (exported: Exported) => void;
}

interface EpochPlace {
  readonly author: AuthorId;
  readonly epoch: EpochId;
}

/** Exporters take turns; any number that nobody else uses. */
const lockNumber = 7_420_004;
/** Nothing is numbered higher. */
const lastBlock = Number.MAX_SAFE_INTEGER - 1;

const sql = {
  statements: upsert('statements', statementColumns, placeKey, 'keep'),
  countersignatures: upsert('countersignatures', countersignatureColumns, placeKey, 'keep'),
  claims: upsert('claims', claimColumns, placeKey, 'keep'),
  lines: upsert('lines', lineColumns, lineKey, 'replace'),
  cursor: `INSERT INTO helixflow.cursors (author, epoch, next_block) VALUES ($1, $2, $3)
ON CONFLICT (author, epoch) DO UPDATE SET next_block = excluded.next_block`,
} as const;

/** One connection, for one pass or many. */
class PostgresExport implements AsyncDisposable {
  readonly #client: Client;
  readonly #target: PostgresTarget;
  readonly #options: PostgresOptions;

  constructor(client: Client, target: PostgresTarget, options: PostgresOptions) {
    this.#client = client;
    this.#target = target;
    this.#options = options;
  }

  /** @throws HelixFlowError EXPORT_FAILED */
  async #run<T>(work: (client: Connection) => Promise<T>): Promise<T> {
    try {
      return await work(this.#client);
    } catch (error) {
      if (isDatabaseError(error)) throw exportError(this.#target, error);
      throw error;
    }
  }

  /** All of `work` or nothing, one exporter at a time. */
  #transaction<T>(work: (client: Connection) => Promise<T>): Promise<T> {
    return this.#run(async (client) => {
      await client.query('BEGIN');
      try {
        await client.query('SELECT pg_advisory_xact_lock($1)', [lockNumber]);
        const result = await work(client);
        await client.query('COMMIT');
        return result;
      } catch (error) {
        // Where the connection is gone there is nothing to undo, and the first error tells why.
        await client.query('ROLLBACK').catch((second: unknown) => {
          if (!isDatabaseError(second)) throw second;
        });
        throw error;
      }
    });
  }

  /** Makes or changes the schema, and takes the database for this mesh. @throws HelixFlowError EXPORT_FAILED */
  async prepare(): Promise<void> {
    await this.#transaction(async (client) => {
      for (const statement of foundation) await client.query(statement);
      const { rows } = await client.query('SELECT coalesce(max(number), 0) AS number FROM helixflow.migrations');
      const applied = Number(rows[0]?.number);
      if (applied > migrations.length)
        throw this.#failed(`its schema has number ${applied}, this version knows up to ${migrations.length}`);
      for (const [at, statements] of migrations.entries()) {
        if (at < applied) continue;
        for (const statement of statements) await client.query(statement);
        await client.query('INSERT INTO helixflow.migrations (number) VALUES ($1)', [at + 1]);
      }
      const { rows: meshes } = await client.query('SELECT mesh_id FROM helixflow.mesh');
      const held: unknown = meshes[0]?.mesh_id;
      if (held === undefined) await client.query('INSERT INTO helixflow.mesh VALUES ($1)', [this.#options.meshId]);
      else if (held !== this.#options.meshId) throw this.#failed(`it holds the ledger of mesh ${String(held)}`);
    });
  }

  #failed(reason: string): HelixFlowError<'EXPORT_FAILED'> {
    return new HelixFlowError('EXPORT_FAILED', { target: this.#target.name, reason });
  }

  /** Moves everything that is there and not moved yet. @throws HelixFlowError EXPORT_FAILED; what reading the rows throws. */
  async pass(rows: Pick<Store, 'range'>): Promise<Exported> {
    const { signal } = this.#options;
    const total = { blocks: 0, lines: 0 };
    const cursors = await this.#cursors();
    for (const { author, epoch } of await epochRanges(rows)) {
      const from = cursors.get(`${author}/${epoch}`) ?? 0;
      for await (const batch of this.#batches(rows, { author, epoch }, from)) {
        if (signal?.aborted === true) return total;
        if (!(await this.#move({ author, epoch }, batch))) break;
        total.blocks += batch.blocks;
        total.lines += batch.lines;
        this.#options.progress?.(total);
      }
    }
    return total;
  }

  #cursors(): Promise<ReadonlyMap<string, number>> {
    return this.#run(async (client) => {
      const { rows } = await client.query('SELECT author, epoch, next_block FROM helixflow.cursors');
      return new Map(rows.map(({ author, epoch, next_block }) => [`${author}/${epoch}`, Number(next_block)]));
    });
  }

  /** The blocks of an epoch up to the first hole: what fills it shall not be left out. */
  async *#batches(rows: Pick<Store, 'range'>, { author, epoch }: EpochPlace, from: number): AsyncGenerator<Batch> {
    const { meshId, holds } = this.#options;
    let batch = new Batch(author, meshId);
    let next = from;
    for await (const block of readBlocks(rows.range(blockKeys(author, epoch, from, lastBlock)), { meshId, holds })) {
      if (block.head.header.number !== next) break;
      next += 1;
      batch.take(block);
      if (!batch.isFull) continue;
      yield batch;
      batch = new Batch(author, meshId);
    }
    if (batch.blocks > 0) yield batch;
  }

  /** @returns false when another exporter has been there first. */
  #move({ author, epoch }: EpochPlace, batch: Batch): Promise<boolean> {
    return this.#transaction(async (client) => {
      const { rows } = await client.query('SELECT next_block FROM helixflow.cursors WHERE author = $1 AND epoch = $2', [
        author,
        epoch,
      ]);
      if (Number(rows[0]?.next_block ?? 0) !== batch.next - batch.blocks) return false;
      await client.query(sql.statements, [jsonOf(batch.statementRows())]);
      await client.query(sql.countersignatures, [jsonOf(batch.countersignatures)]);
      await client.query(sql.claims, [jsonOf(batch.claims)]);
      const merged = await mergeBatch(client, batch);
      await client.query(sql.lines, [jsonOf(merged.map(lineRow))]);
      await client.query(sql.cursor, [author, epoch, batch.next]);
      return true;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#run(() => this.#client.end());
  }
}

/** Connects, and makes the schema if it is not there. @throws HelixFlowError EXPORT_FAILED */
export async function openPostgresExport(target: PostgresTarget, options: PostgresOptions): Promise<PostgresExport> {
  const client = await connectPostgres(target);
  const opened = new PostgresExport(client, target, options);
  try {
    await opened.prepare();
    return opened;
  } catch (error) {
    await opened[Symbol.asyncDispose]();
    throw error;
  }
}
