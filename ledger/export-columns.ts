/** What an export says of an attempt: one row a column, the same in CSV, JSON lines and SQL. */

import { peerOf } from './authors.ts';
import type { ExportRow } from './export.ts';

export type Cell = string | number | boolean | null;

/** `moment`: milliseconds since 1970; `count`: an integer from 0. */
export type ColumnKind = 'text' | 'count' | 'flag' | 'moment';

export interface Column {
  /** As CSV and SQL have it; JSON in camelCase. */
  readonly name: string;
  readonly kind: ColumnKind;
  readonly of: (row: ExportRow) => Cell;
}

const text = (name: string, of: Column['of']): Column => ({ name, kind: 'text', of });
const count = (name: string, of: Column['of']): Column => ({ name, kind: 'count', of });

/** Who and where, what the gateway says, what it comes to, and where that stands. */
export const columns: readonly Column[] = [
  text('author', ({ settled }) => settled.author),
  text('gateway', ({ settled }) => peerOf(settled.author)),
  text('node', ({ settled }) => settled.node),
  text('run', ({ settled }) => settled.line.run),
  count('serial', ({ settled }) => settled.line.serial),
  count('first', ({ settled }) => settled.line.first),
  text('request', ({ settled }) => settled.line.request),
  text('model', ({ settled }) => settled.line.model),
  text('digest', ({ settled }) => settled.line.digest),
  count('tag_day', ({ settled }) => settled.line.caller.day),
  text('account_tag', ({ settled }) => settled.line.caller.account),
  text('key_tag', ({ settled }) => settled.line.caller.key),
  text('lease_tag', ({ settled }) => settled.line.lease ?? null),
  text('price', ({ settled }) => settled.line.price.id),
  count('price_prompt_micro', ({ settled }) => settled.line.price.prompt),
  count('price_cached_micro', ({ settled }) => settled.line.price.cached),
  count('price_completion_micro', ({ settled }) => settled.line.price.completion),
  { name: 'start', kind: 'moment', of: ({ settled }) => settled.line.startMs },
  count('first_ms', ({ settled }) => settled.line.firstMs),
  count('duration_ms', ({ settled }) => settled.line.durationMs),
  text('outcome', ({ settled }) => settled.line.outcome),
  count('line_prompt_tokens', ({ settled }) => settled.line.promptTokens),
  count('line_cached_tokens', ({ settled }) => settled.line.cachedTokens),
  count('line_completion_tokens', ({ settled }) => settled.line.completionTokens),
  count('node_tokens', ({ settled }) => settled.line.nodeTokens ?? null),
  text('line_payer', ({ settled }) => settled.line.payer),
  text('state', ({ settled }) => settled.state),
  text('refused', ({ refused }) => refused ?? null),
  count('prompt_tokens', ({ settled }) => settled.promptTokens),
  count('cached_tokens', ({ settled }) => settled.cachedTokens),
  count('completion_tokens', ({ settled }) => settled.completionTokens),
  count('amount_micro', ({ settled }) => settled.amountMicro),
  text('payer', ({ settled }) => settled.payer),
  { name: 'billed', kind: 'flag', of: ({ settled }) => settled.isBilled },
  text('epoch', ({ origin }) => origin.epoch),
  count('block', ({ origin }) => origin.block),
  count('entry', ({ origin }) => origin.entry),
  text('list', ({ origin }) => origin.list),
  count('position', ({ origin }) => origin.at),
  count('statement', ({ origin }) => origin.statement),
  text('statement_hash', ({ origin }) => origin.hash),
];

/** `amount_micro` as `amountMicro`. */
export const camelCase = (name: string): string =>
  name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
