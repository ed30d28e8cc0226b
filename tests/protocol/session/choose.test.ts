/** Two sessions with one peer: both sides keep the same one, and never the half-dead one. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { PeerId, ProcessId } from '../../../protocol/ids.ts';
import { chooseSession, type SessionFacts, type Started } from '../../../protocol/session/choose.ts';

const a = 'aaaaaaaa' as PeerId;
const b = 'bbbbbbbb' as PeerId;
const processes = { a: '0a'.repeat(16) as ProcessId, b: '0b'.repeat(16) as ProcessId };

/** What happened to one session, from outside: who dialled, and what each side's start said. */
interface Story {
  readonly name: number;
  readonly dialler: 'a' | 'b';
  readonly isRelayed: boolean;
  readonly startA: Started;
  readonly startB: Started;
}

type Named = SessionFacts & { readonly name: number };

const seenBy = (side: 'a' | 'b', story: Story): Named => ({
  name: story.name,
  dialler: story.dialler === 'a' ? a : b,
  isOurs: story.dialler === side,
  isRelayed: story.isRelayed,
  process: side === 'a' ? processes.b : processes.a,
  ours: side === 'a' ? story.startA : story.startB,
  theirs: side === 'a' ? story.startB : story.startA,
});

const start = (serial: number) => fc.record({ serial: fc.constant(serial), holds: fc.subarray([1, 2]) });
const order = fc.constantFrom([1, 2] as const, [2, 1] as const);
const stories = fc.tuple(order, order).chain(([ofA, ofB]) =>
  fc.tuple(
    ...([0, 1] as const).map((index) =>
      fc.record({
        name: fc.constant(index),
        dialler: fc.constantFrom('a' as const, 'b' as const),
        isRelayed: fc.boolean(),
        startA: start(ofA[index]),
        startB: start(ofB[index]),
      }),
    ),
  ),
);

describe('chooseSession', () => {
  test('both sides keep the same session, whichever each had first', ({ expect }) => {
    fc.assert(
      fc.property(stories, fc.boolean(), fc.boolean(), ([one, two], swapA, swapB) => {
        if (one === undefined || two === undefined) return;
        const keeps = (side: 'a' | 'b', swap: boolean): number => {
          const [first, second] = swap ? [two, one] : [one, two];
          return chooseSession(seenBy(side, first), seenBy(side, second)).name;
        };
        expect(keeps('a', swapA)).toBe(keeps('b', swapB));
      }),
      { numRuns: 2_000 },
    );
  });

  test('a session that one side had lost when it started the next one loses to it, whoever dialled', ({ expect }) => {
    for (const dialler of ['a', 'b'] as const) {
      for (const next of ['a', 'b'] as const) {
        const lost: Story = {
          name: 0,
          dialler,
          isRelayed: false,
          startA: { serial: 1, holds: [] },
          startB: { serial: 1, holds: [] },
        };
        // B had lost the first one and says so; A still held it.
        const replacement: Story = {
          name: 1,
          dialler: next,
          isRelayed: false,
          startA: { serial: 2, holds: [1] },
          startB: { serial: 2, holds: [] },
        };
        expect(chooseSession(seenBy('a', lost), seenBy('a', replacement)).name).toBe(1);
        expect(chooseSession(seenBy('b', lost), seenBy('b', replacement)).name).toBe(1);
      }
    }
  });

  test('of two dialled at once the one by the smaller peer id stays', ({ expect }) => {
    const byA: Story = {
      name: 0,
      dialler: 'a',
      isRelayed: false,
      startA: { serial: 1, holds: [] },
      startB: { serial: 2, holds: [1] },
    };
    const byB: Story = {
      name: 1,
      dialler: 'b',
      isRelayed: false,
      startA: { serial: 2, holds: [1] },
      startB: { serial: 1, holds: [] },
    };
    expect(chooseSession(seenBy('a', byA), seenBy('a', byB)).name).toBe(0);
    expect(chooseSession(seenBy('b', byB), seenBy('b', byA)).name).toBe(0);
  });

  test('a direct one stays and a relayed one goes, whoever dialled and whichever was first', ({ expect }) => {
    for (const dialler of ['a', 'b'] as const) {
      for (const [first, second] of [
        [true, false],
        [false, true],
      ] as const) {
        const one: Story = {
          name: 0,
          dialler: 'a',
          isRelayed: first,
          startA: { serial: 1, holds: [] },
          startB: { serial: 1, holds: [] },
        };
        const two: Story = {
          name: 1,
          dialler,
          isRelayed: second,
          startA: { serial: 2, holds: [1] },
          startB: { serial: 2, holds: [1] },
        };
        for (const side of ['a', 'b'] as const) {
          expect(chooseSession(seenBy(side, one), seenBy(side, two)).isRelayed).toBe(false);
        }
      }
    }
  });

  test('a new run of the peer ends its older sessions', ({ expect }) => {
    const held = seenBy('a', {
      name: 0,
      dialler: 'a',
      isRelayed: false,
      startA: { serial: 1, holds: [] },
      startB: { serial: 9, holds: [] },
    });
    const restarted = {
      ...seenBy('a', {
        name: 1,
        dialler: 'b',
        isRelayed: false,
        startA: { serial: 2, holds: [1] },
        startB: { serial: 1, holds: [] },
      }),
      process: '0c'.repeat(16) as ProcessId,
    };
    expect(chooseSession(held, restarted).name).toBe(1);
  });
});
