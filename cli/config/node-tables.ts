/** Options of a node beside its engines, and of the commands that end daemons. */

import { z } from 'zod';
import { option } from './option.ts';
import { duration, durationText } from './values.ts';

/** What the synthetic engine pretends beside its pace. */
export const syntheticOptions = {
  prefillTokensPerSecond: option(z.number().positive().max(10_000_000).optional(), {
    flag: '--prefill-tokens-per-second <rate>',
    env: 'HELIXFLOW_NODE_PREFILL_TOKENS_PER_SECOND',
    unit: 'tokens/s',
    otherwise: 'prompts take no time',
    about: 'Pace at which the synthetic engine reads each prompt.',
  }),
  cacheTokens: option(z.int().min(0).max(1_000_000_000).optional(), {
    flag: '--cache-tokens <count>',
    env: 'HELIXFLOW_NODE_CACHE_TOKENS',
    unit: 'tokens',
    otherwise: 'none',
    about: 'Prompt tokens that the synthetic engine remembers, and does not read again.',
  }),
} as const;

/** Where a node stands. */
export const placeOptions = {
  region: option(
    z
      .string()
      .regex(/^[a-z0-9-]{1,32}$/)
      .optional(),
    {
      flag: '--region <name>',
      env: 'HELIXFLOW_NODE_REGION',
      expected: 'at most 32 of a-z, 0-9 and -',
      otherwise: 'none is told',
      about: 'Where the node stands, as the mesh’s operators call it: requests may ask for it.',
    },
  ),
} as const;

/** Options of the commands that end a daemon. */
export const drainOptions = {
  grace: option(duration(1).optional(), {
    flag: '--grace <duration>',
    env: 'HELIXFLOW_DRAIN_GRACE',
    expected: durationText(1),
    otherwise: 'the --drain that the daemon was started with',
    about: 'How long answers under way may go on.',
  }),
  now: option(z.boolean().default(false), {
    flag: '--now',
    env: 'HELIXFLOW_DRAIN_NOW',
    about: 'Waits for no answer: nodes hand theirs over at once.',
  }),
} as const;
