/** Gateways that lease budgets to each other on simulated machines, and what everyone spent. */

import type { BudgetAccount, MoneyHold } from '../../ledger/budgets.ts';
import { type BudgetOptions, type BudgetPorts, createBudgets, type GatewayBudgets } from '../../ledger/lease-holder.ts';
import type { LedgerOptions } from '../../ledger/ledger.ts';
import type { Budget } from '../../ledger/money.ts';
import { createTags, type TagKeys } from '../../ledger/tag-keys.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { AccountId, OwnerId } from '../../protocol/ids.ts';
import { unixMs } from '../../protocol/units.ts';
import { epochMs } from '../../sim/clock.ts';
import { LedgerMesh, type Site } from './mesh-stage.ts';

export const credits = (count: number): number => Math.round(count * 1_000_000);
export const accountNamed = (name: string): AccountId => `acct-${name}` as AccountId;

export class LeaseMesh implements AsyncDisposable {
  readonly stage: LedgerMesh;
  readonly #budgets = new Map<Site, GatewayBudgets>();
  readonly #tags = new Map<Site, TagKeys>();
  options: BudgetOptions = {};
  /** As `BudgetPorts.spentFrom`, at every gateway. */
  spentFrom: BudgetPorts['spentFrom'];

  private constructor(stage: LedgerMesh) {
    this.stage = stage;
    stage.onBoot = (site) => {
      if (site.role === 'node') return;
      const { issuer } = site.options;
      const tags = createTags(site.ports);
      this.#tags.set(site, tags);
      const ports = { ...site.ports, ledger: site.ledger, tags, ...(this.spentFrom && { spentFrom: this.spentFrom }) };
      this.#budgets.set(site, createBudgets(ports, { ...this.options, ...(issuer === undefined ? {} : { issuer }) }));
    };
    stage.onAdmitted = (site, connection, info) => {
      if (site.role === 'gateway') this.of(site).admitted(connection, info);
    };
  }

  static async create(gateways: number, seed = 7): Promise<LeaseMesh> {
    const mesh = new LeaseMesh(await LedgerMesh.create(seed));
    await mesh.add({ issuer: mesh.stage.mesh.issuer });
    for (let at = 1; at < gateways; at += 1) await mesh.add();
    const expiresMs = unixMs(epochMs + 30 * 86_400_000);
    const owner = 'owner' as OwnerId;
    await mesh.stage.append(
      mesh.site(0),
      'issuer',
      mesh.sites.map(({ peer }) => ({ kind: 'member', invite: '', peer, role: 'gateway', owner, expiresMs }) as const),
    );
    await mesh.stage.linkAll();
    await mesh.stage.pass(2_000);
    return mesh;
  }

  get sites(): readonly Site[] {
    return this.stage.sites;
  }

  async add(options: Partial<LedgerOptions> = {}): Promise<Site> {
    const site = await this.stage.add('gateway', options);
    await this.#open(site);
    return site;
  }

  async boot(site: Site, options: BudgetOptions = {}): Promise<void> {
    this.options = options;
    await this.stage.boot(site);
    await this.#open(site);
  }

  async #open(site: Site): Promise<void> {
    await this.stage.run(this.tagsOf(site).open());
    await this.stage.run(this.of(site).open());
  }

  tagsOf(site: Site): TagKeys {
    const tags = this.#tags.get(site);
    if (tags === undefined) throw new Error('not started');
    return tags;
  }

  of(site: Site): GatewayBudgets {
    const budgets = this.#budgets.get(site);
    if (budgets === undefined) throw new Error('not started');
    return budgets;
  }

  site(at: number): Site {
    const site = this.sites[at];
    if (site === undefined) throw new Error(`no site ${at}`);
    return site;
  }

  /** Opens an account with a budget, and waits until every gateway knows it. */
  async account(name: string, budget: Budget, strict = true): Promise<BudgetAccount> {
    const account = accountNamed(name);
    await this.stage.append(this.site(0), 'issuer', [{ kind: 'account', account, limits: {}, strict, budget }]);
    const isKnown = (site: Site): boolean =>
      site.ledger.standing.account(account, this.stage.issuer)?.budget?.amountMicro === budget.amountMicro;
    const alive = this.sites.filter(({ role, machine }) => role === 'gateway' && machine.ports !== undefined);
    await this.stage.until(() => alive.every(isKnown));
    return { issuer: this.stage.issuerId, account, strict };
  }

  /** A hold, or why there is none. */
  async hold(site: Site, account: BudgetAccount, needMicro: number): Promise<MoneyHold | HelixFlowError> {
    const result = await this.stage.run(Promise.resolve(this.of(site).hold(account, needMicro)));
    if (result === undefined) throw new Error('no budget');
    return result;
  }

  /** What this gateway's leases have paid for. */
  spentAt(site: Site): number {
    return this.of(site)
      .status()
      .flatMap(({ leases, heldMicro }) => leases.map((lease) => lease.amountMicro - lease.leftMicro - heldMicro))
      .reduce((sum, micro) => sum + micro, 0);
  }

  /** Holds and spends all of it. @returns what became of it. */
  async spend(site: Site, account: BudgetAccount, needMicro: number, spentMicro = needMicro): Promise<string> {
    const hold = await this.hold(site, account, needMicro);
    if (hold instanceof HelixFlowError) return hold.code;
    hold.settle(spentMicro);
    return hold.isGrace ? 'grace' : 'spent';
  }

  /** Connects whoever runs and is not connected. */
  async relink(): Promise<void> {
    const alive = this.sites.filter(({ machine }) => machine.ports !== undefined);
    for (const [at, site] of alive.entries()) {
      for (const other of alive.slice(0, at)) {
        const isLinked = site.ports.network.connections().some(({ peer, isOpen }) => peer === other.peer && isOpen);
        if (!isLinked) await this.stage.link(site, other).catch(() => {});
      }
    }
  }

  /** Ends a process at once; the others have heard of it when this resolves. */
  async kill(site: Site): Promise<void> {
    site.machine.kill();
    await this.stage.pass(500);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stage[Symbol.asyncDispose]();
  }
}
