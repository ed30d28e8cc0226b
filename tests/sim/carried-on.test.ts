/** Nodes that die, hang and lose their connections in mid-answer, in the simulator: what clients get, and what a run notices. */

import { describe, test } from 'vitest';
import { runScenario, type SimResult } from '../../sim/run.ts';
import { findScenario, type Scenario } from '../../sim/scenario.ts';
import type { NodeSite, Sites } from '../../sim/sites.ts';
import type { World } from '../../sim/world.ts';

const scenarioOf = (name: string): Scenario => {
  const found = findScenario(name);
  if (found === undefined) throw new Error(`no scenario is named ${name}`);
  return found;
};

const firstSeed = 1;
const seeds = 24;

const checks = (result: SimResult): string[] => [...new Set(result.violations.map(({ check }) => check))];

/** Changes what every engine is asked for when it goes on with an answer. */
const resuming =
  (change: (engine: NonNullable<NodeSite['engine']>) => void) =>
  (_: World, sites: Sites): void =>
    sites.onBooted((site) => {
      if (site.role === 'node' && site.engine !== undefined) change(site.engine);
    });

describe('answers that are carried on', () => {
  test('are whole, whatever a seed does to nodes, and are billed and told right', {
    timeout: 900_000,
  }, async ({ expect }) => {
    const broken: string[] = [];
    const sums = { spliced: 0, done: 0, gapMaxMs: 0 };
    for (let seed = firstSeed; seed < firstSeed + seeds; seed += 1) {
      const result = await runScenario(scenarioOf('cuts'), { seed });
      if (result.violations.length > 0) broken.push(`seed ${seed}: ${checks(result).join(', ')}`);
      sums.spliced += result.requests.spliced.count;
      sums.done += result.requests.done;
      sums.gapMaxMs = Math.max(sums.gapMaxMs, result.requests.spliced.gapMaxMs);
    }
    console.info(`${sums.spliced} of ${sums.done} answers were carried on, with gaps of at most ${sums.gapMaxMs} ms`);
    expect(broken).toEqual([]);
    expect(sums.spliced).toBeGreaterThan(5 * seeds);
  });

  test('never fail while some nodes are left', { timeout: 900_000 }, async ({ expect }) => {
    const result = await runScenario(scenarioOf('carried-on'), { seed: 1 });
    expect([result.violations, result.requests.failed]).toEqual([[], {}]);
    expect(result.requests.spliced.count).toBeGreaterThan(5);
  });

  test('are the same to the last event when a seed is played again', { timeout: 900_000 }, async ({ expect }) => {
    const [first, second] = [
      await runScenario(scenarioOf('cuts'), { seed: 9 }),
      await runScenario(scenarioOf('cuts'), { seed: 9 }),
    ];
    expect(second.traceHash).toBe(first.traceHash);
  });
});

describe('a run notices', () => {
  const play = (sabotage: (world: World, sites: Sites) => void): Promise<SimResult> =>
    runScenario(scenarioOf('cuts'), { seed: 11, sabotage });

  test('a node that begins again where it should go on', { timeout: 300_000 }, async ({ expect }) => {
    const result = await play(
      resuming((engine) => {
        const real = engine.generate.bind(engine);
        engine.generate = ({ model, chat }, emit, signal) => real({ model, chat }, emit, signal);
      }),
    );
    expect(checks(result)).toContain('honest text');
  });

  test('a node that leaves out a token where it goes on', { timeout: 300_000 }, async ({ expect }) => {
    const result = await play(
      resuming((engine) => {
        const real = engine.generate.bind(engine);
        engine.generate = (request, emit, signal) => {
          let isFirst = request.resume !== undefined;
          return real(
            request,
            (delta) => {
              const isLeftOut = isFirst;
              isFirst = false;
              return isLeftOut ? undefined : emit(delta);
            },
            signal,
          );
        };
      }),
    );
    expect(checks(result)).toContain('honest text');
  });
});
