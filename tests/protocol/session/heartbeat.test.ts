/** A checker that was late itself blames nobody before it has read what waits. */

import { describe, test } from 'vitest';
import { limits } from '../../../protocol/limits.ts';
import { Heartbeat, watchIntervalMs } from '../../../protocol/session/heartbeat.ts';
import { type Ms, ms } from '../../../protocol/units.ts';
import { ManualClock } from '../../support/manual-clock.ts';

/** A process that can stand still: its timers fire late, and what came meanwhile is read in a turn of its own. */
class LateClock extends ManualClock {
  lateMs = 0;
  /** Read by the next turn. */
  waiting: (() => void)[] = [];
  turnsAsked = 0;

  override nowMs(): Ms {
    return ms(super.nowMs() + this.lateMs);
  }

  override async turn(): Promise<void> {
    this.turnsAsked += 1;
    await super.turn();
    for (const read of this.waiting.splice(0)) read();
  }
}

interface Watched {
  readonly clock: LateClock;
  readonly heartbeat: Heartbeat;
  readonly events: string[];
}

/** What happens to a peer is written down in `events`. */
const open = (clock: LateClock, events: string[], idleMs: () => Ms = () => watchIntervalMs(1)): Heartbeat =>
  new Heartbeat(
    clock,
    {
      ping: () => events.push('ping'),
      suspect: () => events.push('suspect'),
      dead: () => events.push('dead'),
    },
    idleMs,
  );

/** A peer watched closely, with one ping out. */
async function watch(): Promise<Watched> {
  const clock = new LateClock();
  const events: string[] = [];
  const heartbeat = open(clock, events);
  heartbeat.setActive(true);
  await clock.advance(limits.heartbeatActiveMs);
  return { clock, heartbeat, events };
}

describe('a process that stood still', () => {
  test.for([
    ['long enough to suspect its peer', limits.heartbeatActiveMs * limits.heartbeatMissesMax],
    ['long enough to give its peer up', limits.sessionSilentMs],
  ] as const)('%s hears the answer that waits first', async ([, lateMs], { expect }) => {
    const { clock, heartbeat, events } = await watch();
    clock.lateMs = lateMs;
    clock.waiting.push(() => heartbeat.ponged(true));
    await clock.advance(limits.heartbeatActiveMs);
    expect([events, heartbeat.isSuspect]).toEqual([['ping', 'ping'], false]);
  });

  test('judges all the same when nothing waits', async ({ expect }) => {
    const { clock, events } = await watch();
    clock.lateMs = limits.sessionSilentMs;
    await clock.advance(limits.heartbeatActiveMs);
    expect(events).toEqual(['ping', 'dead']);
  });

  test('says nothing of a session that ends in that turn', async ({ expect }) => {
    const { clock, heartbeat, events } = await watch();
    clock.lateMs = limits.sessionSilentMs;
    clock.waiting.push(() => heartbeat.stop());
    await clock.advance(limits.heartbeatActiveMs);
    expect([events, clock.timers]).toEqual([['ping'], 0]);
  });
});

test('a process that is on time judges in the turn of its timer', async ({ expect }) => {
  const { clock, events } = await watch();
  await clock.advance(limits.heartbeatActiveMs * (limits.heartbeatMissesMax - 1));
  clock.turnsAsked = 0;
  await clock.advance(limits.heartbeatActiveMs);
  expect(events.at(-2)).toBe('suspect');
  // One after the timer that fired and one at the end, both the test clock's own.
  expect(clock.turnsAsked).toBe(2);
});

describe('an idle node', () => {
  test('that falls silent at any moment is known to be within three seconds', async ({ expect }) => {
    for (let silentFromMs = 0; silentFromMs < 2 * limits.heartbeatWatchMs; silentFromMs += 50) {
      const clock = new LateClock();
      const events: string[] = [];
      const heartbeat = open(clock, events);
      for (let atMs = 0; !heartbeat.isSuspect; atMs += 50) {
        const pings = events.length;
        await clock.advance(50);
        if (events.length > pings && atMs + 50 < silentFromMs) heartbeat.ponged(true);
        expect(atMs + 50 - silentFromMs).toBeLessThanOrEqual(3_000);
      }
      heartbeat.stop();
    }
  });

  test('that answers is asked as seldom as was said, and never suspected', async ({ expect }) => {
    const clock = new LateClock();
    const events: string[] = [];
    const heartbeat = open(clock, events);
    const seconds = 60;
    for (let atMs = 0; atMs < seconds * 1_000; atMs += 50) {
      const pings = events.length;
      await clock.advance(50);
      if (events.length > pings) heartbeat.ponged(true);
    }
    expect([new Set(events), heartbeat.isSuspect]).toEqual([new Set(['ping']), false]);
    expect(events.length).toBe((seconds * 1_000) / limits.heartbeatWatchMs);
  });

  test('is asked when its turn comes, though a clock that counts in fractions is short of it by one', async ({
    expect,
  }) => {
    const clock = new LateClock();
    const events: string[] = [];
    open(clock, events);
    clock.lateMs = -1e-9;
    await clock.advance(limits.heartbeatWatchMs);
    expect([events, clock.timers]).toEqual([['ping'], 1]);
  });

  test('far away is asked again before it has answered, and is not suspected', async ({ expect }) => {
    const clock = new LateClock();
    const events: string[] = [];
    const heartbeat = open(clock, events);
    const answersAtMs: number[] = [];
    for (let atMs = 0; atMs < 60_000; atMs += 50) {
      const pings = events.length;
      await clock.advance(50);
      if (events.length > pings) answersAtMs.push(atMs + 700);
      if (atMs === answersAtMs[0]) heartbeat.ponged(answersAtMs.shift() !== undefined && answersAtMs.length === 0);
    }
    expect([new Set(events), heartbeat.isSuspect]).toEqual([new Set(['ping']), false]);
  });

  test.for([
    [0, 1_500],
    [192, 1_500],
    [256, 2_000],
    [1_280, 10_000],
    [100_000, 10_000],
  ] as const)('of a gateway with %i sessions is asked every %i ms', ([sessions, intervalMs], { expect }) => {
    expect(watchIntervalMs(sessions)).toBe(intervalMs);
  });
});
