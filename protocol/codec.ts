/** Canonical CBOR (RFC 8949 §4.2) cut down to what messages are made of: one encoding for each value, and no other is read. */

import { HelixFlowError } from './errors.ts';
import { assert } from './invariant.ts';

/** What messages are made of. Numbers are integers within ±(2^53 − 1); positions carry meaning, so there are no maps. */
export type Value = number | string | boolean | null | Uint8Array | readonly Value[];

/** Arrays within arrays. */
const nestingMax = 8;

const kinds = { unsigned: 0, negative: 1, bytes: 2, text: 3, array: 4 } as const;
const simple = { false: 0xf4, true: 0xf5, null: 0xf6 } as const;
const utf8 = new TextEncoder();
const utf8Strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Up to this many bytes a loop reads and writes ASCII faster than a call out of JavaScript does. */
const shortText = 32;
/** Up to this many bytes a loop copies faster than a call does. */
const shortBytes = 64;
/** Nothing can be written to it, so all that are empty are the same. */
const noBytes = new Uint8Array(0);
/** Arrays up to this length are made at once; longer ones only as items come, since a length is quickly said. */
const smallArray = 64;

/** Values are encoded one behind the other into a slab and leave as views of it: small buffers of their own cost more. */
const slabBytes = 32_768;
let slab = new Uint8Array(slabBytes);
let start = 0;
let end = 0;

/** Makes room for `count` bytes, moving what is begun to a new slab where this one is full. */
function reserve(count: number): void {
  if (end + count <= slab.length) return;
  const begun = slab.subarray(start, end);
  slab = new Uint8Array(Math.max(slabBytes, 2 * (begun.length + count)));
  slab.set(begun);
  start = 0;
  end = begun.length;
}

/** Bytes of a head after its first. */
const extraBytes = (value: number): number =>
  value < 24 ? 0 : value < 0x100 ? 1 : value < 0x1_0000 ? 2 : value < 0x1_0000_0000 ? 4 : 8;

const extraCodes: Readonly<Record<number, number>> = { 1: 24, 2: 25, 4: 26, 8: 27 };

function writeHead(kind: number, value: number): void {
  reserve(9);
  if (value < 24) {
    slab[end++] = (kind << 5) | value;
    return;
  }
  const extra = extraBytes(value);
  slab[end++] = (kind << 5) | (extraCodes[extra] ?? value);
  let rest = value;
  for (let at = end + extra - 1; at >= end; at -= 1) {
    slab[at] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  end += extra;
}

/** @returns false where some of it is not ASCII; then nothing counts as written. */
function writeShort(text: string): boolean {
  const { length } = text;
  // As much as `writeHead` asks for, so that it moves nothing away from under the text.
  reserve(9 + length);
  const head = 1 + extraBytes(length);
  for (let at = 0; at < length; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit >= 0x80) return false;
    slab[end + head + at] = unit;
  }
  writeHead(kinds.text, length);
  end += length;
  return true;
}

/** Writes the text first and its head before it, moving the text where the head turns out longer than for ASCII. */
function writeText(text: string): void {
  if (text.length <= shortText && writeShort(text)) return;
  reserve(9 + text.length * 3);
  const guess = 1 + extraBytes(text.length);
  const { written } = utf8.encodeInto(text, slab.subarray(end + guess));
  const head = 1 + extraBytes(written);
  if (head !== guess) slab.copyWithin(end + head, end + guess, end + guess + written);
  writeHead(kinds.text, written);
  end += written;
}

function writeRaw(bytes: Uint8Array): void {
  const { length } = bytes;
  reserve(length);
  if (length > shortBytes) slab.set(bytes, end);
  else for (let at = 0; at < length; at += 1) slab[end + at] = bytes[at] ?? 0;
  end += length;
}

function write(value: Value): void {
  if (typeof value === 'number') {
    assert(Number.isSafeInteger(value), 'messages carry safe integers');
    if (value >= 0) writeHead(kinds.unsigned, value);
    else writeHead(kinds.negative, -1 - value);
  } else if (typeof value === 'string') {
    writeText(value);
  } else if (value instanceof Uint8Array) {
    writeHead(kinds.bytes, value.length);
    writeRaw(value);
  } else if (Array.isArray(value)) {
    const items = value as readonly Value[];
    writeHead(kinds.array, items.length);
    // Half the price of an iterator.
    for (let at = 0; at < items.length; at += 1) write(items[at] as Value);
  } else {
    reserve(1);
    assert(value === null || typeof value === 'boolean', 'messages carry nothing but values');
    slab[end++] = value === null ? simple.null : value === true ? simple.true : simple.false;
  }
}

/** The one encoding of `value`. Lone surrogates in text become U+FFFD. */
export function encodeValue(value: Value): Uint8Array {
  start = end;
  write(value);
  return slab.subarray(start, end);
}

const malformed = (reason: string, cause?: unknown): HelixFlowError<'FRAME_MALFORMED'> =>
  new HelixFlowError('FRAME_MALFORMED', { reason: `not canonical CBOR: ${reason}` }, { cause });

class Decoder {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** The number in a head, in its shortest form. */
  #argument(short: number): number {
    if (short < 24) return short;
    if (short > 27) throw malformed('a length that is open or reserved');
    const count = 1 << (short - 24);
    if (this.#at + count > this.#bytes.length) throw malformed('cut short');
    let value = 0;
    for (let index = 0; index < count; index += 1) value = value * 256 + (this.#bytes[this.#at++] ?? 0);
    const least = count === 1 ? 24 : 2 ** (4 * count);
    if (value < least) throw malformed('a number in more bytes than it needs');
    return value;
  }

  #take(length: number): Uint8Array {
    if (length > this.#bytes.length - this.#at) throw malformed('cut short');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  #copy(length: number): Uint8Array {
    if (length === 0) return noBytes;
    if (length > shortBytes) return new Uint8Array(this.#take(length));
    if (length > this.#bytes.length - this.#at) throw malformed('cut short');
    const copy = new Uint8Array(length);
    for (let index = 0; index < length; index += 1) copy[index] = this.#bytes[this.#at + index] ?? 0;
    this.#at += length;
    return copy;
  }

  #text(length: number): string {
    const bytes = this.#take(length);
    if (length <= shortText) {
      let text = '';
      for (const byte of bytes) {
        if (byte >= 0x80) return this.#wideText(bytes);
        text += String.fromCharCode(byte);
      }
      return text;
    }
    return this.#wideText(bytes);
  }

  #wideText(bytes: Uint8Array): string {
    try {
      return utf8Strict.decode(bytes);
    } catch (cause) {
      throw malformed('text that is not UTF-8', cause);
    }
  }

  #array(length: number, depth: number): Value[] {
    if (length > this.#bytes.length - this.#at) throw malformed('cut short');
    if (depth === nestingMax) throw malformed(`arrays nested more than ${nestingMax} deep`);
    // Grown item by item an array takes 17 places at first, and what is sent may be nothing but small arrays.
    const items: Value[] = length <= smallArray ? new Array<Value>(length) : [];
    for (let index = 0; index < length; index += 1) items[index] = this.read(depth + 1);
    return items;
  }

  read(depth: number): Value {
    const first = this.#bytes[this.#at++];
    if (first === undefined) throw malformed('cut short');
    const kind = first >> 5;
    if (kind > kinds.array) {
      if (first === simple.true || first === simple.false) return first === simple.true;
      if (first === simple.null) return null;
      throw malformed('a map, a tag, a float or another value that messages do not carry');
    }
    const argument = this.#argument(first & 0x1f);
    if (kind === kinds.array) return this.#array(argument, depth);
    if (kind === kinds.text) return this.#text(argument);
    if (kind === kinds.bytes) return this.#copy(argument);
    const value = kind === kinds.unsigned ? argument : -1 - argument;
    if (!Number.isSafeInteger(value)) throw malformed('an integer beyond 2^53 − 1');
    return value;
  }
}

/**
 * Reads exactly one value; what it returns shares no memory with `bytes`.
 * @throws HelixFlowError FRAME_MALFORMED for anything but canonical CBOR of a `Value`, and for bytes after it.
 */
export function decodeValue(bytes: Uint8Array): Value {
  const decoder = new Decoder(bytes);
  const value = decoder.read(0);
  if (!decoder.isAtEnd) throw malformed('bytes after the value');
  return value;
}
