/** What the type of a frame says about who may send it, and about the link it came on. */

import type { Role } from '../grants.ts';
import type { SessionFrame } from '../messages/session.ts';

/** Frames that come of the peer's own accord, and so prove nothing about what we send. */
export const unasked: ReadonlySet<SessionFrame['type']> = new Set([
  'ping',
  'pong',
  'load',
  'offer',
  'gateways',
  'open',
  'body',
  'cancel',
  'statement',
  'countersign',
  'claim',
]);

/** Frames that only a node, or only a gateway, may send. */
export const senderOf: Readonly<Partial<Record<SessionFrame['type'], Role>>> = {
  offer: 'node',
  load: 'node',
  delta: 'node',
  done: 'node',
  fail: 'node',
  cancelled: 'node',
  offered: 'gateway',
  gateways: 'gateway',
  open: 'gateway',
  body: 'gateway',
  cancel: 'gateway',
  credit: 'gateway',
  statement: 'gateway',
  countersign: 'node',
  claim: 'node',
};
