/** Which node holds the beginning of a request in its memory: remembered from what was sent where, over blocks of bytes (design §5). */

import type { ModelDigest, PeerId } from '../../protocol/ids.ts';

/** The blocks that a request begins with; made once for each request. */
export interface PrefixChain {
  /** Bytes that all its blocks cover together; 0 for a request too short to be worth remembering. */
  readonly bytes: number;
}

/** The memory of one gateway; bounded. Different `scope`s never see each other's. */
export interface PrefixMemory {
  /** @param scope Whose beginnings these are: an account, or all of them where the operator shares. */
  chainOf(scope: string, digest: ModelDigest, body: Uint8Array): PrefixChain;
  /** How many bytes of its beginning each node should hold; nodes that hold nothing are absent. */
  held(chain: PrefixChain): ReadonlyMap<PeerId, number>;
  /** The node works on the request, or has: it holds all of it from now on. */
  note(chain: PrefixChain, peer: PeerId): void;
  /** The node has told that it held less than was thought: that is forgotten. */
  missed(chain: PrefixChain, peer: PeerId): void;
  /** The node's process is another one, or gone: it holds nothing. */
  forget(peer: PeerId): void;
}
