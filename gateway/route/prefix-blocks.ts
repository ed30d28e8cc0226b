/** How a body is cut into blocks, and a hash of each that covers all before it: quick, not for keeping secrets. */

/** Blocks have this size at first, where conversations part most often; each next one is larger by half, up to a bound. */
const firstBytes = 256;
const firstBlocks = 16;
const largestBytes = 4_096;
/** Later blocks tell little more, and hashing them takes time. */
const blocksMax = 1_024;

const growing: readonly number[] = (() => {
  const ends: number[] = [];
  for (let at = 1; at <= firstBlocks; at += 1) ends.push(at * firstBytes);
  for (let size = 1.5 * firstBytes, end = firstBlocks * firstBytes; size < largestBytes; size *= 1.5) {
    end += size;
    ends.push(end);
  }
  return ends;
})();
const growingEnd = growing[growing.length - 1] ?? 0;

/** Where block `index` ends; a multiple of 4. */
export const blockEnd = (index: number): number =>
  growing[index] ?? growingEnd + (index + 1 - growing.length) * largestBytes;

/** Two numbers of 32 bits. */
export type Lanes = readonly [a: number, b: number];

/** Two independent lanes over words of 32 bits; only their shape is that of xxHash and MurmurHash. */
const nextA = (a: number, word: number): number => {
  const sum = (a + Math.imul(word, 0x85ebca77)) | 0;
  return Math.imul((sum << 13) | (sum >>> 19), 0x9e3779b1);
};
const nextB = (b: number, word: number): number => {
  const mixed = b ^ Math.imul(word, 0xcc9e2d51);
  return (Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593) + 0x52dce729) | 0;
};

/** Every bit of the result depends on every bit of `value`. */
const finish = (value: number): number => {
  let mixed = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
};

/** Goes on from `lanes` over a text; its length counts, so that of two texts in a row each is one. */
export function laneText([a, b]: Lanes, text: string): Lanes {
  let nowA = nextA(a, text.length);
  let nowB = nextB(b, text.length);
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    nowA = nextA(nowA, unit);
    nowB = nextB(nowB, unit);
  }
  return [nowA, nowB];
}

/** The whole words of a body, in the order of this machine: hashes stay within its process. */
function wordsOf(body: Uint8Array): Int32Array {
  const aligned = body.byteOffset % 4 === 0 ? body : body.slice();
  return new Int32Array(aligned.buffer, aligned.byteOffset, aligned.length >>> 2);
}

/** Goes on over words; a function of its own, since the compiler knows what its numbers are only then. */
function laneWords(lanes: Int32Array, words: Int32Array, from: number, to: number): void {
  let a = lanes[0] as number;
  let b = lanes[1] as number;
  for (let at = from; at < to; at += 1) {
    const word = words[at] as number;
    a = nextA(a, word);
    b = nextB(b, word);
  }
  lanes[0] = a;
  lanes[1] = b;
}

/** @returns the hashes of all whole blocks, two numbers each, the second never 0. */
export function hashBlocks(seed: Lanes, body: Uint8Array): readonly number[] {
  const words = wordsOf(body);
  const lanes = Int32Array.of(seed[0], seed[1]);
  const hashes: number[] = [];
  for (let index = 0, from = 0; index < blocksMax; index += 1) {
    const to = blockEnd(index) / 4;
    if (to > words.length) break;
    laneWords(lanes, words, from, to);
    const a = lanes[0] as number;
    const b = lanes[1] as number;
    hashes.push(finish((a + Math.imul(b, 0x27d4eb2f)) | 0), finish(b ^ a) | 1);
    from = to;
  }
  return hashes;
}
