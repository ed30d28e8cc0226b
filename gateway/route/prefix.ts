/** Which node holds the beginning of a request in its memory: remembered from what was sent where, over blocks of bytes (design §5). */

import type { ModelDigest, PeerId } from '../../protocol/ids.ts';
import type { Random } from '../../protocol/ports.ts';
import { blockEnd, hashBlocks, type Lanes, laneText } from './prefix-blocks.ts';
import { BlockTable, peersPerBlock } from './prefix-table.ts';

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

export interface PrefixDeps {
  /** Salts the hashes, so that nobody outside can tell which bodies share one. */
  readonly random: Pick<Random, 'bytes'>;
}

export interface PrefixOptions {
  /** Blocks remembered. */
  readonly entriesMax?: number;
}

/** A shorter body takes less time to compute than it is worth to look for. */
export const bodyMinBytes = 512;
/** Nodes remembered; of more, the one that was first used the longest ago is forgotten. */
const peersMax = 4_096;

class Chain implements PrefixChain {
  readonly bytes: number;
  /** Of each block, two numbers. */
  readonly hashes: readonly number[];

  constructor(hashes: readonly number[]) {
    this.hashes = hashes;
    this.bytes = hashes.length === 0 ? 0 : blockEnd(hashes.length / 2 - 1);
  }
}

const noChain = new Chain([]);
const nothingHeld: ReadonlyMap<PeerId, number> = new Map();

class BlockMemory implements PrefixMemory {
  readonly #seed: Lanes;
  readonly #entriesMax: number;
  /** Made when there is something to remember. */
  #table: BlockTable | undefined;
  /** Nodes by number; a number is never used again, so that blocks may keep those that are forgotten. */
  readonly #numbers = new Map<PeerId, number>();
  readonly #peers = new Map<number, PeerId>();
  #lastNumber = 0;

  constructor(seed: Lanes, entriesMax: number) {
    this.#seed = seed;
    this.#entriesMax = entriesMax;
  }

  chainOf(scope: string, digest: ModelDigest, body: Uint8Array): PrefixChain {
    if (body.length < bodyMinBytes) return noChain;
    return new Chain(hashBlocks(laneText(laneText(this.#seed, scope), digest), body));
  }

  held(chain: PrefixChain): ReadonlyMap<PeerId, number> {
    const table = this.#table;
    if (table === undefined) return nothingHeld;
    const { hashes } = chain as Chain;
    let held: Map<PeerId, number> | undefined;
    for (let at = hashes.length - 2; at >= 0; at -= 2) {
      const place = table.find(hashes[at] ?? 0, hashes[at + 1] ?? 0);
      if (place < 0) continue;
      for (let nth = 0; nth < peersPerBlock; nth += 1) {
        const number = table.peerAt(place, nth);
        if (number === 0) break;
        const peer = this.#peers.get(number);
        if (peer === undefined || held?.has(peer) === true) continue;
        held ??= new Map();
        held.set(peer, blockEnd(at / 2));
      }
      if (held?.size === this.#peers.size) break;
    }
    return held ?? nothingHeld;
  }

  note(chain: PrefixChain, peer: PeerId): void {
    const { hashes } = chain as Chain;
    if (hashes.length === 0) return;
    this.#table ??= new BlockTable(this.#entriesMax);
    const number = this.#numberOf(peer);
    // The beginning last: it is shared most often, so it should be forgotten last.
    for (let at = hashes.length - 2; at >= 0; at -= 2) this.#table.put(hashes[at] ?? 0, hashes[at + 1] ?? 0, number);
  }

  missed(chain: PrefixChain, peer: PeerId): void {
    const table = this.#table;
    const number = this.#numbers.get(peer);
    if (table === undefined || number === undefined) return;
    const { hashes } = chain as Chain;
    for (let at = 0; at < hashes.length; at += 2) {
      const place = table.find(hashes[at] ?? 0, hashes[at + 1] ?? 0);
      if (place >= 0) table.remove(place, number);
    }
  }

  forget(peer: PeerId): void {
    const number = this.#numbers.get(peer);
    if (number === undefined) return;
    this.#numbers.delete(peer);
    this.#peers.delete(number);
  }

  #numberOf(peer: PeerId): number {
    const known = this.#numbers.get(peer);
    if (known !== undefined) return known;
    const [oldest] = this.#numbers.keys();
    if (this.#numbers.size >= peersMax && oldest !== undefined) this.forget(oldest);
    this.#lastNumber += 1;
    this.#numbers.set(peer, this.#lastNumber);
    this.#peers.set(this.#lastNumber, peer);
    return this.#lastNumber;
  }
}

/** Remembers nothing at first. */
export function createPrefixMemory({ random }: PrefixDeps, { entriesMax = 65_536 }: PrefixOptions = {}): PrefixMemory {
  const salt = new DataView(random.bytes(8).slice().buffer);
  return new BlockMemory([salt.getInt32(0), salt.getInt32(4)], entriesMax);
}
