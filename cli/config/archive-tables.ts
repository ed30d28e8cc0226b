/** Options of a gateway that keeps the ledger, with or without clients of its own. */

import { z } from 'zod';
import { parseMicro } from '../../ledger/amounts.ts';
import { budgetMaxMicro } from '../../ledger/money.ts';
import { option } from './option.ts';

const grace = z
  .string()
  .default('0.1')
  .transform((text) => parseMicro(text, budgetMaxMicro))
  .refine((value) => value !== undefined)
  .transform((value) => value as number);

export const archiveOptions = {
  grace: option(grace, {
    flag: '--grace <credits>',
    env: 'HELIXFLOW_GRACE',
    unit: 'credits',
    expected: 'a decimal number of credits, at most six decimals',
    about:
      'What each account that is not strict may spend here in a day (UTC) while nobody can lease its budget; this gateway pays.',
  }),
  http: option(z.boolean().default(true), {
    flag: '--http',
    env: 'HELIXFLOW_HTTP',
    negatable: true,
    about:
      'Clients are served. With --no-http nothing listens for them: an archive, which keeps every feed of the mesh.',
  }),
  retainDays: option(z.int().min(1).max(36_500).optional(), {
    flag: '--retain-days <days>',
    env: 'HELIXFLOW_RETAIN_DAYS',
    unit: 'days',
    otherwise: 'everything stays',
    about:
      'Statements that were countersigned longer ago leave this disk; counters, headers and roots stay. Some gateway of the mesh should keep everything.',
  }),
} as const;
