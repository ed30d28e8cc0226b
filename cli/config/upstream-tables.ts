/** Options of a node that fronts a server which already runs. */

import { z } from 'zod';
import { option } from './option.ts';
import { httpUrl, httpUrlText } from './values.ts';

const text = z.string().min(1);

export const upstreamOptions = {
  upstream: option(httpUrl.optional(), {
    flag: '--upstream <url>',
    env: 'HELIXFLOW_NODE_UPSTREAM',
    expected: httpUrlText,
    otherwise: 'none',
    about: 'OpenAI-compatible server that already runs, to be served in place of a model file.',
  }),
  upstreamKeyFile: option(text.optional(), {
    flag: '--upstream-key-file <file>',
    env: 'HELIXFLOW_NODE_UPSTREAM_KEY_FILE',
    otherwise: 'no key',
    about: 'File whose first line is the key for the upstream server.',
  }),
  upstreamContinuation: option(z.enum(['auto', 'tokens', 'text', 'none']).default('auto'), {
    flag: '--upstream-continuation <way>',
    env: 'HELIXFLOW_NODE_UPSTREAM_CONTINUATION',
    about:
      'How the upstream server goes on with an answer that another node began; auto finds out, see docs/upstreams.md.',
  }),
  digest: option(
    z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .optional(),
    {
      flag: '--digest <hex>',
      env: 'HELIXFLOW_NODE_DIGEST',
      expected: '64 lower-case hex characters',
      otherwise: 'a hash of owner, URL and model id',
      about: 'What the model behind the upstream server is; marked as declared.',
    },
  ),
} as const;

export const upstreamKey = {
  upstreamKey: option(text.optional(), {
    flag: '',
    env: 'HELIXFLOW_NODE_UPSTREAM_KEY',
    otherwise: 'no key',
    about: 'Key for the upstream server; no flag, since arguments are visible to other users.',
    secret: true,
  }),
} as const;
