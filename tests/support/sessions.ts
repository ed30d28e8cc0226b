/** A gateway's and a node's session over a channel in memory, with what happened on each written down. */

import type { HelixFlowError } from '../../protocol/errors.ts';
import type { PeerId, ProcessId, RequestId, Tag } from '../../protocol/ids.ts';
import { ourLimits } from '../../protocol/messages/hello.ts';
import type { Delta, Done } from '../../protocol/messages/session.ts';
import type { SessionEvents } from '../../protocol/session/events.ts';
import { watchIntervalMs } from '../../protocol/session/heartbeat.ts';
import type { ServedAttempt } from '../../protocol/session/incoming.ts';
import type { Attempt, AttemptRequest } from '../../protocol/session/outgoing.ts';
import { Session } from '../../protocol/session/session.ts';
import { ms } from '../../protocol/units.ts';
import { channelPair } from './channels.ts';
import { ManualClock } from './manual-clock.ts';

export const gatewayId = '12D3KooWGateway' as PeerId;
export const nodeId = '12D3KooWNode' as PeerId;

const quiet: SessionEvents = {
  tab: () => {},
  started: () => {},
  opened: () => {},
  changed: () => {},
  gateways: () => {},
  suspected: () => {},
  offered: () => {},
  left: () => {},
  closed: () => {},
};

/** One attempt as its caller saw it. */
export interface Seen {
  readonly deltas: Delta[];
  readonly ends: (Done | HelixFlowError)[];
  attempt: Attempt;
}

export interface SessionPair {
  readonly clock: ManualClock;
  readonly gateway: Session;
  readonly node: Session;
  readonly link: ReturnType<typeof channelPair>;
  /** Attempts that the node has received whole. */
  readonly served: ServedAttempt[];
  readonly closed: (HelixFlowError | undefined)[];
  open(body?: Uint8Array): Seen;
}

export const requestOf = (body: Uint8Array): AttemptRequest => ({
  request: 'ab'.repeat(16) as RequestId,
  model: 'm',
  digest: 'cd'.repeat(32) as AttemptRequest['digest'],
  deadlineMs: ms(60_000),
  body,
  serial: 1,
  account: 'ef'.repeat(8) as Tag,
  price: '',
});

/** Both sessions started and settled, dialled by the node. */
export function sessionPair(settled = true): SessionPair {
  const clock = new ManualClock();
  const link = channelPair(nodeId, gatewayId);
  const served: ServedAttempt[] = [];
  const closed: (HelixFlowError | undefined)[] = [];
  const start = { serial: 1, holds: [] };
  const node = new Session(
    link.a,
    clock,
    { self: nodeId, role: 'node', process: '11'.repeat(16) as ProcessId, isOurs: true, start, limits: ourLimits },
    { ...quiet, opened: (_, attempt) => served.push(attempt) },
  );
  const gateway = new Session(
    link.b,
    clock,
    {
      self: gatewayId,
      role: 'gateway',
      process: '22'.repeat(16) as ProcessId,
      isOurs: false,
      start,
      limits: ourLimits,
      idleMs: () => watchIntervalMs(1),
    },
    { ...quiet, closed: (_, error) => closed.push(error) },
  );
  if (settled) link.settle();
  const open = (body = new Uint8Array(3)): Seen => {
    const deltas: Delta[] = [];
    const ends: (Done | HelixFlowError)[] = [];
    const attempt = gateway.open(requestOf(body), {
      delta: (delta) => deltas.push(delta),
      done: (done) => ends.push(done),
      failed: (error) => ends.push(error),
    });
    return { deltas, ends, attempt };
  };
  return { clock, gateway, node, link, served, closed, open };
}

export const doneFields = {
  finish: 'stop',
  promptTokens: 1,
  cachedTokens: 0,
  completionTokens: 1,
  prefillMs: ms(1),
  decodeMs: ms(1),
} as const;
