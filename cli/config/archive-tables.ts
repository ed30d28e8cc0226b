/** Options of a gateway that keeps the ledger, with or without clients of its own. */

import { z } from 'zod';
import { option } from './option.ts';

export const archiveOptions = {
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
