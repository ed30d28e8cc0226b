/** The ledger as this gateway holds it, for whoever audits it: the rows of its feeds as they lie on disk. */

import { z } from 'zod';
import { feedKeys } from '../../ledger/feed-rows.ts';
import { usageDimensions } from '../../ledger/usage.ts';
import { fromHex, toBase64Url, toHex } from '../../protocol/crypto.ts';
import type { AuthorId, EpochId } from '../../protocol/ids.ts';
import { countField, noInput } from './fields.ts';
import { operation, watchers } from './operation.ts';
import { recordsOf } from './records.ts';

/** A row of a feed: its key as hex, its value as base64url. */
export type RowView = readonly [key: string, value: string];

const keyMaxBytes = 64;
const keyField = z
  .string()
  .regex(new RegExp(`^([0-9a-f]{2}){1,${keyMaxBytes}}$`), `expected 1 to ${keyMaxBytes} bytes as lower-case hex`)
  .meta({ description: `1 to ${keyMaxBytes} bytes as lower-case hex` });

/** Also as the text of a query. */
const flagField = z
  .union([z.boolean(), z.enum(['true', 'false']).transform((text) => text === 'true')])
  .meta({ description: '`true` or `false`' });

/** How far an epoch is held without a hole. */
export interface HeadView {
  readonly author: AuthorId;
  readonly epoch: EpochId;
  readonly generation: number;
  readonly number: number;
}

/** Whoever reads all of it shall not keep clients waiting: a page takes a few milliseconds. */
const pageMaxBytes = 524_288;
const pageRowsMax = 10_000;

/** The later, or the earlier, of two keys. */
const later = (a: string, b: string): string => (a > b ? a : b);
const earlier = (a: string, b: string): string => (a < b ? a : b);
const [lowest, highest] = [toHex(feedKeys.gte), toHex(feedKeys.lt)];

export const ledgerOperations = {
  'ledger.counters': operation({
    method: 'GET',
    path: 'ledger/counters',
    roles: watchers,
    about:
      'Shows what this gateway has counted on one day, with everything that tells rows apart; without a day, which there are.',
    input: z.strictObject({ day: countField(0, 10_000_000).optional() }),
    run: (context, { day }) => {
      const { usage } = recordsOf(context);
      const days = usage.rollUp({}, ['day']).map(([key]) => key.day);
      if (day === undefined) return { days, rows: [] };
      return { days, rows: usage.rollUp({ sinceDay: day, untilDay: day + 1 }, usageDimensions) };
    },
  }),
  'ledger.heads': operation({
    method: 'GET',
    path: 'ledger/heads',
    roles: watchers,
    about: 'Shows how far each epoch of each feed is held here.',
    input: noInput,
    run: ({ ledger }) => ({
      data: ledger
        .heads()
        .map(({ author, epoch, generation, number }): HeadView => ({ author, epoch, generation, number })),
    }),
  }),
  'ledger.rows': operation({
    method: 'GET',
    path: 'ledger/rows',
    roles: watchers,
    about:
      'Gives the rows of the feeds as they lie on disk, so that whoever does not trust this gateway can check them.',
    input: z.strictObject({
      gte: keyField.default(lowest),
      lt: keyField.default(highest),
      limit: countField(1, pageRowsMax).default(pageRowsMax),
      reverse: flagField.default(false),
    }),
    run: async ({ feeds }, { gte, lt, limit, reverse }) => {
      const range = { gte: fromHex(later(gte, lowest)), lt: fromHex(earlier(lt, highest)), limit, reverse };
      const rows: RowView[] = [];
      let bytes = 0;
      for await (const [key, value] of feeds.range(range)) {
        if (bytes > 0 && bytes + value.length > pageMaxBytes) return { rows, hasMore: true };
        bytes += key.length + value.length;
        rows.push([toHex(key), toBase64Url(value)]);
      }
      return { rows, hasMore: rows.length === limit };
    },
  }),
};
