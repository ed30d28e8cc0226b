/** Frames on a byte stream: an unsigned LEB128 length, then that many bytes. */

import { HelixFlowError } from '../errors.ts';

/** A length prefix has at most this many bytes: enough for 2^28 − 1. */
const prefixMaxBytes = 4;

const prefixLength = (length: number): number => (length < 0x80 ? 1 : length < 0x4000 ? 2 : length < 0x200000 ? 3 : 4);

function writePrefix(target: Uint8Array, at: number, length: number): number {
  let rest = length;
  let next = at;
  while (rest >= 0x80) {
    target[next] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
    next += 1;
  }
  target[next] = rest;
  return next + 1;
}

/** All of `frames`, each behind its length, as one piece. */
export function encodeFrames(frames: readonly Uint8Array[]): Uint8Array {
  let total = 0;
  for (const frame of frames) total += prefixLength(frame.length) + frame.length;
  const bytes = new Uint8Array(total);
  let at = 0;
  for (const frame of frames) {
    at = writePrefix(bytes, at, frame.length);
    bytes.set(frame, at);
    at += frame.length;
  }
  return bytes;
}

/**
 * Cuts a byte stream into frames, however the stream was split on its way.
 *
 * Holds at most one unfinished frame. A frame handed over may share memory with the chunk it came in.
 */
export class FrameDecoder {
  readonly #frameMaxBytes: number;
  /** The unfinished frame's bytes, or its unfinished prefix; empty between frames. */
  #held: Uint8Array = new Uint8Array(0);
  #heldLength = 0;

  constructor(frameMaxBytes: number) {
    this.#frameMaxBytes = frameMaxBytes;
  }

  /** True when the stream may end here without having cut a frame. */
  get isBetweenFrames(): boolean {
    return this.#heldLength === 0;
  }

  /**
   * Hands every frame that `chunk` completes to `emit`, in order. Unusable after an error.
   * @throws HelixFlowError FRAME_TOO_LARGE for a length above the limit; FRAME_MALFORMED for a length
   *   that is not in its shortest form.
   */
  push(chunk: Uint8Array, emit: (frame: Uint8Array) => void): void {
    let rest = chunk;
    while (rest.length > 0) rest = this.#heldLength > 0 ? this.#fill(rest, emit) : this.#cut(rest, emit);
  }

  /** Takes whole frames straight out of `bytes`; holds what is left of an unfinished one. */
  #cut(bytes: Uint8Array, emit: (frame: Uint8Array) => void): Uint8Array {
    let at = 0;
    while (at < bytes.length) {
      const prefix = this.#readPrefix(bytes, at, bytes.length);
      const end = prefix === undefined ? undefined : prefix.next + prefix.length;
      if (prefix === undefined || end === undefined || end > bytes.length) {
        this.#hold(bytes.subarray(at), end === undefined ? prefixMaxBytes : end - at);
        return bytes.subarray(bytes.length);
      }
      emit(bytes.subarray(prefix.next, end));
      at = end;
    }
    return bytes.subarray(at);
  }

  /** Adds to the held frame until it is whole; returns what belongs to the next ones. */
  #fill(bytes: Uint8Array, emit: (frame: Uint8Array) => void): Uint8Array {
    let prefix = this.#readPrefix(this.#held, 0, this.#heldLength);
    let used = 0;
    while (prefix === undefined && used < bytes.length) {
      this.#held[this.#heldLength] = bytes[used] ?? 0;
      this.#heldLength += 1;
      used += 1;
      prefix = this.#readPrefix(this.#held, 0, this.#heldLength);
    }
    if (prefix === undefined) return bytes.subarray(used);
    const total = prefix.next + prefix.length;
    if (this.#held.length < total) this.#hold(this.#held.subarray(0, this.#heldLength), total);
    const more = Math.min(total - this.#heldLength, bytes.length - used);
    this.#held.set(bytes.subarray(used, used + more), this.#heldLength);
    this.#heldLength += more;
    used += more;
    if (this.#heldLength === total) {
      const frame = this.#held.subarray(prefix.next, total);
      this.#held = new Uint8Array(0);
      this.#heldLength = 0;
      emit(frame);
    }
    return bytes.subarray(used);
  }

  #hold(bytes: Uint8Array, capacity: number): void {
    const held = new Uint8Array(Math.max(capacity, bytes.length));
    held.set(bytes);
    this.#held = held;
    this.#heldLength = bytes.length;
  }

  #readPrefix(bytes: Uint8Array, at: number, end: number): { length: number; next: number } | undefined {
    let length = 0;
    for (let index = 0; index < prefixMaxBytes; index += 1) {
      if (at + index >= end) return undefined;
      const byte = bytes[at + index] ?? 0;
      length |= (byte & 0x7f) << (7 * index);
      if (byte < 0x80) {
        if (byte === 0 && index > 0)
          throw new HelixFlowError('FRAME_MALFORMED', { reason: 'a length is not in its shortest form' });
        if (length > this.#frameMaxBytes) {
          throw new HelixFlowError('FRAME_TOO_LARGE', { bytes: length, maxBytes: this.#frameMaxBytes });
        }
        return { length, next: at + index + 1 };
      }
    }
    throw new HelixFlowError('FRAME_TOO_LARGE', { bytes: length, maxBytes: this.#frameMaxBytes });
  }
}
