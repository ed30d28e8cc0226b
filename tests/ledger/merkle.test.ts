/** Merkle trees: RFC 6962's own vectors, and that nothing but the truth is proven. */

import fc from 'fast-check';
import { test } from 'vitest';
import { isInMerkleTree, merkleLeaf, merklePath, merklePaths, merkleRoot } from '../../protocol/merkle.ts';
import '../support/seed.ts';

const bytesOf = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** The inputs of certificate-transparency's reference tests (merkletree/merkle_tree_test). */
const inputs = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'].map(
  bytesOf,
);

/** Their roots, for the first one, two, … eight of them. */
const roots = [
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
];

/** Paths among the first `count`, for the item at `index`, from the leaf up. */
const paths: readonly { readonly index: number; readonly count: number; readonly path: readonly string[] }[] = [
  { index: 0, count: 1, path: [] },
  {
    index: 0,
    count: 8,
    path: [
      '96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7',
      '5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e',
      '6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4',
    ],
  },
  {
    index: 5,
    count: 8,
    path: [
      'bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b',
      'ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0',
      'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    ],
  },
  { index: 2, count: 3, path: ['fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125'] },
  {
    index: 1,
    count: 5,
    path: [
      '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
      '5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e',
      'bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b',
    ],
  },
];

test('roots are those of RFC 6962', ({ expect }) => {
  expect(hexOf(merkleRoot([]))).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
  expect(roots.map((_, at) => hexOf(merkleRoot(inputs.slice(0, at + 1))))).toEqual(roots);
});

test('paths are those of RFC 6962, and prove what they should', ({ expect }) => {
  for (const { index, count, path } of paths) {
    const items = inputs.slice(0, count);
    expect(merklePath(items, index).map(hexOf)).toEqual(path);
    const place = { index, count, path: path.map(bytesOf) };
    expect(isInMerkleTree(items[index] as Uint8Array, place, bytesOf(roots[count - 1] ?? ''))).toBe(true);
  }
});

const items = fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 70 });

test('every item of a list is proven by its path, made alone or with all others', ({ expect }) => {
  fc.assert(
    fc.property(items, (list) => {
      const all = merklePaths(list.map(merkleLeaf));
      expect(hexOf(all.root)).toBe(hexOf(merkleRoot(list)));
      for (const [index, item] of list.entries()) {
        const path = merklePath(list, index);
        expect(all.paths[index]).toEqual(path);
        expect(isInMerkleTree(item, { index, count: list.length, path }, all.root)).toBe(true);
      }
    }),
    { numRuns: 60 },
  );
});

test('no other item, place, path or root is proven', ({ expect }) => {
  const change = fc.record({
    at: fc.nat(),
    what: fc.constantFrom('item', 'index', 'step', 'more', 'less', 'root', 'swap'),
  });
  fc.assert(
    fc.property(items, change, ({ length }, { at, what }) => {
      const list = Array.from({ length }, (_, index) => Uint8Array.of(index, at & 255));
      const index = at % length;
      const path = merklePath(list, index);
      const item = list[index] as Uint8Array;
      const root = merkleRoot(list);
      const bent = (bytes: Uint8Array): Uint8Array =>
        bytes.with(at % bytes.length, (bytes[at % bytes.length] ?? 0) ^ 1);
      const step = at % Math.max(1, path.length);
      const shown = { item, index, path, root };
      const lies: Record<typeof what, Partial<typeof shown>> = {
        item: { item: bent(item) },
        index: { index: index + 1 },
        step: path.length === 0 ? { root: bent(root) } : { path: path.with(step, bent(path[step] as Uint8Array)) },
        more: { path: [...path, root] },
        less: path.length === 0 ? { index: -1 } : { path: path.slice(1) },
        root: { root: bent(root) },
        swap: { item: Uint8Array.of(...(path[0] ?? [])), path: path.slice(1) },
      };
      const lie = { ...shown, ...lies[what] };
      const isTrue = isInMerkleTree(lie.item, { index: lie.index, count: length, path: lie.path }, lie.root);
      expect(isTrue).toBe(false);
    }),
    { numRuns: 400 },
  );
});

test('a place that cannot be is no error', ({ expect }) => {
  const item = Uint8Array.of(1);
  const root = merkleRoot([item]);
  const places = [-1, 0.5, Number.NaN, 2 ** 53, 1].map((index) => ({ index, count: 1, path: [] }));
  const counts = [0, -1, 2 ** 31 + 1, Number.POSITIVE_INFINITY].map((count) => ({ index: 0, count, path: [] }));
  const all = [...places, ...counts].map((place) => isInMerkleTree(item, place, root));
  expect(new Set(all)).toEqual(new Set([false]));
  expect(isInMerkleTree(item, { index: 0, count: 1, path: [] }, root)).toBe(true);
});
