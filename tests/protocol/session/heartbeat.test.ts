/** A checker that was late itself blames nobody before it has read what waits. */

import { describe, test } from 'vitest';
import { limits } from '../../../protocol/limits.ts';
import { Heartbeat } from '../../../protocol/session/heartbeat.ts';
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

/** A peer watched closely, with one ping out. */
async function watch(): Promise<Watched> {
  const clock = new LateClock();
  const events: string[] = [];
  const heartbeat = new Heartbeat(clock, {
    ping: () => events.push('ping'),
    suspect: () => events.push('suspect'),
    dead: () => events.push('dead'),
  });
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
