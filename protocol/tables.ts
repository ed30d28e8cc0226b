/**
 * Tables for what comes and goes with every request.
 *
 * A long-lived Map or Set that is added to and deleted from all the time is rehashed every few calls, and V8 keeps each
 * outgrown table, with all that was in it, alive until the next full collection. Measured on sessions: 4 to 9 MB of
 * finished requests survived every minor collection, and half of the gateway's CPU time was collecting them.
 */

/** Things by a number from 1 to 2^32 − 1, in no order. */
export class NumberTable<T> {
  /** Open addressing with linear probing; 0 is a free place. */
  #keys = new Uint32Array(16);
  #values: (T | undefined)[] = new Array(16).fill(undefined);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(key: number): T | undefined {
    return this.#values[this.#find(key)];
  }

  has(key: number): boolean {
    return this.#keys[this.#find(key)] === key;
  }

  /** Adds or replaces. */
  set(key: number, value: T): void {
    if (2 * (this.#size + 1) > this.#keys.length) this.#grow();
    const at = this.#find(key);
    if (this.#keys[at] === 0) this.#size += 1;
    this.#keys[at] = key;
    this.#values[at] = value;
  }

  /** @returns false when there was nothing. */
  delete(key: number): boolean {
    let hole = this.#find(key);
    if (this.#keys[hole] !== key) return false;
    this.#size -= 1;
    const mask = this.#keys.length - 1;
    // What was pushed past the hole by earlier keys moves back, so that probing still finds it.
    for (let at = (hole + 1) & mask; this.#keys[at] !== 0; at = (at + 1) & mask) {
      const home = (this.#keys[at] ?? 0) & mask;
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      this.#keys[hole] = this.#keys[at] ?? 0;
      this.#values[hole] = this.#values[at];
      hole = at;
    }
    this.#keys[hole] = 0;
    this.#values[hole] = undefined;
    return true;
  }

  /** A copy, safe to walk while the table changes. */
  entries(): (readonly [key: number, value: T])[] {
    const found: (readonly [number, T])[] = [];
    this.#keys.forEach((key, at) => {
      if (key !== 0) found.push([key, this.#values[at] as T]);
    });
    return found.sort(([a], [b]) => a - b);
  }

  clear(): void {
    this.#keys = new Uint32Array(16);
    this.#values = new Array(16).fill(undefined);
    this.#size = 0;
  }

  /** Where `key` is, or the free place where it belongs. */
  #find(key: number): number {
    const mask = this.#keys.length - 1;
    let at = key & mask;
    while (this.#keys[at] !== 0 && this.#keys[at] !== key) at = (at + 1) & mask;
    return at;
  }

  #grow(): void {
    const old = this.entries();
    const length = 2 * this.#keys.length;
    this.#keys = new Uint32Array(length);
    this.#values = new Array(length).fill(undefined);
    this.#size = 0;
    for (const [key, value] of old) this.set(key, value);
  }
}

/**
 * A bounded memory by name that forgets what has not been asked for lately. Holds between `max / 2` and `max` entries once
 * it is full; a look-up of something in use changes nothing.
 */
export class Memory<T> {
  readonly #halfMax: number;
  #recent = new Map<string, T>();
  #older: ReadonlyMap<string, T> = new Map();

  constructor(max: number) {
    this.#halfMax = Math.max(1, Math.floor(max / 2));
  }

  get(name: string): T | undefined {
    const recent = this.#recent.get(name);
    if (recent !== undefined) return recent;
    const older = this.#older.get(name);
    if (older !== undefined) this.set(name, older);
    return older;
  }

  set(name: string, value: T): void {
    if (this.#recent.size >= this.#halfMax && !this.#recent.has(name)) {
      this.#older = this.#recent;
      this.#recent = new Map();
    }
    this.#recent.set(name, value);
  }

  /** Entries held now. */
  get size(): number {
    return new Set([...this.#recent.keys(), ...this.#older.keys()]).size;
  }
}

/** What an item of a `Bag` must carry: the bag's own note, −1 while it is in none. */
export interface BagItem {
  bagIndex: number;
}

/** A set of items that note their own place in it; each is in one bag at most. */
export class Bag<T extends BagItem> {
  readonly #items: T[] = [];

  get size(): number {
    return this.#items.length;
  }

  add(item: T): void {
    if (item.bagIndex < 0) item.bagIndex = this.#items.push(item) - 1;
  }

  /** Does nothing when the item is not in the bag. */
  delete(item: T): void {
    if (this.#items[item.bagIndex] !== item) return;
    const last = this.#items.pop();
    if (last !== undefined && last !== item) {
      this.#items[item.bagIndex] = last;
      last.bagIndex = item.bagIndex;
    }
    item.bagIndex = -1;
  }

  /** A copy, safe to walk while the bag changes. */
  all(): T[] {
    return [...this.#items];
  }
}
