/** Deliberate bugs: each is planted in a run, and the run notices. A checker that has never failed proves nothing. */

import { describe, test } from 'vitest';
import type { EngineDelta } from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';
import { runScenario, type SimResult } from '../../sim/run.ts';
import { type Scenario, scenarios } from '../../sim/scenario.ts';
import type { Site, Sites } from '../../sim/sites.ts';
import type { World } from '../../sim/world.ts';

const hostRandom = Math.random;

const small: Scenario = {
  ...(scenarios[0] as Scenario),
  name: 'small',
  gateways: 2,
  nodes: 4,
  hiddenNodes: 1,
  tokens: 'fast',
  requestsPerSecond: 6,
  faultsMs: 20_000,
  settleMs: 40_000,
};

type Sabotage = (world: World, sites: Sites) => void;

const play = (sabotage: Sabotage, changes: Partial<Scenario> = {}): Promise<SimResult> =>
  runScenario({ ...small, ...changes }, { seed: 5, sabotage });

const brokenChecks = (result: SimResult): string[] => [...new Set(result.violations.map(({ check }) => check))];

/** Changes what every engine hands over. */
const deltas =
  (change: (delta: EngineDelta, at: number) => readonly EngineDelta[]): Sabotage =>
  (_, sites) =>
    sites.onBooted((site) => {
      if (site.role !== 'node' || site.engine === undefined) return;
      const { engine } = site;
      const real = engine.generate.bind(engine);
      engine.generate = (request, emit, signal) => {
        let count = 0;
        const emitChanged = (delta: EngineDelta): Promise<void> | undefined => {
          count += 1;
          let taken: Promise<void> | undefined;
          for (const changed of change(delta, count)) taken = emit(changed);
          return taken;
        };
        return real(request, emitChanged, signal);
      };
    });

const onEach =
  (act: (site: Site, world: World) => void): Sabotage =>
  (world, sites) =>
    sites.onBooted((site) => act(site, world));

describe('a run notices', () => {
  test('nothing, when nothing is planted', async ({ expect }) => {
    const result = await play(() => {});
    expect([result.violations, (result.faults.partition ?? 0) > 0]).toEqual([[], true]);
  });

  test('a repeated token', async ({ expect }) => {
    const result = await play(deltas((delta, at) => (at === 3 ? [delta, delta] : [delta])));
    expect(brokenChecks(result)).toContain('honest text');
  });

  test('a swallowed token', async ({ expect }) => {
    const result = await play(deltas((delta, at) => (at === 3 ? [] : [delta])));
    expect(brokenChecks(result)).toContain('honest text');
  });

  test('an answer that ends early and says that it is whole', async ({ expect }) => {
    const result = await play(deltas((delta, at) => (at > 5 ? [] : [delta])));
    expect(brokenChecks(result)).toContain('whole answer');
  });

  test('a partition that stops nothing, by its missing effect', async ({ expect }) => {
    const result = await play(({ links }) => {
      links.stops = () => false;
      links.isBlocked = () => false;
    });
    expect(result.faults.partition).toBeUndefined();
  });

  test('a partition that never heals', async ({ expect }) => {
    const result = await play(({ links }) => {
      const add = links.add.bind(links);
      links.add = (rule) => {
        add(rule);
        return () => {};
      };
    });
    expect(brokenChecks(result)).toContain('connected again');
  });

  test('a timer that outlives its process', async ({ expect }) => {
    const sabotage = onEach(({ machine }, { kernel }) => {
      const clock = machine.ports?.clock;
      const tick = (): void => {
        clock?.nowMs();
        kernel.schedule(1_000, tick);
      };
      tick();
    });
    const result = await play(sabotage, { faults: { always: ['crash'], sometimes: [], eachMax: 1 } });
    expect(brokenChecks(result)).toContain('no broken promise');
    expect(result.violations[0]?.detail).toContain('a dead process does nothing');
  });

  test('a timer for every request that nobody takes back', async ({ expect }) => {
    const sabotage = onEach(({ machine, ...site }) => {
      if (site.role !== 'node' || site.engine === undefined) return;
      const { engine } = site;
      const real = engine.generate.bind(engine);
      engine.generate = (request, emit, signal) => {
        machine.ports?.clock.timer(ms(3_600_000), () => {});
        return real(request, emit, signal);
      };
    });
    expect(brokenChecks(await play(sabotage))).toContain('no leak');
  });

  test('an engine that never gives a slot back', async ({ expect }) => {
    const sabotage = onEach((site) => {
      if (site.role !== 'node' || site.engine === undefined) return;
      site.engine.generate = () => new Promise(() => {});
    });
    expect(brokenChecks(await play(sabotage))).toEqual(
      expect.arrayContaining(['nothing fails without a fault', 'no leak']),
    );
  });

  test('a process that stays away after a crash', async ({ expect }) => {
    const sabotage: Sabotage = (_, sites) => {
      const boot = sites.boot.bind(sites);
      sites.boot = (site) => {
        if (site.machine.runs === 0) boot(site);
      };
    };
    const result = await play(sabotage, { faults: { always: ['crash'], sometimes: [], eachMax: 1 } });
    expect(brokenChecks(result)).toContain('all run again');
  });

  test('a look at the real clock', async ({ expect }) => {
    const sabotage = onEach(({ machine }) => {
      machine.ports?.clock.timer(ms(5_000), () => void Date.now());
    });
    const result = await play(sabotage);
    expect(result.violations[0]).toMatchObject({ check: 'no broken promise' });
    expect(result.violations[0]?.detail).toContain('Date.now');
  });

  test('an unexpected error in the log', async ({ expect }) => {
    const sabotage = onEach(({ machine }) => {
      machine.ports?.clock.timer(ms(5_000), () => machine.ports?.log.error('surprise', {}, new TypeError('planted')));
    });
    expect((await play(sabotage)).violations[0]?.detail).toContain('planted');
  });

  test('real chance, by the trace hash', async ({ expect }) => {
    const sabotage = onEach(({ machine }) => {
      machine.ports?.clock.timer(ms(1_000 + 1_000 * hostRandom.call(Math)), () => {});
    });
    const hashes = [(await play(sabotage)).traceHash, (await play(sabotage)).traceHash];
    expect(hashes[0]).not.toBe(hashes[1]);
  });
});
