/** Who owes what, under virtual time: one line for every answer, everywhere the same, and nobody gains by lying. */

import { describe, test } from 'vitest';
import type { GatewayTabs } from '../../ledger/tabs.ts';
import { runScenario, type SimResult } from '../../sim/run.ts';
import { findScenario, type Scenario } from '../../sim/scenario.ts';
import type { Sites } from '../../sim/sites.ts';
import type { World } from '../../sim/world.ts';

const scenario = findScenario('settlement');
if (scenario === undefined) throw new Error('no scenario settlement');

/** Little else than requests. */
const calm: Scenario = {
  ...scenario,
  gateways: 2,
  nodes: 3,
  hiddenNodes: 0,
  faultsMs: 20_000,
  settleMs: 40_000,
  probeMs: 2_000,
  faults: { always: ['reset'], sometimes: [], eachMax: 1 },
};

describe('settlement', () => {
  test('survives whatever a seed brings: every answer is billed once, and strict budgets hold', {
    timeout: 900_000,
  }, async ({ expect }) => {
    const effects = new Set<string>();
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      const result = await runScenario(scenario, { seed });
      expect([seed, result.violations]).toEqual([seed, []]);
      expect(result.money?.lines).toBeGreaterThan(300);
      expect(result.money?.poorSpentMicro).toBeGreaterThan(0);
      for (const kind of Object.keys(result.faults)) effects.add(kind);
    }
    expect(['crash', 'partition', 'diskFull'].filter((kind) => !effects.has(kind))).toEqual([]);
  });

  test('played again it is the same to the last event', { timeout: 600_000 }, async ({ expect }) => {
    const untimed = ({ eventsPerSecond: _, ...rest }: SimResult) => rest;
    const [first, again] = [await runScenario(calm, { seed: 7 }), await runScenario(calm, { seed: 7 })];
    expect(untimed(again)).toEqual(untimed(first));
  });
});

type Sabotage = (world: World, sites: Sites) => void;

const play = (sabotage: Sabotage): Promise<SimResult> => runScenario(calm, { seed: 5, sabotage });
const checksOf = ({ violations }: SimResult): string[] => [...new Set(violations.map(({ check }) => check))];

/** The first gateway changes what it writes down. */
const lyingGateway =
  (change: (begin: GatewayTabs['begin']) => GatewayTabs['begin']): Sabotage =>
  (_, sites) =>
    sites.onBooted((site) => {
      if (site.role !== 'gateway' || site !== sites.gateways[0] || site.gateway === undefined) return;
      const { tabs } = site.gateway;
      tabs.begin = change(tabs.begin.bind(tabs));
    });

describe('a run notices', { timeout: 600_000 }, () => {
  test('nothing, when nothing is planted', async ({ expect }) => {
    expect(checksOf(await play(() => {}))).toEqual([]);
  });

  test('a gateway that leaves lines out', async ({ expect }) => {
    const found = await play(
      lyingGateway((begin) => (start) => {
        const line = begin(start);
        if (line.serial % 3 !== 0) return line;
        return {
          serial: line.serial,
          startMs: line.startMs,
          received: (tokens) => line.received(tokens),
          drop: () => line.drop(),
          end: (_, durable) => {
            line.drop();
            queueMicrotask(durable);
          },
        };
      }),
    );
    expect(checksOf(found)).toEqual(expect.arrayContaining(['an answered request has its line', 'work is covered']));
  });

  test('a gateway that writes down fewer tokens than it received', async ({ expect }) => {
    const found = await play(
      lyingGateway((begin) => (start) => {
        const line = begin(start);
        return {
          serial: line.serial,
          startMs: line.startMs,
          received: () => {},
          drop: () => line.drop(),
          end: (end, durable) => line.end({ ...end, completionTokens: Math.floor(end.completionTokens / 2) }, durable),
        };
      }),
    );
    expect(checksOf(found)).toEqual(expect.arrayContaining(['nothing honest is refused', 'work is covered']));
  });

  test('a node that reports more than it sent is paid what it sent', async ({ expect }) => {
    const inflated = await play((_, sites) =>
      sites.onBooted((site) => {
        if (site.role !== 'node' || site.engine === undefined) return;
        const { engine } = site;
        const real = engine.generate.bind(engine);
        engine.generate = async (...asked) => {
          const done = await real(...asked);
          return { ...done, completionTokens: done.completionTokens * 10 };
        };
      }),
    );
    const honest = await play(() => {});
    // One end token for each answer is all that it gains.
    const gainMicro = (inflated.money?.accountMicro ?? 0) - (honest.money?.accountMicro ?? 0);
    expect(gainMicro).toBeLessThanOrEqual(2 * (honest.money?.lines ?? 0));
  });
});
