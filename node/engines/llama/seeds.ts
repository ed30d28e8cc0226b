/** Seeds for sampling: with a client's seed, each position of an answer draws from a seed of its own. */

/** llama.cpp takes this one to mean "any". */
const anySeed = 0xffffffff;

function scramble(value: number): number {
  let hash = value >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/**
 * The seed for the token at `position`. Since no state is carried from token to token, another node can go on
 * from any position and draw the same tokens.
 * @param seed Any integer that a double holds; may be negative.
 */
export function mixSeed(seed: number, position: number): number {
  const high = Math.floor(seed / 0x1_0000_0000) >>> 0;
  const base = scramble((seed >>> 0) ^ scramble(high + 0x9e3779b9));
  const mixed = scramble(base ^ Math.imul(position + 1, 0x9e3779b1));
  return mixed === anySeed ? 0 : mixed;
}
