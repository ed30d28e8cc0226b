/** Options of how a gateway chooses nodes, and how long it waits for them. */

import { z } from 'zod';
import { routings } from '../../gateway/route/plan.ts';
import { option } from './option.ts';
import { duration, durationText } from './values.ts';

/** Longer than a request may take altogether. */
const waitText = durationText(1);

export const routeOptions = {
  routing: option(z.enum(routings).default('prefix'), {
    flag: '--routing <way>',
    env: 'HELIXFLOW_ROUTING',
    about:
      'How nodes are compared: by when first content is expected, counting what they remember of the request; or only by load, or not at all, to measure against.',
  }),
  sharePrefixes: option(z.boolean().default(false), {
    flag: '--share-prefixes',
    env: 'HELIXFLOW_SHARE_PREFIXES',
    about:
      'Requests of all accounts count as one memory of beginnings; by their times, accounts could then learn what others ask.',
  }),
  hedgeShare: option(z.number().min(0).max(0.5).default(0.05), {
    flag: '--hedge-share <share>',
    env: 'HELIXFLOW_HEDGE_SHARE',
    about: 'Late requests that may be sent to a second node, as a share of all requests; 0 for none.',
  }),
  waitingMax: option(z.int().min(1).max(1_000_000).default(1_024), {
    flag: '--waiting-max <count>',
    env: 'HELIXFLOW_WAITING_MAX',
    unit: 'requests',
    about:
      'Requests that may wait for a node at a time; more are refused with 503, or 429 where they are of one account.',
  }),
  waitTimeout: option(duration(1).prefault('10s'), {
    flag: '--wait-timeout <duration>',
    env: 'HELIXFLOW_WAIT_TIMEOUT',
    expected: waitText,
    about: 'How long a request waits for a node, at most.',
  }),
  firstTokenTimeout: option(duration(1).prefault('2m'), {
    flag: '--first-token-timeout <duration>',
    env: 'HELIXFLOW_FIRST_TOKEN_TIMEOUT',
    expected: waitText,
    about:
      'How long one node may take to first content before another one is tried; less where its usual times are known.',
  }),
  gapTimeout: option(duration(1).prefault('4s'), {
    flag: '--gap-timeout <duration>',
    env: 'HELIXFLOW_GAP_TIMEOUT',
    expected: waitText,
    about: 'How long nothing may come of an answer before another node goes on with it.',
  }),
  answerTimeout: option(duration(1).prefault('10m'), {
    flag: '--answer-timeout <duration>',
    env: 'HELIXFLOW_ANSWER_TIMEOUT',
    expected: waitText,
    about: 'How long a request may take altogether.',
  }),
} as const;
