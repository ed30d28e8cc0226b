/** Running means of what attempts took: what is taken from a node's word, what from the clock, and how it fades. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { type Measured, Speeds } from '../../gateway/speeds.ts';
import { ms } from '../../protocol/units.ts';
import { ManualClock } from '../support/manual-clock.ts';

type Change = Partial<Omit<Measured, 'done'>> & Partial<Measured['done']>;

const measured = (change: Change = {}): Measured => {
  const { bodyBytes = 400, roundTripMs = 10, firstMs = ms(150), totalMs = ms(1_060), ...done } = change;
  return {
    bodyBytes,
    roundTripMs,
    firstMs,
    totalMs,
    done: {
      promptTokens: 100,
      cachedTokens: 0,
      completionTokens: 91,
      queueMs: ms(20),
      prefillMs: ms(80),
      decodeMs: ms(900),
      ...done,
    },
  };
};

const all = ({ overheadMs, prefillMsPerByte, tokenMs, answerMeanMs }: Speeds): number[] =>
  [overheadMs, prefillMsPerByte, tokenMs, answerMeanMs].map((value) => Math.round(value * 1_000) / 1_000);

describe('speeds', () => {
  test('are unknown at first, and what the first answer took after it', ({ expect }) => {
    const speeds = new Speeds(new ManualClock());
    expect(all(speeds)).toEqual([0, 0, 0, 0]);
    speeds.measured(measured());
    // Of 150 ms to first content: 20 in the queue, 80 of prefill, 10 on the way.
    expect(all(speeds)).toEqual([40, 0.2, 10, 1_040]);
  });

  test('move by a fifth with each answer', ({ expect }) => {
    const speeds = new Speeds(new ManualClock());
    speeds.measured(measured());
    speeds.measured(measured({ prefillMs: ms(180), decodeMs: ms(1_800), firstMs: ms(310), totalMs: ms(2_060) }));
    expect(all(speeds)).toEqual([52, 0.25, 12, 1_240]);
  });

  test('are measured by the fresh part of a prompt, in bytes', ({ expect }) => {
    const speeds = new Speeds(new ManualClock());
    speeds.measured(measured({ cachedTokens: 75, prefillMs: ms(20) }));
    expect(speeds.prefillMsPerByte).toBeCloseTo(0.2);
  });

  test.for<[string, Change]>([
    ['wait', { queueMs: ms(5_000) }],
    ['prefill', { prefillMs: ms(5_000) }],
  ])('are not hidden by a claim of more %s than there was time', ([, claim], { expect }) => {
    const speeds = new Speeds(new ManualClock());
    speeds.measured(measured({ ...claim, firstMs: ms(3_000), totalMs: ms(4_000) }));
    expect([speeds.overheadMs, speeds.answerMeanMs]).toEqual([2_990, 4_000]);
  });

  test('learn nothing of prefill from a few tokens, and nothing of decoding', ({ expect }) => {
    const speeds = new Speeds(new ManualClock());
    speeds.measured(measured({ cachedTokens: 93, completionTokens: 7 }));
    expect([speeds.prefillMsPerByte, speeds.tokenMs]).toEqual([0, 0]);
    speeds.measured(measured({ promptTokens: 0, completionTokens: 0 }));
    expect([speeds.prefillMsPerByte, speeds.tokenMs]).toEqual([0, 0]);
  });

  test('put down to overhead what a node leaves out of its own times', ({ expect }) => {
    const speeds = new Speeds(new ManualClock());
    speeds.measured(measured({ queueMs: ms(0), prefillMs: ms(0) }));
    expect(speeds.overheadMs).toBe(140);
    const other = new Speeds(new ManualClock());
    other.measured(measured({ queueMs: ms(9_999), prefillMs: ms(9_999) }));
    expect(other.overheadMs).toBe(140);
  });

  test('are forgotten after a minute, so that who was slow once is tried again', async ({ expect }) => {
    const clock = new ManualClock();
    const speeds = new Speeds(clock);
    speeds.measured(measured());
    await clock.advance(59_999);
    expect(speeds.overheadMs).toBe(40);
    await clock.advance(1);
    expect([speeds.overheadMs, speeds.tokenMs, speeds.prefillMsPerByte]).toEqual([0, 0, 0]);
    speeds.measured(measured({ firstMs: ms(120) }));
    expect(speeds.overheadMs).toBe(10);
  });

  test('count who was overtaken as at least as slow as that, and never as faster', ({ expect }) => {
    const speeds = new Speeds(new ManualClock());
    speeds.late(500);
    expect(speeds.overheadMs).toBe(500);
    speeds.late(300);
    expect(speeds.overheadMs).toBe(500);
  });

  test('stay finite and positive whatever a node tells', ({ expect }) => {
    const number = fc.oneof(fc.nat(), fc.constantFrom(0, 1, Number.MAX_SAFE_INTEGER));
    const change = fc.record({
      promptTokens: number,
      cachedTokens: number,
      completionTokens: number,
      queueMs: number,
      prefillMs: number,
      decodeMs: number,
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 8 }), (changes) => {
        const speeds = new Speeds(new ManualClock());
        for (const one of changes) speeds.measured(measured(one as Change));
        for (const value of all(speeds)) expect(value >= 0 && Number.isFinite(value)).toBe(true);
      }),
    );
  });
});
