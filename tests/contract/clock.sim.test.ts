/** The simulated clock under the contract, and what only a virtual one can show. */

import { describe, test } from 'vitest';
import { ms, seconds } from '../../protocol/units.ts';
import { epochMs, SimClock } from '../../sim/clock.ts';
import { Kernel } from '../../sim/kernel.ts';
import { clockContract } from './clock.ts';

clockContract('the simulated clock', () => {
  const kernel = new Kernel(1);
  const running = kernel.pump();
  return { clock: new SimClock(kernel, kernel.lifeline('test')), [Symbol.dispose]: () => running[Symbol.dispose]() };
});

clockContract('a simulated clock that is wrong', () => {
  const kernel = new Kernel(1);
  const running = kernel.pump();
  const clock = new SimClock(kernel, kernel.lifeline('test'), { skewMs: -600_000, rate: 0.99 });
  return { clock, [Symbol.dispose]: () => running[Symbol.dispose]() };
});

describe('the simulated clock', () => {
  test('does hours at once', async ({ expect }) => {
    const kernel = new Kernel(1);
    const clock = new SimClock(kernel, kernel.lifeline('test'));
    let ticks = 0;
    void (async () => {
      for (;;) {
        await clock.sleep(seconds(1));
        ticks += 1;
      }
    })();
    await kernel.run(10 * 3_600_000);
    expect([ticks, clock.nowMs(), clock.wallMs()]).toEqual([36_000, 36_000_000, epochMs + 36_000_000]);
  });

  test('drifts and is off by as much as it is told', async ({ expect }) => {
    const kernel = new Kernel(1);
    const clock = new SimClock(kernel, kernel.lifeline('test'), { skewMs: 5_000, rate: 1.01 });
    let firedMs = 0;
    clock.timer(seconds(101), () => {
      firedMs = kernel.nowMs;
    });
    await kernel.run(200_000);
    expect(firedMs).toBeCloseTo(100_000);
    expect([clock.nowMs(), clock.wallMs()]).toEqual([202_000, epochMs + 207_000]);
  });

  test('of a dead process does nothing, and may not be used', async ({ expect }) => {
    const kernel = new Kernel(1);
    const lifeline = kernel.lifeline('test');
    const clock = new SimClock(kernel, lifeline);
    const fired: string[] = [];
    clock.timer(ms(10), () => fired.push('ghost'));
    void clock.sleep(ms(10)).then(() => fired.push('ghost'));
    lifeline.end();
    await kernel.run(100);
    expect(fired).toEqual([]);
    expect(() => clock.nowMs()).toThrow('a dead process does nothing');
    expect(() => clock.timer(ms(1), () => {})).toThrow('a dead process does nothing');
  });

  test('of a paused process catches up when it goes on, overdue timers first', async ({ expect }) => {
    const kernel = new Kernel(1);
    const lifeline = kernel.lifeline('test');
    const clock = new SimClock(kernel, lifeline);
    const order: string[] = [];
    kernel.schedule(5, () => order.push('read'), lifeline, 'io');
    for (const delay of [30, 20, 10]) clock.timer(ms(delay), () => order.push(`timer ${delay}`));
    const cancel = clock.timer(ms(15), () => order.push('cancelled'));
    lifeline.pause();
    await kernel.run(100);
    expect(order).toEqual([]);
    cancel();
    lifeline.resume();
    await kernel.run(200);
    expect(order).toEqual(['timer 10', 'timer 20', 'timer 30', 'read']);
  });
});
