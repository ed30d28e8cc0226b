/** Reads decoded messages position by position, each with its type and its bounds. */

import type { Value } from './codec.ts';
import { HelixFlowError } from './errors.ts';

/** Reads the positions of a message one by one, each with its type and bounds. */
export class Reader {
  readonly #values: readonly Value[];
  readonly #what: string;
  #next = 0;

  constructor(value: Value | undefined, what: string) {
    this.#what = what;
    if (!Array.isArray(value)) throw this.#malformed('not an array');
    this.#values = value as readonly Value[];
  }

  #malformed(reason: string): HelixFlowError<'FRAME_MALFORMED'> {
    return new HelixFlowError('FRAME_MALFORMED', { reason: `${this.#what}[${this.#next}]: ${reason}` });
  }

  #take(): Value {
    const value = this.#values[this.#next];
    if (value === undefined) throw this.#malformed('missing');
    return value;
  }

  /** An integer from `min` to `max`. */
  int(max: number = Number.MAX_SAFE_INTEGER, min = 0): number {
    const value = this.#take();
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
      throw this.#malformed(`not an integer from ${min} to ${max}`);
    }
    this.#next += 1;
    return value;
  }

  /** Text of at most `maxChars` UTF-16 units. */
  text(maxChars: number): string {
    const value = this.#take();
    if (typeof value !== 'string' || value.length > maxChars) {
      throw this.#malformed(`not text of at most ${maxChars} characters`);
    }
    this.#next += 1;
    return value;
  }

  /** Bytes, at most `maxBytes`, or exactly `exact`. */
  bytes(maxBytes: number, exact?: number): Uint8Array {
    const value = this.#take();
    if (!(value instanceof Uint8Array) || value.length > maxBytes || (exact !== undefined && value.length !== exact)) {
      throw this.#malformed(`not bytes of ${exact ?? `at most ${maxBytes}`}`);
    }
    this.#next += 1;
    return value;
  }

  /** An array, read by a reader of its own. */
  row(): Reader {
    const row = new Reader(this.#take(), `${this.#what}[${this.#next}]`);
    this.#next += 1;
    return row;
  }

  bool(): boolean {
    const value = this.#take();
    if (typeof value !== 'boolean') throw this.#malformed('not a boolean');
    this.#next += 1;
    return value;
  }

  /** At most `max` items, each read by `read` from a reader of its own array, or from the raw value. */
  list<T>(max: number, read: (value: Value) => T): T[] {
    const value = this.#take();
    if (!Array.isArray(value) || value.length > max) throw this.#malformed(`not a list of at most ${max}`);
    this.#next += 1;
    return (value as readonly Value[]).map(read);
  }

  /** At most `max` integers from 0. */
  ints(max: number): number[] {
    const value = this.#take();
    if (!Array.isArray(value) || value.length > max) throw this.#malformed(`not a list of at most ${max}`);
    for (const item of value as readonly Value[]) {
      if (typeof item !== 'number' || !Number.isSafeInteger(item) || item < 0)
        throw this.#malformed('not a list of integers');
    }
    this.#next += 1;
    return value as number[];
  }

  /** `null`, or what `read` finds at this position. */
  optional<T>(read: (reader: this) => T): T | undefined {
    if (this.#values[this.#next] === null) {
      this.#next += 1;
      return undefined;
    }
    return read(this);
  }

  /** True when positions are left: a newer peer may append some. */
  get hasMore(): boolean {
    return this.#next < this.#values.length;
  }
}
