/** `GET /v1/usage` over HTTP: the caller's own usage, asked for a bounded number of times. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Usage } from '../../ledger/usage.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { assert } from '../../protocol/invariant.ts';
import type { Clock } from '../../protocol/ports.ts';
import { Memory } from '../../protocol/tables.ts';
import { Window } from '../access/window.ts';
import type { Owners } from '../admin/owners.ts';
import { dimensionsOf, parseUsageQuery, usageFilterFor, usagePage } from '../openai/usage.ts';
import { type Responding, respond } from './respond.ts';
import { routes } from './routes.ts';

/** What usage is read from. */
export interface UsageSource {
  readonly usage: Pick<Usage, 'rollUp'>;
  readonly owners: Owners;
}

const nobody = (): boolean => false;
/** For a gateway that keeps none. */
export const noRecords: UsageSource = {
  usage: { rollUp: () => [] },
  owners: {
    learn: () => Promise.resolve(),
    accountOf: () => undefined,
    keyOf: () => undefined,
    isAccount: () => nobody,
    isKey: () => nobody,
  },
};

/** A query looks through the sums of whole days, which takes far longer than most requests at this door. */
const queriesPerMinute = 30;
/** Keys whose queries are counted; about 0.6 kB each. */
const countedMax = 4_096;

/** Answers about a key are for its bearer alone. */
const privately = { 'cache-control': 'no-store' } as const;

/** Counts queries by key. @returns what refuses one too many. */
function createCounter(clock: Pick<Clock, 'nowMs'>): (key: string) => void {
  const windows = new Memory<Window>(countedMax);
  return (key) => {
    const window = windows.get(key) ?? new Window();
    windows.set(key, window);
    const nowMs = clock.nowMs();
    if (window.sum(nowMs) >= queriesPerMinute) {
      const retryAfterMs = Math.ceil(window.untilAtMost(nowMs, queriesPerMinute - 1));
      const limited = { limit: queriesPerMinute, unit: 'usage queries per minute', scope: 'key', retryAfterMs };
      throw new HelixFlowError('RATE_LIMITED', limited);
    }
    window.add(nowMs, 1);
  };
}

/** Adds the routes of usage: this gateway's, and the same under the path that OpenAI's clients know. */
export function addUsage(
  app: FastifyInstance,
  { usage, owners }: UsageSource,
  { clock, responding }: { readonly clock: Clock; readonly responding: Responding },
): void {
  const count = createCounter(clock);
  const serve = async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    const { grant: caller, exchange } = request;
    assert(caller !== undefined, 'the guard has let this request pass');
    count(`${caller.issuer}${caller.keyId}`);
    const { url = '' } = request.raw;
    const cut = url.indexOf('?');
    const query = parseUsageQuery(cut < 0 ? '' : url.slice(cut + 1), clock.wallMs());
    const rows = usage.rollUp(usageFilterFor(query, caller, owners), dimensionsOf(query));
    if (query.scope === 'account' && query.groupBy.has('api_key_id')) {
      await owners.learn(
        rows.map(([key]) => key),
        caller.account,
      );
    }
    const body = usagePage(query, caller, rows, owners);
    reply.hijack();
    respond(exchange, { status: 200, body, headers: privately }, responding);
  };
  app.get(routes.usage, serve);
  app.get(routes.openaiUsage, serve);
}
