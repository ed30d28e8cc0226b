/** Why a request went where it went: its story, for as long as the gateway that served it remembers. */

import { z } from 'zod';
import { HelixFlowError } from '../../protocol/errors.ts';
import { isRequestId, type RequestId } from '../../protocol/ids.ts';
import type { Trace } from '../route/trace.ts';
import { countField } from './fields.ts';
import { operation, watchers } from './operation.ts';

const answerPrefix = 'chatcmpl-';
const requestText = 'the id of a request: 32 hex characters, also behind `chatcmpl-`';

/** As `x-request-id` has it, or as the `id` of an answer. */
const requestField = z
  .string()
  .max(64)
  .transform((text) => (text.startsWith(answerPrefix) ? text.slice(answerPrefix.length) : text))
  .refine(isRequestId, `expected ${requestText}`)
  .transform((text) => text as RequestId)
  .meta({ description: requestText });

/** More would not fit into one answer. */
const storiesMax = 1_000;
const storiesDefault = 20;

export const requestOperations = {
  'requests.list': operation({
    method: 'GET',
    path: 'requests',
    roles: watchers,
    about: 'Tells the stories of the newest requests, the newest first. No prompt, no answer, no key.',
    input: z.strictObject({
      limit: countField(1, storiesMax).default(storiesDefault),
    }),
    run: ({ traces }, { limit }): readonly Trace[] => traces?.newest(limit) ?? [],
  }),
  'requests.why': operation({
    method: 'GET',
    path: 'requests/:request',
    roles: watchers,
    about:
      'Tells where one of the newest requests went and why: candidates with their scores, refusals, and what happened. No prompt, no answer, no key.',
    input: z.strictObject({ request: requestField }),
    run: ({ traces }, { request }): Trace => {
      const trace = traces?.get(request);
      if (trace === undefined) throw new HelixFlowError('REQUEST_UNKNOWN', { request });
      return trace;
    },
  }),
};
