/** Lists in pieces: sorted by id, a bounded number at a time. */

import { z } from 'zod';
import { countField } from './fields.ts';

/** One piece of a list. */
export interface Page<Row> {
  readonly data: readonly Row[];
  /** More follow; ask again with `after` set to the last id of these. */
  readonly hasMore: boolean;
}

const idMaxChars = 64;
export const pageFields = {
  limit: countField(1, 10_000).default(1_000),
  after: z.string().min(1).max(idMaxChars).optional(),
};
export const pageInput = z.strictObject(pageFields);

/** The rows after `after`, by `idOf` in the order of code units. */
export function pageOf<Row>(
  rows: readonly Row[],
  idOf: (row: Row) => string,
  { limit, after }: { readonly limit: number; readonly after?: string | undefined },
): Page<Row> {
  const byId = (a: Row, b: Row): number => (idOf(a) < idOf(b) ? -1 : idOf(a) > idOf(b) ? 1 : 0);
  const rest = rows.filter((row) => after === undefined || idOf(row) > after).sort(byId);
  return { data: rest.slice(0, limit), hasMore: rest.length > limit };
}
