/** The timer behind a node's loads. */

import { test } from 'vitest';
import { LoadReport } from '../../node/load-report.ts';
import type { Load } from '../../protocol/messages/session.ts';
import type { Clock } from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';

const load: Load = {
  type: 'load',
  active: 1,
  queued: 0,
  freeSlots: 0,
  tokensPerSecond: 0,
  draining: false,
  progress: 0,
};

test('a timer that rings a moment early is followed by a wait, not by itself for ever', ({ expect }) => {
  let nowMs = 0.1;
  let ring: (() => void) | undefined;
  const waits: number[] = [];
  const clock = {
    nowMs: () => ms(nowMs),
    timer: (delay: number, fire: () => void) => {
      waits.push(delay);
      ring = fire;
      return () => {};
    },
  } as unknown as Clock;
  let sent = 0;
  const report = new LoadReport(clock, {
    load: () => load,
    send: () => {
      sent += 1;
    },
  });
  report.changed();
  nowMs += 1_000 - 1e-9;
  ring?.();
  expect([sent, waits.at(-1)]).toEqual([1, 1]);
  nowMs += 1;
  ring?.();
  expect(sent).toBe(2);
  report.close();
});
