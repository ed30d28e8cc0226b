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
} as const;
