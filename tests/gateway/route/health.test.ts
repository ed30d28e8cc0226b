/** Breakers and slow starts. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { openMaxMs, openMinMs, servedMs, warmAttempts, warmMs } from '../../../gateway/route/breaker.ts';
import {
  type AttemptHealth,
  createHealths,
  cutMs,
  type Healths,
  type ServingHealth,
} from '../../../gateway/route/health.ts';
import { type ErrorCode, errorCodes, errorRow } from '../../../protocol/errors.ts';
import { ms } from '../../../protocol/units.ts';
import { digestOf, peerId } from './routed-node.ts';

const peer = peerId('p');
const model = digestOf('a');

interface Stage {
  readonly healths: Healths;
  readonly health: ServingHealth;
  nowMs: number;
  /** The next draws of chance; 0.5 is no jitter. */
  float: number;
}

function stage(peersMax?: number): Stage {
  const deps = { clock: { nowMs: () => ms(on.nowMs) }, random: { float: () => on.float } };
  const healths = createHealths(deps, peersMax === undefined ? {} : { peersMax });
  const on: Stage = {
    healths,
    nowMs: 100_000,
    float: 0.5,
    get health() {
      return healths.of(peer, model);
    },
  };
  return on;
}

/** One attempt after the other: `w` works, `f` fails, `x` works and fails then, `d` is dropped. */
function play({ health }: Stage, ends: string, code: ErrorCode = 'ENGINE_FAILED'): void {
  for (const end of ends) {
    const attempt = health.began();
    if (end === 'w' || end === 'x') attempt.worked();
    if (end === 'f' || end === 'x') attempt.failed(code);
    if (end === 'd') attempt.dropped();
  }
}

/** A stage whose breaker has just opened for `openMinMs`. */
function opened(): Stage {
  const on = stage();
  play(on, 'fff');
  return on;
}

describe('a breaker', () => {
  test.for<[string, ends: string, isOpen: boolean]>([
    ['two failures in a row leave it closed', 'ff', false],
    ['three in a row open it', 'fff', true],
    ['a success in between begins the row anew', 'ffwff', false],
    ['an attempt that is taken away does not', 'ffdf', true],
    ['three that fail after content open it', 'xxx', true],
    ['half of ten open it', 'wfwfwfwfwf', true],
    ['half of nine do not', 'fwfwfwfwf', false],
    ['a third of many does not', 'wwfwwfwwfwwfwwfwwfwwf', false],
  ])('%s', ([, ends, isOpen], { expect }) => {
    const on = stage();
    play(on, ends);
    expect([on.health.state, on.health.isAllowed]).toEqual(isOpen ? ['open', false] : ['closed', true]);
  });

  test('forgets failures after half a minute, but not those in a row', ({ expect }) => {
    const on = stage();
    play(on, 'wfwfwfwfw');
    on.nowMs += 35_000;
    play(on, 'f');
    expect(on.health.state).toBe('closed');
    on.nowMs += 3_600_000;
    play(on, 'ff');
    expect(on.health.state).toBe('open');
  });

  test('forgets them one after the other', ({ expect }) => {
    const on = stage();
    play(on, 'fwfwfwfwf');
    on.nowMs += 20_000;
    play(on, 'w');
    on.nowMs += 11_000;
    play(on, 'f');
    expect(on.health.state).toBe('closed');
  });

  test('counts attempts of the last half minute, whenever they end in it', ({ expect }) => {
    const on = stage();
    for (const end of 'fwfwfwfwf') {
      play(on, end);
      on.nowMs += 2_000;
    }
    expect(on.health.state).toBe('closed');
    play(on, 'w');
    play(on, 'f');
    expect(on.health.state).toBe('open');
  });

  test('opens for codes that blame the node, and for no other', ({ expect }) => {
    const found = errorCodes.filter((code) => {
      const on = stage();
      for (let time = 0; time < 3; time += 1) play(on, 'f', code);
      return on.health.state === 'open';
    });
    expect(found).toEqual(errorCodes.filter((code) => errorRow(code).blame === 'node'));
    expect(found).toContain('ENGINE_FAILED');
    expect(found).not.toContain('NODE_OVERLOADED');
  });

  test('opens at once for an attempt that stalled, and tells why', ({ expect }) => {
    const on = stage();
    play(on, 'wwwwwwwwx', 'NODE_STALLED');
    expect([on.health.state, on.health.openedBy]).toEqual(['open', 'NODE_STALLED']);
  });

  test('takes all attempts that one cut has ended for one failure', ({ expect }) => {
    const on = stage();
    const cut = (): void => {
      const attempts = Array.from({ length: 20 }, () => on.health.began());
      for (const attempt of attempts.slice(0, 10)) attempt.worked();
      for (const attempt of attempts) attempt.failed('NODE_LOST');
    };
    cut();
    cut();
    expect(on.health.state).toBe('closed');
    cut();
    expect(on.health.state).toBe('open');
  });

  test('is of one model at one node', ({ expect }) => {
    const on = opened();
    expect(on.healths.of(peer, digestOf('b')).isAllowed).toBe(true);
    expect(on.healths.of(peerId('q'), model).isAllowed).toBe(true);
    expect(on.healths.of(peer, model)).toBe(on.health);
  });

  test('stays as it is while its node is away, and comes back', ({ expect }) => {
    const on = opened();
    on.healths.gone(peer);
    on.nowMs += 1_000;
    on.healths.arrived(peer);
    expect(on.health.state).toBe('open');
  });
});

describe('an open breaker', () => {
  test('lets one attempt pass after two seconds', ({ expect }) => {
    const on = opened();
    expect([on.health.state, on.health.probeAtMs]).toEqual(['open', on.nowMs + openMinMs]);
    on.nowMs += openMinMs - 1;
    expect(on.health.isAllowed).toBe(false);
    on.nowMs += 1;
    expect([on.health.state, on.health.isAllowed, on.health.probeAtMs]).toEqual(['half-open', true, undefined]);
    on.health.began();
    expect([on.health.state, on.health.isAllowed]).toEqual(['half-open', false]);
  });

  test('closes when that works, and forgets what was', ({ expect }) => {
    const on = opened();
    on.nowMs += openMinMs;
    play(on, 'w');
    expect([on.health.state, on.health.isAllowed, on.health.probeAtMs]).toEqual(['closed', true, undefined]);
    play(on, 'ff');
    expect(on.health.state).toBe('closed');
    play(on, 'f');
    expect(on.health.probeAtMs).toBe(on.nowMs + openMinMs);
  });

  test('forgets then also how many had failed', ({ expect }) => {
    const on = stage();
    play(on, 'wfwfwfwfwf');
    on.nowMs += openMinMs;
    play(on, 'wf');
    expect(on.health.state).toBe('closed');
  });

  test('opens for twice as long when that fails, up to a minute', ({ expect }) => {
    const on = opened();
    const opens: number[] = [];
    for (let time = 0; time < 8; time += 1) {
      on.nowMs = on.health.probeAtMs ?? 0;
      play(on, 'f', 'NODE_LOST');
      opens.push((on.health.probeAtMs ?? 0) - on.nowMs);
    }
    expect(opens).toEqual([4_000, 8_000, 16_000, 32_000, openMaxMs, openMaxMs, openMaxMs, openMaxMs]);
    expect(on.health.openedBy).toBe('NODE_LOST');
  });

  test('opens again for longer when that shows content and fails then', ({ expect }) => {
    const on = opened();
    on.nowMs += openMinMs;
    play(on, 'x');
    expect([on.health.state, on.health.probeAtMs]).toEqual(['open', on.nowMs + 2 * openMinMs]);
  });

  test('opens again for longer for one such failure, though a single one had opened it', ({ expect }) => {
    const on = stage();
    play(on, 'f', 'NODE_STALLED');
    on.nowMs += openMinMs;
    play(on, 'x');
    expect([on.health.state, on.health.probeAtMs]).toEqual(['open', on.nowMs + 2 * openMinMs]);
  });

  test('learns nothing from attempts that it has not let pass', ({ expect }) => {
    const on = opened();
    play(on, 'w');
    expect(on.health.state).toBe('open');
    on.nowMs += openMinMs;
    const probe = on.health.began();
    play(on, 'wf', 'NODE_STALLED');
    expect([on.health.state, on.health.isAllowed]).toEqual(['half-open', false]);
    probe.dropped();
    expect(on.health.isAllowed).toBe(true);
  });

  test('lets another one pass when that is taken away, or fails for no fault of the node', ({ expect }) => {
    const on = opened();
    on.nowMs += openMinMs;
    for (const end of [(one: AttemptHealth) => one.dropped(), (one: AttemptHealth) => one.failed('NODE_OVERLOADED')]) {
      const probe = on.health.began();
      expect(on.health.isAllowed).toBe(false);
      end(probe);
      expect([on.health.state, on.health.isAllowed]).toEqual(['half-open', true]);
    }
  });

  test('learns nothing from attempts that began before', ({ expect }) => {
    const on = stage();
    const early = Array.from({ length: 6 }, () => on.health.began());
    play(on, 'fff');
    early[0]?.worked();
    early[1]?.failed('NODE_STALLED');
    expect(on.health.probeAtMs).toBe(on.nowMs + openMinMs);
    on.nowMs += openMinMs;
    const probe = on.health.began();
    early[2]?.worked();
    early[3]?.dropped();
    expect([on.health.state, on.health.isAllowed]).toEqual(['half-open', false]);
    probe.worked();
    early[4]?.failed('NODE_STALLED');
    early[0]?.failed('NODE_STALLED');
    expect(on.health.state).toBe('closed');
  });

  test.for([
    [0, 0.8],
    [0.5, 1],
    [1, 1.2],
  ] as const)('is open for more or less than that, by chance: %d', ([float, factor], { expect }) => {
    const on = stage();
    on.float = float;
    play(on, 'fff');
    expect(on.health.probeAtMs).toBeCloseTo(on.nowMs + openMinMs * factor, 6);
  });

  test('whatever comes in whatever order, has one probe at most, and lets one pass in time', ({ expect }) => {
    const step = fc.constantFrom('began', 'worked', 'failed', 'stalled', 'dropped', 'wait');
    fc.assert(
      fc.property(fc.array(fc.tuple(step, fc.nat(9)), { maxLength: 60 }), (steps) => {
        const on = stage();
        const running: AttemptHealth[] = [];
        let probes = 0;
        for (const [kind, at] of steps) {
          const attempt = running[at % Math.max(1, running.length)];
          if (kind === 'wait') on.nowMs += at * 1_000;
          else if (kind === 'began' && on.health.isAllowed) {
            if (on.health.state === 'half-open') probes += 1;
            running.push(on.health.began());
          } else if (kind === 'worked') attempt?.worked();
          else if (kind === 'failed') attempt?.failed('ENGINE_FAILED');
          else if (kind === 'stalled') attempt?.failed('NODE_STALLED');
          else if (kind === 'dropped') attempt?.dropped();
          if (on.health.state !== 'half-open') probes = 0;
          else if (on.health.isAllowed) probes = 0;
          expect(probes).toBeLessThanOrEqual(1);
        }
        for (const attempt of running) attempt.dropped();
        on.nowMs += 1.2 * openMaxMs;
        expect(on.health.isAllowed).toBe(true);
      }),
    );
  });
});

describe('an attempt', () => {
  test('counts once, whatever is told of it afterwards', ({ expect }) => {
    const on = stage();
    const attempt = on.health.began();
    for (let time = 0; time < 5; time += 1) attempt.failed('ENGINE_FAILED');
    expect(on.health.state).toBe('closed');
    attempt.worked();
    play(on, 'ff');
    expect(on.health.state).toBe('open');
  });

  test('that works again and again counts once', ({ expect }) => {
    const on = stage();
    const attempt = on.health.began();
    attempt.worked();
    play(on, 'ff');
    attempt.worked();
    play(on, 'f');
    expect(on.health.state).toBe('open');
  });
});

describe('a newcomer', () => {
  test('is trusted with a quarter, and with all within ten seconds', ({ expect }) => {
    const on = stage();
    on.healths.arrived(peer);
    const seen = [0, 0.2, 0.5, 0.8, 1, 2].map((share) => {
      on.nowMs = 100_000 + share * warmMs;
      return on.health.warmth;
    });
    expect(seen).toEqual([0.25, 0.4, 0.625, 0.85, 1, 1].map((warmth) => expect.closeTo(warmth, 9)));
  });

  test('or with all after eight attempts that worked', ({ expect }) => {
    const on = stage();
    const seen = Array.from({ length: warmAttempts + 1 }, () => {
      const { warmth } = on.health;
      play(on, 'wd');
      return warmth;
    });
    expect(seen.slice(0, 3)).toEqual([0.25, 0.25 + 0.75 / 8, 0.25 + 1.5 / 8]);
    expect(seen.every((warmth, at) => at === 0 || warmth >= (seen[at - 1] ?? 0))).toBe(true);
    expect(seen[warmAttempts]).toBe(1);
    expect(on.health.warmth).toBe(1);
  });

  test('grows by whichever is further', ({ expect }) => {
    const on = stage();
    play(on, 'ww');
    on.nowMs += warmMs / 2;
    expect(on.health.warmth).toBe(0.625);
  });

  test.for<[string, hereMs: number, awayMs: number, warmth: number]>([
    ['was long there and is back soon', warmMs, cutMs - 1, 1],
    ['was long there and is back late', warmMs, cutMs, 0.25],
    ['was there for a moment only', warmMs - 1, 20_000, 0.25],
  ])('is one that %s: it has %d, away %d, then %d', ([, hereMs, awayMs, warmth], { expect }) => {
    const on = stage();
    on.healths.arrived(peer);
    expect(on.health.warmth).toBe(0.25);
    on.nowMs += hereMs;
    on.healths.gone(peer);
    on.nowMs += awayMs;
    on.healths.arrived(peer);
    expect(on.health.warmth).toBe(warmth);
  });

  test('is none whose session is replaced by another', ({ expect }) => {
    const on = stage();
    on.healths.arrived(peer);
    expect(on.health.warmth).toBe(0.25);
    on.nowMs += warmMs;
    on.healths.arrived(peer);
    expect(on.health.warmth).toBe(1);
  });

  test('is one whose breaker has closed again', ({ expect }) => {
    const on = opened();
    on.nowMs += openMaxMs;
    expect(on.health.warmth).toBe(1);
    play(on, 'w');
    expect(on.health.warmth).toBe(0.25 + 0.75 / 8);
  });
});

describe('a node that has sent an answer for long before it fails', () => {
  const failAfter = (on: Stage, elapsedMs: number): void => {
    const attempt = on.health.began();
    attempt.worked();
    on.nowMs += elapsedMs;
    attempt.failed('NODE_LOST');
  };

  test.for([
    [servedMs, 'closed'],
    [servedMs - 1, 'open'],
  ] as const)('for %i ms, three times: %s', ([elapsedMs, state], { expect }) => {
    const on = stage();
    for (let time = 0; time < 3; time += 1) failAfter(on, elapsedMs);
    expect(on.health.state).toBe(state);
  });
});

describe('what is remembered', () => {
  test('is bounded by nodes: those unseen for longest go', ({ expect }) => {
    const on = stage(4);
    play(on, 'fff');
    const { health } = on;
    for (let at = 0; at < 8; at += 1) on.healths.of(peerId(`other${at}`), model);
    expect(on.health).not.toBe(health);
    expect(on.health.state).toBe('closed');
  });

  test('and by models of each', ({ expect }) => {
    const on = opened();
    const { health } = on;
    const digests = Array.from({ length: 128 }, (_, at) => `${digestOf('x').slice(0, 60)}${1_000 + at}`);
    for (const digest of digests.slice(1)) on.healths.of(peer, digest as typeof model);
    expect(on.health).toBe(health);
    on.healths.of(peer, digests[0] as typeof model);
    expect(on.health).not.toBe(health);
  });
});
