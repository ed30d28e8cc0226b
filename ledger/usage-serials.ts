/** Things by serial: numbers that come almost in a row, and leave in about the order in which they came. */

const chunkSize = 64;

interface Chunk<T> {
  readonly things: (T | undefined)[];
  size: number;
}

/** A map of chunks: a window over serials moves on without rehashing each of them. */
export class SerialTable<T> {
  readonly #chunks = new Map<number, Chunk<T>>();

  get(serial: number): T | undefined {
    return this.#chunks.get(Math.floor(serial / chunkSize))?.things[serial % chunkSize];
  }

  has(serial: number): boolean {
    return this.get(serial) !== undefined;
  }

  set(serial: number, thing: T): void {
    const number = Math.floor(serial / chunkSize);
    let chunk = this.#chunks.get(number);
    if (chunk === undefined) {
      chunk = { things: new Array(chunkSize).fill(undefined), size: 0 };
      this.#chunks.set(number, chunk);
    }
    const at = serial % chunkSize;
    if (chunk.things[at] === undefined) chunk.size += 1;
    chunk.things[at] = thing;
  }

  delete(serial: number): void {
    const number = Math.floor(serial / chunkSize);
    const chunk = this.#chunks.get(number);
    const at = serial % chunkSize;
    if (chunk?.things[at] === undefined) return;
    chunk.things[at] = undefined;
    chunk.size -= 1;
    if (chunk.size === 0) this.#chunks.delete(number);
  }

  /** By serial. */
  entries(): (readonly [serial: number, thing: T])[] {
    const chunks = [...this.#chunks].sort(([a], [b]) => a - b);
    return chunks.flatMap(([number, { things }]) =>
      things.flatMap((thing, at) => (thing === undefined ? [] : [[number * chunkSize + at, thing] as const])),
    );
  }
}
