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

/** @returns the hashes of all whole blocks, two numbers each, neither pair zero. */
export function hashBlocks([seedA, seedB]: Lanes, body: Uint8Array): readonly number[] {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const hashes: number[] = [];
  let a = seedA;
  let b = seedB;
  let at = 0;
  for (let index = 0; index < blocksMax; index += 1) {
    const end = blockEnd(index);
    if (end > body.length) break;
    for (; at < end; at += 4) {
      const word = view.getInt32(at, true);
      a = nextA(a, word);
      b = nextB(b, word);
    }
    hashes.push(finish(a + Math.imul(b, 0x27d4eb2f)), finish(b ^ a) | 1);
  }
  return hashes;
}
