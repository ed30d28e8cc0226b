/** What the tab with a gateway hears of an attempt when it begins. */

import type { NodeTabs, OpenWork } from '../ledger/work.ts';
import { countedWithin } from '../protocol/counting.ts';
import { assert } from '../protocol/invariant.ts';
import type { ServedAttempt } from '../protocol/session/incoming.ts';
import type { Session } from '../protocol/session/session.ts';
import type { Asked } from './asked.ts';

/** @throws HelixFlowError PROTOCOL_VIOLATION where the gateway names two attempts alike. */
export function beginWork(
  tabs: Pick<NodeTabs, 'begin'>,
  session: Session,
  attempt: ServedAttempt,
  { chatBytes, tokensLeft }: Pick<Asked, 'chatBytes' | 'tokensLeft'>,
): OpenWork {
  const { peer, peerProcess } = session;
  const { serial, request, model, digest, price } = attempt.open;
  assert(peerProcess !== undefined, 'an attempt before its session has started');
  return tabs.begin({
    gateway: peer,
    run: peerProcess,
    serial,
    request,
    model,
    digest,
    price,
    bodyBytes: chatBytes,
    sent: () => countedWithin(attempt.sent(), tokensLeft),
    acknowledgedTokens: () => Math.min(attempt.acknowledgedTokens(), tokensLeft ?? Number.POSITIVE_INFINITY),
  });
}
