/** The frames of `/helixflow/reach/1`: a peer asks another whether the addresses that it announces can be dialled. */

import { decodeValue, encodeValue } from '../codec.ts';
import { HelixFlowError } from '../errors.ts';
import { limits } from '../limits.ts';
import { Reader } from '../reader.ts';

/** Any member opens it to a gateway; one `try` and one `tried` on each stream. */
export const REACH_PROTOCOL = '/helixflow/reach/1';
/** Frames on it are no longer. */
export const reachFrameMaxBytes = 4_096;

/** Asks to dial the sender at these addresses, without the peer id. */
export interface ReachTry {
  readonly type: 'try';
  readonly addresses: readonly string[];
}

/** Those of them at which the sender answered, and proved who it is. */
export interface ReachTried {
  readonly type: 'tried';
  readonly addresses: readonly string[];
}

/** What travels on it. */
export type ReachFrame = ReachTry | ReachTried;

const types = ['try', 'tried'] as const;

/** As it leaves, before framing. */
export const encodeReachFrame = ({ type, addresses }: ReachFrame): Uint8Array =>
  encodeValue([types.indexOf(type), addresses]);

/**
 * Undefined for a frame of a later version.
 * @throws HelixFlowError FRAME_MALFORMED
 */
export function parseReachFrame(bytes: Uint8Array): ReachFrame | undefined {
  const reader = new Reader(decodeValue(bytes), 'reach');
  const type = types[reader.int()];
  if (type === undefined) return undefined;
  const addresses = reader.list(limits.peerAddressesMax, (value) => {
    if (typeof value === 'string' && value.length <= limits.addressMaxChars) return value;
    throw new HelixFlowError('FRAME_MALFORMED', { reason: `${type}: not an address` });
  });
  return { type, addresses };
}
