/** Traffic that moves between gateways, and how near it comes to a budget or a limit that they share. */

import type { Access } from '../../gateway/access/judge.ts';
import { createLimits } from '../../gateway/access/limits.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { KeyId } from '../../protocol/ids.ts';
import { SimRandom } from '../../sim/random.ts';
import { accessOf } from '../support/access.ts';
import { credits, LeaseMesh } from './lease-stage.ts';
import type { Site } from './mesh-stage.ts';

export interface Traffic {
  readonly gateways: number;
  readonly seed: number;
}

/** A third of the gateways at a time, others every few seconds. */
class Clients {
  readonly #sites: readonly Site[];
  readonly #random: SimRandom;
  #active: readonly Site[] = [];

  constructor(sites: readonly Site[], random: SimRandom) {
    this.#sites = sites;
    this.#random = random;
    this.move();
  }

  move(): void {
    const count = Math.ceil(this.#sites.length / 3);
    const from = this.#random.int(this.#sites.length);
    this.#active = Array.from({ length: count }, (_, at) => this.#sites[(from + at) % this.#sites.length] as Site);
  }

  next(): Site {
    return this.#active[this.#random.int(this.#active.length)] as Site;
  }
}

export interface MoneyResult {
  /** Of the budget, when the first request was refused, and when none was let in any more. */
  readonly atFirstRefusal: number;
  readonly atEnd: number;
  readonly overspentMicro: number;
  readonly requests: number;
  readonly leaseEntries: number;
  /** Of those before the first refusal, how many had to wait for an answer of the authority. */
  readonly waited: number;
}

const stepMs = 50;
const moveEveryMs = 5_000;

/** About a thousand requests, each held at three times what it comes to cost, that take one to five seconds. */
export async function spendBudget({ gateways, seed }: Traffic): Promise<MoneyResult> {
  await using mesh = await LeaseMesh.create(gateways, seed);
  const random = new SimRandom(`money ${seed}`);
  const budgetMicro = credits(100);
  const account = await mesh.account('busy', { amountMicro: budgetMicro, period: 'month' });
  const clients = new Clients(mesh.sites, random);
  let [spentMicro, requests, early, waited, leaseEntries] = [0, 0, 0, 0, 0];
  let firstRefusalMicro: number | undefined;
  let lastMs = 0;
  mesh.site(0).ledger.onEntry(({ entry }) => {
    if (entry.kind === 'lease') leaseEntries += 1;
  });
  const { kernel } = mesh.stage.world;
  const send = async (): Promise<void> => {
    const costMicro = credits(0.02) + random.int(credits(0.16));
    const site = clients.next();
    requests += 1;
    const asked = mesh.of(site).hold(account, 3 * costMicro);
    if (firstRefusalMicro === undefined) {
      early += 1;
      if (asked instanceof Promise) waited += 1;
    }
    const hold = await asked;
    if (hold === undefined || hold instanceof HelixFlowError) {
      firstRefusalMicro ??= spentMicro;
      return;
    }
    lastMs = kernel.nowMs;
    kernel.schedule(1_000 + random.int(4_000), () => {
      hold.settle(costMicro);
      spentMicro += costMicro;
    });
  };
  for (let nowMs = 0; lastMs === 0 || kernel.nowMs - lastMs < 15_000; nowMs += stepMs) {
    if (nowMs % moveEveryMs === 0) clients.move();
    void send();
    await mesh.stage.pass(stepMs);
  }
  await mesh.stage.pass(6_000);
  return {
    atFirstRefusal: (firstRefusalMicro ?? spentMicro) / budgetMicro,
    atEnd: spentMicro / budgetMicro,
    overspentMicro: Math.max(0, spentMicro - budgetMicro),
    requests,
    leaseEntries,
    waited: waited / early,
  };
}

export interface RateResult {
  /** Requests let in, of those that the limit allows, after the first minute. */
  readonly used: number;
  /** The most in any 60 s, and the limit. */
  readonly most: number;
  readonly limit: number;
}

/** Half as many requests again as the limit allows, for five minutes. */
export async function useLimit({ gateways, seed }: Traffic, rpm: number): Promise<RateResult> {
  await using mesh = await LeaseMesh.create(gateways, seed);
  const random = new SimRandom(`rate ${seed}`);
  const clients = new Clients(mesh.sites, random);
  const access: Access = accessOf({
    issuer: mesh.stage.issuerId,
    keyId: '00000000000000aa' as KeyId,
    limits: { rpm },
    strict: true,
  });
  const limits = new Map(
    mesh.sites.map((site) => [site, createLimits(site.ports.clock, (query) => mesh.of(site).share(query))]),
  );
  const everyMs = 60_000 / (1.5 * rpm);
  const { kernel } = mesh.stage.world;
  await mesh.stage.pass(70_000);
  const taken: number[] = [];
  const startMs = kernel.nowMs;
  let movedMs = startMs;
  for (let due = startMs; kernel.nowMs < startMs + 300_000; due += everyMs) {
    if (kernel.nowMs - movedMs >= moveEveryMs) {
      clients.move();
      movedMs = kernel.nowMs;
    }
    const hold = limits
      .get(clients.next())
      ?.take(access, () => ({ promptBound: 1, completionTokens: 1, isExplicit: true }));
    if (hold !== undefined && !(hold instanceof HelixFlowError)) {
      hold.settle(1);
      taken.push(kernel.nowMs);
    }
    await mesh.stage.pass(Math.max(1, due - kernel.nowMs));
  }
  const most = Math.max(...taken.map((atMs, at) => taken.slice(0, at + 1).filter((ms) => ms > atMs - 60_000).length));
  const later = taken.filter((atMs) => atMs >= startMs + 60_000).length;
  return { used: later / (4 * rpm), most, limit: rpm };
}
