/** A store in memory, for tests of what sits on one. */

import type { Store, StoreOp, StoreRange } from '../../protocol/ports.ts';

const compare = (a: Uint8Array, b: Uint8Array): number => Buffer.compare(a, b);

export class MemoryStore implements Store {
  readonly #entries = new Map<string, readonly [Uint8Array, Uint8Array]>();

  get size(): number {
    return this.#entries.size;
  }

  get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return Promise.resolve(this.#entries.get(Buffer.from(key).toString('hex'))?.[1]);
  }

  async *range({ gte, lt, limit = Number.POSITIVE_INFINITY, reverse = false }: StoreRange) {
    const found = [...this.#entries.values()]
      .filter(([key]) => compare(key, gte) >= 0 && compare(key, lt) < 0)
      .sort(([a], [b]) => (reverse ? compare(b, a) : compare(a, b)));
    yield* found.slice(0, limit);
  }

  batch(ops: readonly StoreOp[]): Promise<void> {
    for (const op of ops) {
      const key = Buffer.from(op.key).toString('hex');
      if (op.type === 'put') this.#entries.set(key, [op.key, op.value]);
      else this.#entries.delete(key);
    }
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
