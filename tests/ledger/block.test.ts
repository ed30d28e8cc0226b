/** Blocks: headers that keep their bytes, entries that belong to them, forks that are proven. */

import fc from 'fast-check';
import { test } from 'vitest';
import {
  authorKeyOf,
  createBlockSize,
  fitsBlock,
  fitsHeader,
  isFork,
  isSigned,
  noHash,
  openPartOf,
  parseHeader,
  provesOpen,
  signBlock,
} from '../../ledger/block.ts';
import { encodeEntry } from '../../ledger/entry.ts';
import { decodeValue, encodeValue, type Value } from '../../protocol/codec.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { MeshId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { merkleLeaf } from '../../protocol/merkle.ts';
import { encodeLedgerFrame } from '../../protocol/messages/ledger.ts';
import { unixMs } from '../../protocol/units.ts';
import { BlockMaker, ban, meshId, revoke } from './feed-stage.ts';
import '../support/seed.ts';

const otherMesh = 'cd'.repeat(32) as MeshId;
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function codeOf(work: () => unknown): string {
  try {
    work();
    return 'did not fail';
  } catch (error) {
    if (isHelixFlowError(error)) return error.code;
    throw error;
  }
}

test('a header keeps its bytes for ever', ({ expect }) => {
  const { head } = new BlockMaker('vector', 'vector').next([ban(1), revoke(2)]);
  expect(hexOf(head.bytes)).toBe(
    [
      '8a01',
      `5820${head.header.author}`,
      `50${head.header.epoch}`,
      '0000',
      `5820${hexOf(noHash)}`,
      `5820${hexOf(head.header.root)}`,
      '03021903e8',
    ].join(''),
  );
  expect([hexOf(head.header.root), hexOf(head.signature)]).toMatchInlineSnapshot(`
    [
      "120971546ff41522056cfad48ec2c63743c710581cfcbc2434c4d98102bb4f6c",
      "003c8cb3e1e75f27d4c16287217525304bc4f046a913e1c09233ee5eac831af0f45e22d037c0f30eea165ce0f2d162661bb2b71b4d8dbaeaf23f2ae426702b0f",
    ]
  `);
});

test('a header is read as it was signed', ({ expect }) => {
  const place = fc.record({
    generation: fc.nat(limits.epochsPerAuthorMax),
    number: fc.maxSafeNat(),
    previous: fc.uint8Array({ minLength: 32, maxLength: 32 }),
    timeMs: fc.maxSafeNat().map(unixMs),
  });
  const entries = fc.array(fc.nat(1_000), { minLength: 1, maxLength: 20 });
  const maker = new BlockMaker('a', 'e');
  fc.assert(
    fc.property(place, entries, (drawn, numbers) => {
      const bytes = numbers.map((number) => encodeEntry(number % 2 === 0 ? ban(number) : revoke(number)));
      const start = { ...drawn, author: maker.author, epoch: maker.epoch };
      const block = signBlock(start, bytes, { meshId, key: maker.key });
      const read = parseHeader(block.head.bytes, block.head.signature);
      expect(read).toEqual(block.head);
      expect(read.bytes.length).toBeLessThan(256);
      expect([isSigned(read, meshId), isSigned(read, otherMesh), fitsHeader(block)]).toEqual([true, false, true]);
      expect(read.header.openCount).toBe(numbers.filter((number) => number % 2 === 0).length);
      expect(provesOpen(openPartOf(block))).toBe(true);
    }),
    { numRuns: 100 },
  );
});

test('what is no header is refused with a code', ({ expect }) => {
  const { head } = new BlockMaker('a', 'e').next([ban(1)]);
  const fields = decodeValue(head.bytes) as Value[];
  const withField = (at: number, value: Value): Uint8Array => encodeValue(fields.with(at, value)).slice();
  const bad: Uint8Array[] = [
    withField(0, 2),
    withField(1, new Uint8Array(31)),
    withField(2, new Uint8Array(17)),
    withField(3, limits.epochsPerAuthorMax + 1),
    withField(4, -1),
    withField(5, new Uint8Array()),
    withField(6, new Uint8Array(33)),
    withField(7, 0),
    withField(7, limits.blockEntriesMax + 1),
    withField(8, 3),
    withField(9, null),
    encodeValue([...fields, 1]).slice(),
    encodeValue(fields.slice(0, 9)).slice(),
    new Uint8Array(300),
    new Uint8Array(),
  ];
  expect(bad.map((bytes) => codeOf(() => parseHeader(bytes, head.signature)))).toEqual(
    bad.map(() => 'FRAME_MALFORMED'),
  );
  expect(codeOf(() => parseHeader(head.bytes, new Uint8Array(63)))).toBe('FRAME_MALFORMED');
  expect(codeOf(() => parseHeader(head.bytes, head.signature))).toBe('did not fail');
});

test('bent headers parse as something unsigned, or not at all', ({ expect }) => {
  const { head } = new BlockMaker('a', 'e').next([ban(1)]);
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const place = at % head.bytes.length;
      const bytes = head.bytes.with(place, (head.bytes[place] ?? 0) ^ mask);
      let isGood = false;
      const code = codeOf(() => {
        isGood = isSigned(parseHeader(bytes, head.signature), meshId);
      });
      expect([isGood, ['did not fail', 'FRAME_MALFORMED'].includes(code)]).toEqual([false, true]);
    }),
    { numRuns: 500 },
  );
});

test('an author that is no key signs nothing', ({ expect }) => {
  const { head } = new BlockMaker('a', 'e').next([ban(1)]);
  const header = { ...head.header, author: 'ff'.repeat(32) as typeof head.header.author };
  expect(authorKeyOf(header.author)).toEqual(new Uint8Array(32).fill(255));
  expect(isSigned({ ...head, header }, meshId)).toBe(false);
});

test('a fork is two signed headers of one place that differ, and nothing less', ({ expect }) => {
  const maker = new BlockMaker('a', 'e');
  const first = maker.next([ban(1)]);
  const [a, b] = [maker.branch().next([ban(2)]).head, maker.branch().next([ban(3)]).head];
  const elsewhere = [
    new BlockMaker('b', 'e').next([ban(2)]).head,
    new BlockMaker('a', 'f').next([ban(2)]).head,
    first.head,
  ];
  expect([isFork({ a, b }, meshId), isFork({ a: b, b: a }, meshId), isFork({ a, b: a }, meshId)]).toEqual([
    true,
    true,
    false,
  ]);
  expect(elsewhere.map((other) => isFork({ a, b: other }, meshId))).toEqual([false, false, false]);
  expect(isFork({ a, b }, otherMesh)).toBe(false);
  expect(isFork({ a, b: { ...b, signature: a.signature } }, meshId)).toBe(false);
});

test('a full block fits a frame, whole and as nodes get it, whatever it is made of', ({ expect }) => {
  const entry = fc.oneof(
    fc.nat(1_000_000).map((number) => encodeEntry(revoke(number))),
    fc.nat(1_000_000).map((number) => encodeEntry(ban(number))),
    fc.integer({ min: 24, max: 64 }).map((kind) => encodeValue([kind, true]).slice()),
    fc.integer({ min: 200, max: 16_000 }).map((bytes) => encodeValue([99, new Uint8Array(bytes)]).slice()),
  );
  const weights = fc.array(entry, { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(weights, fc.nat(), (some, start) => {
      const size = createBlockSize();
      const entries: Uint8Array[] = [];
      for (let at = start % some.length; ; at += 1) {
        const next = some[at % some.length] as Uint8Array;
        if (!size.take(next)) break;
        entries.push(next);
      }
      expect([fitsBlock(entries), fitsBlock([...entries, new Uint8Array(16_384)])]).toEqual([true, false]);
      const wire = { header: new Uint8Array(256), signature: new Uint8Array(64) };
      const whole = encodeLedgerFrame({ type: 'blocks', isLast: true, blocks: [{ ...wire, entries }] });
      expect(whole.length).toBeLessThanOrEqual(limits.frameMaxBytes);
      const maker = new BlockMaker('a', 'e');
      maker.number = 1;
      const { open } = openPartOf(signBlock({ ...maker, timeMs: unixMs(1) }, entries, { meshId, key: maker.key }));
      const isOpen = new Set(open.map(({ index }) => index));
      const slots = entries.map((bytes, at) => (isOpen.has(at) ? { entry: bytes } : { leaf: merkleLeaf(bytes) }));
      const part = encodeLedgerFrame({ type: 'open', isLast: true, blocks: [{ ...wire, slots }] });
      expect(part.length).toBeLessThanOrEqual(limits.frameMaxBytes);
    }),
    { numRuns: 25 },
  );
});
