/** Options of the commands that read and keep the ledger. */

import { z } from 'zod';
import { option } from './option.ts';

const text = z.string().min(1);

export const ledgerVerifyOptions = {
  from: option(text.optional(), {
    flag: '--from <file>',
    env: 'HELIXFLOW_LEDGER_FROM',
    otherwise: 'the data directory',
    about: 'Checks an export (helixflow ledger export --format jsonl --raw) in place of a data directory.',
  }),
} as const;
