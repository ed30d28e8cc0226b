/** Runs identify on an admitted connection: what puts the peer into Kademlia's table. */

import type { Identify } from '@libp2p/identify';
import type { Clock, Log } from '../../ports.ts';
import { ms } from '../../units.ts';
import type { PeerConnection } from './connection.ts';

const timeoutMs = 5_000;
const retryMs = 1_000;
const retryMaxMs = 30_000;

/**
 * Identifies the peer behind `connection`, and tries again while that fails and the connection is open: the other side
 * may admit us later than we admitted it, and Kademlia never asks again for a peer that it missed.
 */
export async function introduce(
  deps: { readonly clock: Clock; readonly log: Log },
  service: Identify,
  connection: PeerConnection,
): Promise<void> {
  for (let delayMs = retryMs; connection.isOpen; delayMs = Math.min(retryMaxMs, delayMs * 2)) {
    try {
      using deadline = deps.clock.deadline(ms(timeoutMs));
      await service.identify(connection.libp2p, { signal: deadline.signal });
      return;
    } catch (error) {
      const reason = error instanceof Error ? error.name : 'unknown';
      deps.log.debug('network.not-identified', { peer: connection.peer, reason });
    }
    await deps.clock.sleep(ms(delayMs));
  }
}
