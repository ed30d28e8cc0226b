/** Request ids, from chance drawn in bulk: one draw per request would cost more than the rest of the id. */

import { toHex } from '../../protocol/crypto.ts';
import type { RequestId } from '../../protocol/ids.ts';
import type { Random } from '../../protocol/ports.ts';

const idBytes = 16;
const idsPerDraw = 256;

/** A source of ids, each used once. */
export function requestIds(random: Random): () => RequestId {
  let pool = '';
  let at = 0;
  return () => {
    if (at >= pool.length) {
      pool = toHex(random.bytes(idBytes * idsPerDraw));
      at = 0;
    }
    at += idBytes * 2;
    return pool.slice(at - idBytes * 2, at) as RequestId;
  };
}
