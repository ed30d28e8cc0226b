/** The frames of the hello as bytes, and what two sides make of each other's. */

import fc from 'fast-check';
import { test } from 'vitest';
import { encodeValue } from '../../protocol/codec.ts';
import { limits } from '../../protocol/limits.ts';
import {
  agreeLimits,
  agreeVersion,
  encodeHelloFrame,
  leastOf,
  ourLimits,
  parseHelloFrame,
  sharedLimits,
} from '../../protocol/messages/hello.ts';
import { goodHello, processId } from './hello-stage.ts';
import { failure } from './mesh-fixture.ts';

test('the frames come back from their bytes', ({ expect }) => {
  const label = fc.string({ maxLength: 64 });
  const hello = fc.record({
    type: fc.constant('hello' as const),
    versions: fc.integer({ min: 1, max: 9 }).map((min) => ({ min, max: min + 1 })),
    process: fc.constant(processId('3')),
    credentials: fc.record({
      rootPublicKey: fc.uint8Array({ minLength: 32, maxLength: 32 }),
      certificate: fc.string({ maxLength: 500 }),
      membership: fc.string({ maxLength: 500 }),
    }),
    features: fc.array(label, { maxLength: 5 }),
    limits: fc.dictionary(label, fc.integer({ min: 1 })).map((record) => new Map(Object.entries(record))),
    addresses: fc.array(label, { maxLength: 4 }),
    roots: fc.array(fc.record({ kind: fc.constantFrom('revocation' as const, 'lift' as const), token: label }), {
      maxLength: 64,
    }),
  });
  fc.assert(
    fc.property(hello, (frame) => {
      expect(parseHelloFrame(encodeHelloFrame(frame))).toEqual(frame);
    }),
  );
  const refuse = { type: 'refuse', code: 'HELLO_TIMEOUT', reason: 'late' } as const;
  expect(parseHelloFrame(encodeHelloFrame(refuse))).toEqual(refuse);
});

test('the frames carry nothing that a terminal would obey, and no code that is unknown', ({ expect }) => {
  const bytes = encodeValue([2, 'NEWER_CODE', 'a\u001b[31mb\nc']);
  expect(parseHelloFrame(bytes)).toEqual({ type: 'refuse', code: 'HELLO_REFUSED', reason: 'a?[31mb?c' });
});

test('the frames may have further positions', async ({ expect }) => {
  expect(parseHelloFrame(encodeValue([1, 'later', 7]))).toEqual({ type: 'accept' });
});

test('the frames fit the largest hello that is likely: full tokens and addresses', async ({ expect }) => {
  const hello = await goodHello();
  const addresses = Array.from({ length: limits.peerAddressesMax }, () => 'x'.repeat(limits.addressMaxChars));
  expect(encodeHelloFrame({ ...hello, addresses }).length).toBeLessThan(limits.helloMaxBytes / 2);
});

test('both sides agree on the same version, or both on none', async ({ expect }) => {
  const range = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.nat(9)).map(([min, more]) => ({ min, max: min + more }));
  await fc.assert(
    fc.asyncProperty(range, range, async (ours, theirs) => {
      const common = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18].filter((version) =>
        [ours, theirs].every(({ min, max }) => min <= version && version <= max),
      );
      const newest = common.at(-1);
      if (newest === undefined) {
        const fault = { code: 'VERSION_UNSUPPORTED', ...theirs, ourMin: ours.min, ourMax: ours.max };
        expect(await failure(() => agreeVersion(ours, theirs))).toEqual(fault);
      } else {
        expect([agreeVersion(ours, theirs), agreeVersion(theirs, ours)]).toEqual([newest, newest]);
      }
    }),
  );
});

test('of each limit the smaller value counts, and ours where the other side names none', ({ expect }) => {
  const offer = fc.dictionary(fc.constantFrom(...sharedLimits, 'newer'), fc.integer({ min: 2 ** 21 }));
  const small = fc.constantFrom(...sharedLimits).map((name) => [name, leastOf(ourLimits[name])] as const);
  fc.assert(
    fc.property(offer, fc.array(small), (large, smaller) => {
      const theirs: Record<string, number> = { ...large, ...Object.fromEntries(smaller) };
      const agreed = agreeLimits(ourLimits, new Map(Object.entries(theirs)));
      expect(Object.keys(agreed)).toEqual([...sharedLimits]);
      for (const name of sharedLimits) {
        expect(agreed[name]).toBe(Math.min(ourLimits[name], theirs[name] ?? Number.POSITIVE_INFINITY));
      }
    }),
  );
});

test('a limit that would stall instead of limit is refused', async ({ expect }) => {
  for (const name of sharedLimits) {
    const tiny = new Map([[name, leastOf(ourLimits[name]) - 1]]);
    expect(await failure(() => agreeLimits(ourLimits, tiny))).toMatchObject({ code: 'PROTOCOL_VIOLATION' });
  }
});
