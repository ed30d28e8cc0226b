/**
 * Blocks by hash, and which peers hold each: bounded, in flat memory that is taken once.
 *
 * Every request leaves some blocks behind; as objects in a Map they would outlive each minor collection, only to die soon after.
 */

/** Peers that one block remembers: the newest. */
export const peersPerBlock = 4;

/** Two generations of blocks; when the newer one is full, the older one is forgotten. Hashes are pairs as of `hashBlocks`. */
export class BlockTable {
  readonly #halfMax: number;
  /** Places of one generation: a power of two, at least twice its blocks. */
  readonly #places: number;
  /** The second number of a hash is never 0: that is a free place. */
  readonly #keysA: Int32Array;
  readonly #keysB: Int32Array;
  /** By place, newest first; 0 is none. */
  readonly #peers: Uint32Array;
  /** Where the newer generation begins, and the older one. */
  #newer = 0;
  #older: number;
  #newerSize = 0;

  constructor(entriesMax: number) {
    this.#halfMax = Math.max(1, Math.floor(entriesMax / 2));
    this.#places = 2 ** Math.ceil(Math.log2(2 * this.#halfMax));
    this.#older = this.#places;
    this.#keysA = new Int32Array(2 * this.#places);
    this.#keysB = new Int32Array(2 * this.#places);
    this.#peers = new Uint32Array(2 * this.#places * peersPerBlock);
  }

  /** @returns the place of a block; −1 for an unknown one. */
  find(a: number, b: number): number {
    const newer = this.#probe(this.#newer, a, b);
    if (this.#keysB[newer] !== 0) return newer;
    const older = this.#probe(this.#older, a, b);
    return this.#keysB[older] === 0 ? -1 : older;
  }

  /** The `nth` newest peer of the block at a place; 0 where there is none, nor any after it. */
  peerAt(place: number, nth: number): number {
    return this.#peers[place * peersPerBlock + nth] ?? 0;
  }

  /** The peer holds the block; it is its newest one. */
  put(a: number, b: number, peer: number): void {
    const first = this.#placeFor(a, b) * peersPerBlock;
    let moved = peer;
    for (let at = first; at < first + peersPerBlock; at += 1) {
      const old = this.#peers[at] ?? 0;
      this.#peers[at] = moved;
      if (old === peer || old === 0) return;
      moved = old;
    }
  }

  /** The peer does not hold the block at a place. */
  remove(place: number, peer: number): void {
    const first = place * peersPerBlock;
    let to = first;
    for (let at = first; at < first + peersPerBlock; at += 1) {
      const held = this.#peers[at] ?? 0;
      if (held !== peer) {
        this.#peers[to] = held;
        to += 1;
      }
    }
    this.#peers.fill(0, to, first + peersPerBlock);
  }

  /** Its place in the newer generation, with what the older one knew of it. */
  #placeFor(a: number, b: number): number {
    let place = this.#probe(this.#newer, a, b);
    if (this.#keysB[place] !== 0) return place;
    if (this.#newerSize >= this.#halfMax) {
      this.#turn();
      place = this.#probe(this.#newer, a, b);
    }
    this.#newerSize += 1;
    this.#keysA[place] = a;
    this.#keysB[place] = b;
    const older = this.#probe(this.#older, a, b);
    if (this.#keysB[older] !== 0) {
      this.#peers.copyWithin(place * peersPerBlock, older * peersPerBlock, (older + 1) * peersPerBlock);
    }
    return place;
  }

  /** Where a block is in a generation, or the free place where it belongs. */
  #probe(generation: number, a: number, b: number): number {
    const mask = this.#places - 1;
    let at = a & mask;
    while (
      this.#keysB[generation + at] !== 0 &&
      (this.#keysB[generation + at] !== b || this.#keysA[generation + at] !== a)
    ) {
      at = (at + 1) & mask;
    }
    return generation + at;
  }

  #turn(): void {
    const free = this.#older;
    this.#older = this.#newer;
    this.#newer = free;
    this.#newerSize = 0;
    this.#keysB.fill(0, free, free + this.#places);
    this.#peers.fill(0, free * peersPerBlock, (free + this.#places) * peersPerBlock);
  }
}
