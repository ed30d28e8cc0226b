/** Merkle trees over a list of byte strings (RFC 6962 §2.1): one root for all of them, a short path for each. */

import { isSameBytes, sha256 } from './crypto.ts';

const leafPrefix = Uint8Array.of(0);
const nodePrefix = Uint8Array.of(1);

/** What stands for an item in the tree; 32 bytes. */
export const merkleLeaf = (item: Uint8Array): Uint8Array => sha256(leafPrefix, item);
const nodeOf = (left: Uint8Array, right: Uint8Array): Uint8Array => sha256(nodePrefix, left, right);

/** The largest power of two below `count`, which is at least 2. */
const splitOf = (count: number): number => 2 ** (31 - Math.clz32(count - 1));

function rootOf(leaves: readonly Uint8Array[], from: number, to: number): Uint8Array {
  const count = to - from;
  if (count === 0) return sha256();
  if (count === 1) return leaves[from] as Uint8Array;
  const middle = from + splitOf(count);
  return nodeOf(rootOf(leaves, from, middle), rootOf(leaves, middle, to));
}

/** 32 bytes that stand for all `items` in their order; the hash of nothing for none. */
export const merkleRoot = (items: readonly Uint8Array[]): Uint8Array => rootOf(items.map(merkleLeaf), 0, items.length);

/** What it takes to show that the item at `index` is one of `items`: 32 bytes a step, from the leaf up. */
export function merklePath(items: readonly Uint8Array[], index: number): Uint8Array[] {
  const leaves = items.map(merkleLeaf);
  const path: Uint8Array[] = [];
  let from = 0;
  let to = items.length;
  while (to - from > 1) {
    const middle = from + splitOf(to - from);
    if (index < middle) {
      path.unshift(rootOf(leaves, middle, to));
      to = middle;
    } else {
      path.unshift(rootOf(leaves, from, middle));
      from = middle;
    }
  }
  return path;
}

interface Tree {
  readonly hash: Uint8Array;
  readonly left?: Tree;
  readonly right?: Tree;
}

function treeOf(leaves: readonly Uint8Array[], from: number, to: number): Tree {
  if (to - from <= 1) return { hash: rootOf(leaves, from, to) };
  const middle = from + splitOf(to - from);
  const left = treeOf(leaves, from, middle);
  const right = treeOf(leaves, middle, to);
  return { hash: nodeOf(left.hash, right.hash), left, right };
}

/** The root over `leaves` (`merkleLeaf` of each item), and the path of each: every hash is made once. */
export function merklePaths(leaves: readonly Uint8Array[]): {
  readonly root: Uint8Array;
  readonly paths: readonly (readonly Uint8Array[])[];
} {
  const paths: (readonly Uint8Array[])[] = [];
  const walk = (tree: Tree, above: readonly Uint8Array[]): void => {
    if (tree.left === undefined || tree.right === undefined) paths.push(above);
    else {
      walk(tree.left, [tree.right.hash, ...above]);
      walk(tree.right, [tree.left.hash, ...above]);
    }
  };
  const tree = treeOf(leaves, 0, leaves.length);
  if (leaves.length > 0) walk(tree, []);
  return { root: tree.hash, paths };
}

/** True when `item` stands at `index` of the `count` items behind `root`; false for anything else, never an error. */
export function isInMerkleTree(
  item: Uint8Array,
  place: { readonly index: number; readonly count: number; readonly path: readonly Uint8Array[] },
  root: Uint8Array,
): boolean {
  const { index, count, path } = place;
  if (!(Number.isSafeInteger(index) && index >= 0 && index < count && count <= 2 ** 31)) return false;
  const turns: ('left' | 'right')[] = [];
  let from = 0;
  let to = count;
  while (to - from > 1) {
    const middle = from + splitOf(to - from);
    turns.unshift(index < middle ? 'left' : 'right');
    if (index < middle) to = middle;
    else from = middle;
  }
  if (turns.length !== path.length) return false;
  let hash = merkleLeaf(item);
  for (const [step, other] of path.entries()) {
    hash = turns[step] === 'left' ? nodeOf(hash, other) : nodeOf(other, hash);
  }
  return isSameBytes(hash, root);
}
