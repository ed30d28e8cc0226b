/** Request ids, from chance drawn in bulk: one draw per request would cost more than the rest of the id. */

import { toHex } from '../../protocol/crypto.ts';
import type { RequestId } from '../../protocol/ids.ts';
import type { Random } from '../../protocol/ports.ts';

const idBytes = 16;
const idsPerDraw = 256;

/** A source of ids, each used once. */
export function requestIds(random: Random): () => RequestId {
  let pool: Uint8Array = new Uint8Array(0);
  let at = 0;
  return () => {
    if (at >= pool.length) {
      pool = random.bytes(idBytes * idsPerDraw);
      at = 0;
    }
    at += idBytes;
    // Not cut out of one long text: each id would keep all of that in memory, and be slow to read.
    return toHex(pool, at - idBytes, at) as RequestId;
  };
}
