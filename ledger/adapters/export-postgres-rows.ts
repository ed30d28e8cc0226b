/** Blocks as rows of PostgreSQL's tables: what a batch of them says of usage. */

import { toHex } from '../../protocol/crypto.ts';
import type { AuthorId, MeshId } from '../../protocol/ids.ts';
import { peerOf } from '../authors.ts';
import { columns } from '../export-columns.ts';
import type { MergedAttempt } from '../export-merge.ts';
import { type PlacedStatement, statementsOf } from '../export-read.ts';
import type { CheckedBlock } from '../feed-blocks.ts';
import { isClaimed, isCountersigned } from '../statement.ts';

/** Lines of one transaction, about. */
const batchLines = 4_000;
const batchBlocks = 1_000;

const iso = (ms: number): string => new Date(ms).toISOString();

/** JSON that PostgreSQL takes: its texts hold no zero. */
export function jsonOf(rows: readonly unknown[]): string {
  const json = JSON.stringify(rows);
  if (!json.includes('\\u0000')) return json;
  return JSON.stringify(rows, (_, value: unknown) =>
    typeof value === 'string' ? value.replaceAll('\0', '\ufffd') : value,
  );
}

/** All that blocks say of usage, as rows. */
export class Batch {
  readonly author: AuthorId;
  readonly statements: PlacedStatement[] = [];
  readonly countersignatures: object[] = [];
  readonly claims: object[] = [];
  /** Statements that have been countersigned now. */
  readonly signed = new Set<string>();
  blocks = 0;
  lines = 0;
  next = 0;
  readonly #meshId: MeshId;

  constructor(author: AuthorId, meshId: MeshId) {
    this.author = author;
    this.#meshId = meshId;
  }

  get isFull(): boolean {
    return this.lines >= batchLines || this.blocks >= batchBlocks;
  }

  take(block: CheckedBlock): void {
    const { author, epoch, number, generation } = block.head.header;
    const placed = statementsOf(block);
    this.statements.push(...placed);
    for (const { statement } of placed) this.lines += statement.lines.length;
    for (const { entry, index } of block.entries) {
      const place = { author, epoch, block: number, entry: index };
      if (entry.kind === 'countersign') {
        const hash = toHex(entry.statement);
        const valid = isCountersigned(entry, { meshId: this.#meshId, gateway: peerOf(author) });
        if (valid) this.signed.add(hash);
        const of = { node: entry.node, statement_epoch: entry.epoch, statement: entry.number, statement_hash: hash };
        this.countersignatures.push({
          ...place,
          generation,
          ...of,
          signed: iso(entry.timeMs),
          refused: entry.refused,
          valid,
        });
      } else if (entry.kind === 'claim') {
        const { node, gateway, attempts, timeMs } = entry;
        const valid = isClaimed(entry, this.#meshId);
        this.claims.push({ ...place, node, gateway, claimed: iso(timeMs), attempts, valid });
      }
    }
    this.blocks += 1;
    this.next = number + 1;
  }

  statementRows(): object[] {
    return this.statements.map(({ author, epoch, block, entry, timeMs, hash, statement }) => ({
      author,
      epoch,
      block,
      entry,
      node: statement.node,
      statement: statement.number,
      statement_hash: hash,
      stated: iso(timeMs),
      lines: statement.lines.length,
      total_lines: statement.totals.lines,
      total_prompt_tokens: statement.totals.promptTokens,
      total_completion_tokens: statement.totals.completionTokens,
    }));
  }
}

/** What is kept of an attempt. */
export function lineRow(merged: MergedAttempt): object {
  const cells = columns.map((column) => {
    const cell = column.of(merged);
    return [column.name, column.kind === 'moment' && cell !== null ? iso(Number(cell)) : cell];
  });
  const { others, runningTokens } = merged;
  const hasOthers = others.length > 0;
  return {
    ...Object.fromEntries(cells),
    running_tokens: runningTokens ?? null,
    others: hasOthers ? others : null,
    other_hashes: hasOthers ? [...new Set(others.map(({ origin }) => origin.hash))] : null,
  };
}
