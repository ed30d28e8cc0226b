/** Options of the commands that read and keep the ledger. */

import { z } from 'zod';
import { argument, option } from './option.ts';
import { span, spanText } from './values.ts';

const text = z.string().min(1);
const postgresUrl = /^postgres(ql)?:\/\/./;

export const ledgerVerifyOptions = {
  from: option(text.optional(), {
    flag: '--from <file>',
    env: 'HELIXFLOW_LEDGER_FROM',
    otherwise: 'the data directory',
    about: 'Checks an export made with --raw, or a backup, in place of a data directory; no directory is needed.',
  }),
  mesh: option(
    z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .optional(),
    {
      flag: '--mesh <id>',
      env: 'HELIXFLOW_LEDGER_MESH',
      expected: 'a mesh id: 64 hex characters',
      otherwise: 'whichever mesh the file says it is of',
      about: 'The only mesh that the file may be of.',
    },
  ),
} as const;

const moments = {
  since: option(span.optional(), {
    flag: '--since <time>',
    env: 'HELIXFLOW_LEDGER_SINCE',
    expected: spanText,
    otherwise: 'the beginning',
    about: 'Only attempts that began from then on, by UTC; with files.',
  }),
  until: option(span.optional(), {
    flag: '--until <time>',
    env: 'HELIXFLOW_LEDGER_UNTIL',
    expected: spanText,
    otherwise: 'now',
    about: 'Only attempts that began before then, or before the end of that day or month; with files.',
  }),
} as const;

export const ledgerExportOptions = {
  format: option(z.enum(['csv', 'jsonl']).default('csv'), {
    flag: '--format <kind>',
    env: 'HELIXFLOW_LEDGER_FORMAT',
    about: 'csv: comma-separated values; jsonl: one JSON object a line.',
  }),
  ...moments,
  out: option(text.default('-'), {
    flag: '--out <file>',
    env: 'HELIXFLOW_LEDGER_OUT',
    about: 'A new file to write to; - is stdout.',
  }),
  raw: option(z.boolean().default(false), {
    flag: '--raw',
    env: 'HELIXFLOW_LEDGER_RAW',
    about: 'With jsonl: the signed blocks, too, so that helixflow ledger verify --from can check the file alone.',
  }),
  to: option(z.string().regex(postgresUrl).max(4_096).optional(), {
    flag: '--to <url>',
    env: 'HELIXFLOW_LEDGER_TO',
    expected: 'a URL such as postgres://user@host/database',
    otherwise: 'a file or stdout',
    about: 'A PostgreSQL database, in place of a file; what it has already is not sent again.',
    secret: true,
  }),
  follow: option(z.boolean().default(false), {
    flag: '--follow',
    env: 'HELIXFLOW_LEDGER_EXPORT_FOLLOW',
    about: 'With --to: goes on while a daemon holds the directory, until it is interrupted.',
  }),
} as const;

export const ledgerTailOptions = {
  lines: option(z.int().min(1).max(10_000).default(20), {
    flag: '-n, --lines <count>',
    env: 'HELIXFLOW_LEDGER_LINES',
    unit: 'lines',
    about: 'How many of the newest attempts are shown.',
  }),
  follow: option(z.boolean().default(false), {
    flag: '--follow',
    env: 'HELIXFLOW_LEDGER_FOLLOW',
    about: 'Shows further ones as they are stated, while a daemon holds the directory, until it is interrupted.',
  }),
} as const;

export const ledgerBackupOptions = {
  file: argument(text, { flag: '<file>', expected: 'a path', about: 'The new file.' }),
} as const;

export const ledgerRestoreOptions = {
  file: argument(text, { flag: '<file>', expected: 'a path', about: 'A backup, or an export made with --raw.' }),
} as const;

export const ledgerReconcileOptions = {
  // A URL of another kind may hold a password: it is no file.
  with: option(
    text
      .max(4_096)
      .refine((value) => !value.includes('://') || postgresUrl.test(value))
      .optional(),
    {
      flag: '--with <url|file>',
      env: 'HELIXFLOW_LEDGER_WITH',
      expected: 'a URL such as postgres://user@host/database, or a CSV or JSON lines file',
      otherwise: 'only the daemon’s counters',
      about:
        'What else the feeds are compared with: a database that ledger export writes, or what a provider has written down.',
      secret: true,
    },
  ),
  ...moments,
} as const;

/** By command, in the order of the documentation. */
export const ledgerTables = {
  'ledger status': {},
  'ledger verify': ledgerVerifyOptions,
  'ledger tail': ledgerTailOptions,
  'ledger export': ledgerExportOptions,
  'ledger reconcile': ledgerReconcileOptions,
  'ledger backup': ledgerBackupOptions,
  'ledger restore': ledgerRestoreOptions,
} as const;
