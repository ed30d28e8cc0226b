/** What every `Clock` keeps to. */

import { describe, type ExpectStatic, test } from 'vitest';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { Clock } from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';

/** A clock whose time passes while the suite waits. */
export interface ClockWorld extends Disposable {
  readonly clock: Clock;
}

const reason = (): HelixFlowError => new HelixFlowError('CHANNEL_CLOSED', { reason: 'a test' });
/** Timers of the host count whole milliseconds, and may look that much early to a finer clock. */
const roundingMs = 1.5;

type Suite = (sentence: string, body: (clock: Clock, expect: ExpectStatic) => Promise<void>) => void;

/** Runs the suite. @param open Makes a clock of its own for each test. */
export function clockContract(name: string, open: () => ClockWorld): void {
  const check: Suite = (sentence, body) => {
    test(sentence, async ({ expect }) => {
      using world = open();
      await body(world.clock, expect);
    });
  };
  describe(`${name} keeps the contract of Clock: time`, () => timeTests(check));
  describe(`${name} keeps the contract of Clock: deadlines`, () => deadlineTests(check));
}

function timeTests(check: Suite): void {
  check('time passes while one sleeps, on both clocks', async (clock, expect) => {
    const [nowMs, wallMs] = [clock.nowMs(), clock.wallMs()];
    await clock.sleep(ms(20));
    expect(clock.nowMs() - nowMs).toBeGreaterThanOrEqual(20 - roundingMs);
    expect(clock.wallMs() - wallMs).toBeGreaterThanOrEqual(20 - roundingMs - 1);
    expect(Number.isInteger(clock.wallMs())).toBe(true);
  });

  check('time never goes back', async (clock, expect) => {
    let last = clock.nowMs();
    for (let round = 0; round < 50; round += 1) {
      await (round % 2 === 0 ? clock.turn() : clock.sleep(ms(0.3)));
      expect(clock.nowMs()).toBeGreaterThanOrEqual(last);
      last = clock.nowMs();
    }
  });

  check(
    'timers fire once, in the order of their times, and never within the call that sets them',
    async (clock, expect) => {
      const fired: string[] = [];
      clock.timer(ms(40), () => fired.push('third'));
      clock.timer(ms(0), () => fired.push('first'));
      clock.timer(ms(-5), () => fired.push('first'));
      clock.timer(ms(15), () => fired.push('second'));
      expect(fired).toEqual([]);
      await clock.sleep(ms(80));
      expect(fired).toEqual(['first', 'first', 'second', 'third']);
    },
  );

  check('a timer that was taken back does not fire', async (clock, expect) => {
    const fired: string[] = [];
    const cancel = clock.timer(ms(10), () => fired.push('cancelled'));
    const other = clock.timer(ms(10), () => fired.push('kept'));
    cancel();
    cancel();
    await clock.sleep(ms(30));
    other();
    expect(fired).toEqual(['kept']);
  });

  check('a timer for the next season does not fire today', async (clock, expect) => {
    const fired: string[] = [];
    const cancel = clock.timer(ms(90 * 86_400_000), () => fired.push('early'));
    await clock.sleep(ms(30));
    cancel();
    expect(fired).toEqual([]);
  });

  check('a sleep ends at once when its signal aborts, with the reason of that', async (clock, expect) => {
    const stop = new AbortController();
    const error = reason();
    const sleep = clock.sleep(ms(3_600_000), stop.signal);
    stop.abort(error);
    await expect(sleep).rejects.toBe(error);
    await expect(clock.sleep(ms(0), stop.signal)).rejects.toBe(error);
  });

  check('a sleep that has ended hears no signal any more', async (clock, expect) => {
    const stop = new AbortController();
    const sleep = clock.sleep(ms(1), stop.signal);
    await sleep;
    stop.abort(reason());
    await expect(sleep).resolves.toBeUndefined();
  });

  check('a turn comes after everything that was already under way', async (clock, expect) => {
    const order: string[] = [];
    const chain = Promise.resolve()
      .then(() => order.push('one'))
      .then(() => order.push('two'));
    const turn = clock.turn().then(() => order.push('turn'));
    await Promise.all([chain, turn]);
    expect(order).toEqual(['one', 'two', 'turn']);
  });
}

function deadlineTests(check: Suite): void {
  check('a deadline aborts with its code and its length', async (clock, expect) => {
    using deadline = clock.deadline(ms(10));
    expect(deadline.signal.aborted).toBe(false);
    await clock.sleep(ms(40));
    expect(deadline.signal.reason).toMatchObject({ code: 'DEADLINE_EXCEEDED', details: { deadlineMs: 10 } });
  });

  check('a deadline ends with its parent, and for the same reason', async (clock, expect) => {
    const parent = new AbortController();
    using deadline = clock.deadline(ms(3_600_000), parent.signal);
    const error = reason();
    parent.abort(error);
    expect(deadline.signal.reason).toBe(error);
    using late = clock.deadline(ms(3_600_000), parent.signal);
    expect(late.signal.reason).toBe(error);
  });

  check('a deadline that was taken back never aborts', async (clock, expect) => {
    const parent = new AbortController();
    const deadline = clock.deadline(ms(10), parent.signal);
    deadline[Symbol.dispose]();
    deadline[Symbol.dispose]();
    await clock.sleep(ms(30));
    parent.abort(reason());
    expect(deadline.signal.aborted).toBe(false);
  });

  check('a deadline keeps the reason it ended for', async (clock, expect) => {
    const parent = new AbortController();
    using deadline = clock.deadline(ms(5), parent.signal);
    await clock.sleep(ms(30));
    parent.abort(reason());
    expect(deadline.signal.reason).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  });
}
