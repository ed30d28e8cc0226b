/** Provider records are announced soon, renewed in time, retried while that fails, and left alone once withdrawn. */

import { describe, test } from 'vitest';
import { createProvision, type ProvisionOptions } from '../../../protocol/adapters/libp2p/provision.ts';
import { systemRandom } from '../../../protocol/adapters/random.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { silentLog } from '../../support/libp2p-world.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const options: ProvisionOptions = { renewMs: 600_000, retryMs: 250, retryMaxMs: 30_000, settleMs: 5_000 };

function stage() {
  const clock = new ManualClock();
  const announced: { key: string; atMs: number }[] = [];
  const forgotten: string[] = [];
  let holders = 1;
  const startMs = clock.nowMs();
  const provision = createProvision(
    {
      clock,
      random: systemRandom(),
      log: silentLog,
      announce: async (key) => {
        announced.push({ key, atMs: clock.nowMs() - startMs });
        if (holders === 0) throw new HelixFlowError('DIRECTORY_UNAVAILABLE', { reason: 'a test' });
        return holders;
      },
      forget: (key) => void forgotten.push(key),
    },
    options,
  );
  const pass = async (totalMs: number, stepMs = 50): Promise<void> => {
    for (let passedMs = 0; passedMs < totalMs; passedMs += stepMs) {
      await clock.advance(stepMs);
    }
  };
  return {
    provision,
    announced,
    forgotten,
    pass,
    setHolders: (count: number) => {
      holders = count;
    },
  };
}

describe('a provided key', () => {
  test('is announced at once, and again before it expires', async ({ expect }) => {
    const { provision, announced, pass } = stage();
    provision.provide('a');
    await pass(100);
    expect(announced).toHaveLength(1);
    await pass(options.renewMs * 0.7, 10_000);
    expect(announced).toHaveLength(1);
    await pass(options.renewMs * 0.4, 10_000);
    expect(announced.length).toBe(2);
  });

  test('is announced anew at once when the peer has moved, and only some time later when others have come', async ({
    expect,
  }) => {
    const { provision, announced, pass } = stage();
    provision.provide('a');
    await pass(1_000);
    provision.moved();
    await pass(100);
    expect(announced).toHaveLength(2);
    provision.changed();
    await pass(1_000);
    expect(announced).toHaveLength(2);
    await pass(options.settleMs);
    expect(announced).toHaveLength(3);
  });

  test('is tried again soon while nobody takes it, and less and less often', async ({ expect }) => {
    const { provision, announced, pass, setHolders } = stage();
    setHolders(0);
    provision.provide('a');
    await pass(2_000);
    const early = announced.length;
    expect(early).toBeGreaterThanOrEqual(3);
    await pass(120_000, 1_000);
    expect(announced.length - early).toBeLessThan(15);
    const before = announced.length;
    setHolders(1);
    provision.changed();
    await pass(100);
    expect(announced.length).toBe(before + 1);
  });

  test('is announced to new peers, but not to each one apart', async ({ expect }) => {
    const { provision, announced, pass } = stage();
    provision.provide('a');
    await pass(100);
    for (let peers = 0; peers < 20; peers += 1) {
      provision.changed();
      await pass(100);
    }
    expect(announced).toHaveLength(1);
    await pass(options.settleMs);
    expect(announced).toHaveLength(2);
  });

  test('is left alone once every provider of it has withdrawn', async ({ expect }) => {
    const { provision, announced, forgotten, pass } = stage();
    const withdrawals = [provision.provide('a'), provision.provide('a')];
    provision.provide('b');
    await pass(100);
    withdrawals[0]?.();
    withdrawals[0]?.();
    expect(forgotten).toEqual([]);
    withdrawals[1]?.();
    expect(forgotten).toEqual(['a']);
    provision.changed();
    await pass(options.settleMs + 1_000);
    expect(announced.map(({ key }) => key)).toEqual(['a', 'b', 'b']);
    provision.close();
    expect(forgotten).toEqual(['a', 'b']);
    await pass(options.renewMs * 2, 60_000);
    expect(announced).toHaveLength(3);
  });
});
