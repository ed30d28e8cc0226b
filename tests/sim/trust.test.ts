/** Who may, under virtual time: revocations and bans arrive, forks are proven, restored backups fork nobody. */

import { describe, test } from 'vitest';
import { runScenario, type SimResult } from '../../sim/run.ts';
import { findScenario, type Scenario } from '../../sim/scenario.ts';
import type { GatewaySite, Sites } from '../../sim/sites.ts';
import type { World } from '../../sim/world.ts';

const scenario = findScenario('revocations');
if (scenario === undefined) throw new Error('no scenario revocations');

const twenty: Scenario = { ...scenario, gateways: 20 };
/** A hundred gateways, and little else. */
const calm: Scenario = {
  ...scenario,
  nodes: 2,
  calmMs: 40_000,
  faultsMs: 5_000,
  settleMs: 30_000,
  probeMs: 1_000,
  faults: { always: ['reset'], sometimes: [], eachMax: 1 },
};
const small: Scenario = { ...calm, gateways: 4 };

describe('revocations', () => {
  test('reach a hundred connected gateways within two seconds', { timeout: 600_000 }, async ({ expect }) => {
    const result = await runScenario(calm, { seed: 1 });
    expect(result.violations).toEqual([]);
    expect(result.trust?.measured).toBeGreaterThan(1_000);
    expect(result.trust?.p99Ms).toBeLessThanOrEqual(2_000);
    expect(result.trust?.bans).toMatchObject({ banned: 8, known: { measured: 800 } });
    expect(result.trust?.bans.known.p99Ms).toBeLessThanOrEqual(2_000);
    expect(result.trust?.bans.cutOff.measured).toBeGreaterThan(700);
    expect(result.trust?.bans.cutOff.p99Ms).toBeLessThanOrEqual(2_000);
    expect(result.trust?.forkProvenMs).toBeLessThan(5_000);
  });

  test('survive whatever a seed brings, on every gateway, and fork nobody who is honest', {
    timeout: 900_000,
  }, async ({ expect }) => {
    const effects = new Set<string>();
    for (const seed of [2, 3, 4, 6]) {
      const result = await runScenario(twenty, { seed });
      expect([seed, result.violations]).toEqual([seed, []]);
      expect(result.trust?.revoked).toBeGreaterThan(20);
      for (const kind of Object.keys(result.faults)) effects.add(kind);
    }
    expect(['diskRestored', 'diskHoles', 'diskLostSuffix', 'crash'].filter((kind) => !effects.has(kind))).toEqual([]);
  });

  test('played again they are the same to the last event', { timeout: 600_000 }, async ({ expect }) => {
    const untimed = ({ eventsPerSecond: _, ...rest }: SimResult) => rest;
    const [first, again] = [await runScenario(small, { seed: 7 }), await runScenario(small, { seed: 7 })];
    expect(untimed(again)).toEqual(untimed(first));
  });
});

const broken = async (sabotage: (world: World, sites: Sites) => void): Promise<string[]> => {
  const { violations } = await runScenario(small, { seed: 5, sabotage });
  return [...new Set(violations.map(({ check }) => check))];
};

const onGateways =
  (act: (site: GatewaySite, at: number, world: World) => void) =>
  (world: World, sites: Sites): void =>
    sites.onBooted((site) => {
      if (site.role === 'gateway') act(site, sites.gateways.indexOf(site), world);
    });

describe('a run notices', { timeout: 300_000 }, () => {
  test('nothing, when nothing is planted', async ({ expect }) => {
    expect(await broken(() => {})).toEqual([]);
  });

  test('gateways that exchange nothing', async ({ expect }) => {
    const found = await broken(
      onGateways(({ gateway }) => {
        if (gateway !== undefined) gateway.ledger.admitted = () => {};
      }),
    );
    expect(found).toEqual(
      expect.arrayContaining(['revoked in time', 'revocations arrive', 'forks are proven', 'all know the same']),
    );
    expect(found).toEqual(expect.arrayContaining(['banned in time', 'cut off in time', 'bans arrive']));
  });

  test('a gateway that knows whom it should be rid of, and stays connected', async ({ expect }) => {
    const found = await broken(
      onGateways(({ gateway }, at) => {
        if (at === 2 && gateway !== undefined) gateway.member.review = () => {};
      }),
    );
    expect(found).toEqual(['cut off in time']);
  });

  test('a gateway that has learnt something nobody said', async ({ expect }) => {
    const found = await broken(
      onGateways(({ gateway, machine }, at, { kernel }) => {
        if (at !== 2 || gateway === undefined) return;
        const { ledger } = gateway;
        const ban = (): void => {
          const [author] = ledger.status().issuers.flatMap(({ issuer }) => ledger.authorsOf(issuer));
          if (author === undefined) throw new Error('no author yet');
          const place = { author, epoch: '0'.repeat(32), number: 9, generation: 9, index: 0, timeMs: 0 };
          const entry = { kind: 'ban', peer: machine.peer, ban: '7'.repeat(32) } as const;
          ledger.standing.apply({ entry, place: { ...place, isAfterFork: false } as never });
        };
        kernel.schedule(20_000, ban);
      }),
    );
    expect(found).toContain('all know the same');
  });

  test('an honest issuer that is said to have forked', async ({ expect }) => {
    const found = await broken(
      onGateways(({ gateway }) => {
        if (gateway === undefined) return;
        const { ledger } = gateway;
        const status = ledger.status.bind(ledger);
        ledger.status = () => {
          const now = status();
          const authors = now.issuers.flatMap(({ issuer }) => ledger.authorsOf(issuer));
          return { ...now, frozen: [...new Set([...now.frozen, ...authors])] };
        };
      }),
    );
    expect(found).toContain('no honest fork');
  });
});
