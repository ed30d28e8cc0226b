/** Whatever crashes, parts, is restored or comes late: what gateways spend of a strict budget never comes to more than it. */

import { describe, test } from 'vitest';
import type { BudgetAccount, MoneyHold } from '../../ledger/budgets.ts';
import { markRestored } from '../../ledger/lease-roll.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { partition } from '../../sim/links.ts';
import { SimRandom } from '../../sim/random.ts';
import type { DiskBackup } from '../../sim/store.ts';
import { LeaseMesh } from './lease-stage.ts';
import type { Site } from './mesh-stage.ts';

interface OpenHold {
  readonly site: Site;
  readonly run: number;
  readonly hold: MoneyHold;
  heldMicro: number;
}

/** What happened to one account, as someone who sees every gateway at once would write it down. */
class Watcher {
  readonly account: BudgetAccount;
  readonly budgetMicro: number;
  spentMicro = 0;
  graceMicro = 0;
  readonly refusals = new Map<string, number>();
  readonly open: OpenHold[] = [];

  constructor(account: BudgetAccount, budgetMicro: number) {
    this.account = account;
    this.budgetMicro = budgetMicro;
  }

  get takenMicro(): number {
    const held = this.open.filter(({ hold }) => !hold.isGrace).reduce((sum, { heldMicro }) => sum + heldMicro, 0);
    return this.spentMicro + held;
  }

  settle(at: number, spentMicro: number): void {
    const [open] = this.open.splice(at, 1);
    if (open === undefined) return;
    open.hold.settle(spentMicro);
    if (open.hold.isGrace) this.graceMicro += spentMicro;
    else this.spentMicro += spentMicro;
  }

  /** The process is gone: what it had set aside may all have been delivered. */
  crashed(site: Site): void {
    for (let at = this.open.length - 1; at >= 0; at -= 1) {
      const open = this.open[at];
      if (open?.site !== site) continue;
      if (open.hold.isGrace) this.graceMicro += open.heldMicro;
      else this.spentMicro += open.heldMicro;
      this.open.splice(at, 1);
    }
  }
}

const budgetMicro = 100_000;

class Chaos {
  readonly mesh: LeaseMesh;
  readonly random: SimRandom;
  readonly watchers: readonly Watcher[];
  readonly #backups = new Map<Site, DiskBackup>();
  #heal: (() => void) | undefined;

  constructor(mesh: LeaseMesh, random: SimRandom, watchers: readonly Watcher[]) {
    this.mesh = mesh;
    this.random = random;
    this.watchers = watchers;
  }

  #alive(): readonly Site[] {
    return this.mesh.sites.filter(({ machine }) => machine.ports !== undefined);
  }

  #any<T>(all: readonly T[]): T | undefined {
    return all.length === 0 ? undefined : all[this.random.int(all.length)];
  }

  #hold(): void {
    const site = this.#any(this.#alive());
    const watcher = this.#any(this.watchers);
    if (site === undefined || watcher === undefined) return;
    const needMicro = 1 + this.random.int(budgetMicro / 20);
    const { runs } = site.machine;
    const { lifeline } = site.ports;
    void Promise.resolve(this.mesh.of(site).hold(watcher.account, needMicro)).then((hold) => {
      // A process that has ended does nothing more.
      if (!lifeline.isAlive || hold === undefined) return;
      if (hold instanceof HelixFlowError) {
        watcher.refusals.set(hold.code, 1 + (watcher.refusals.get(hold.code) ?? 0));
      } else watcher.open.push({ site, run: runs, hold, heldMicro: needMicro });
    });
  }

  #settle(): void {
    const watcher = this.#any(this.watchers);
    if (watcher === undefined || watcher.open.length === 0) return;
    const at = this.random.int(watcher.open.length);
    const open = watcher.open[at] as OpenHold;
    if (this.random.int(3) === 0) {
      const moreMicro = 1 + this.random.int(2_000);
      if (open.hold.grow(moreMicro)) open.heldMicro += moreMicro;
    }
    watcher.settle(at, this.random.int(open.heldMicro + 1));
  }

  async #part(): Promise<void> {
    if (this.#heal !== undefined) {
      this.#heal();
      this.#heal = undefined;
      await this.mesh.stage.pass(3_000);
      await this.mesh.relink();
      return;
    }
    const inside = this.mesh.sites.filter(() => this.random.int(2) === 0).map(({ machine }) => machine.host.id);
    this.#heal = this.mesh.stage.world.links.add(partition(new Set(inside)));
  }

  async #restart(): Promise<void> {
    const down = this.mesh.sites.filter(({ machine }) => machine.ports === undefined);
    const site = this.#any(down.length > 0 ? down : this.#alive());
    if (site === undefined) return;
    if (site.machine.ports !== undefined) {
      if (this.random.int(3) === 0) await this.mesh.stage.run(this.mesh.of(site).close());
      await this.mesh.stage.pass(1);
      for (const watcher of this.watchers) watcher.crashed(site);
      await this.mesh.kill(site);
      return;
    }
    const backup = this.#backups.get(site);
    const isRestored = backup !== undefined && this.random.int(3) === 0;
    if (isRestored) {
      site.machine.disk.restore(backup);
      await this.mesh.stage.run(markRestored(site.machine.boot().store));
      await this.mesh.kill(site);
    }
    await this.mesh.boot(site);
    if (this.#heal === undefined) await this.mesh.relink();
  }

  async step(): Promise<void> {
    const draw = this.random.int(100);
    if (draw < 45) this.#hold();
    else if (draw < 75) this.#settle();
    else if (draw < 93) await this.mesh.stage.pass(this.random.int(draw < 84 ? 50 : 3_000));
    else if (draw < 95) await this.#part();
    else if (draw < 98) await this.#restart();
    else {
      const site = this.#any(this.#alive());
      if (site !== undefined) this.#backups.set(site, site.machine.disk.backup());
    }
  }
}

async function play(seed: number, steps: number): Promise<readonly Watcher[]> {
  await using mesh = await LeaseMesh.create(4, seed);
  const strict = await mesh.account('strict', { amountMicro: budgetMicro, period: 'total' });
  const other = await mesh.account('other', { amountMicro: budgetMicro, period: 'total' }, false);
  const watchers = [new Watcher(strict, budgetMicro), new Watcher(other, budgetMicro)];
  const chaos = new Chaos(mesh, new SimRandom(`leases ${seed}`), watchers);
  for (let step = 0; step < steps; step += 1) {
    await chaos.step();
    // Others may be overspent by what a restored authority has forgotten.
    const takenMicro = watchers[0]?.takenMicro ?? 0;
    if (takenMicro > budgetMicro) throw new Error(`seed ${seed}, step ${step}: took ${takenMicro} of ${budgetMicro}`);
  }
  for (let round = 0; round < 3; round += 1) {
    for (const watcher of watchers) while (watcher.open.length > 0) watcher.settle(0, 0);
    await mesh.stage.pass(round === 1 ? 0 : 3_000);
  }
  for (const site of mesh.sites) {
    if (site.machine.ports === undefined) continue;
    const held = mesh
      .of(site)
      .status()
      .filter(({ heldMicro }) => heldMicro > 0);
    if (held.length > 0) throw new Error(`seed ${seed}: ${JSON.stringify(held)} is held for ever`);
  }
  return watchers;
}

describe('16 runs of 400 steps each', () => {
  const seeds = Array.from({ length: 16 }, (_, at) => at + 1);
  test.for(seeds)('seed %i', async (seed, { expect }) => {
    const watchers = await play(seed, 400);
    expect(watchers[0]?.takenMicro).toBeLessThanOrEqual(budgetMicro);
  });
});
