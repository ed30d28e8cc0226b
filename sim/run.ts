/** Plays a scenario from a seed: forming, calm, faults, settling, probing; and says what was seen. */

import { countRequests, type RequestCounts, type Violation, type WatchedRequest } from './checkers.ts';
import { Clients } from './clients.ts';
import type { FaultKind } from './effects.ts';
import { drawFaults, type Fault } from './faults.ts';
import type { LogLine } from './log.ts';
import { Money, type MoneyCounts } from './money.ts';
import { playFaults } from './play.ts';
import type { Scenario } from './scenario.ts';
import { Sites } from './sites.ts';
import { guardHost, hostNowMs } from './tripwires.ts';
import { Trust, type TrustCounts } from './trust.ts';
import { checkConnected, checkNothingLeft } from './wholeness.ts';
import { World } from './world.ts';

export interface RunOptions {
  /** Decides everything. */
  readonly seed: number;
  /** Breaks something on purpose before anything runs, to see that it is noticed. */
  readonly sabotage?: (world: World, sites: Sites) => void;
}

/** What a run comes to; plain data. */
export interface SimResult {
  readonly scenario: string;
  readonly seed: number;
  readonly events: number;
  readonly eventsPerSecond: number;
  readonly virtualSeconds: number;
  /** Equal for two runs that did the same. */
  readonly traceHash: string;
  /** How often each kind of fault really changed something. */
  readonly faults: Partial<Record<FaultKind, number>>;
  readonly violations: readonly Violation[];
  readonly requests: RequestCounts;
  /** Only of scenarios in which keys are revoked and members banned. */
  readonly trust?: TrustCounts;
  /** Only of scenarios with accounts. */
  readonly money?: MoneyCounts;
}

/** A run with all that a report shows. */
export interface Played {
  readonly result: SimResult;
  readonly scenario: Scenario;
  readonly faults: readonly Fault[];
  readonly requests: readonly WatchedRequest[];
  /** Names of the machines, in the order that faults number them. */
  readonly machines: readonly string[];
  /** Each machine's peer id, in that order. */
  readonly peers: readonly string[];
  readonly log: readonly LogLine[];
}

/** Of one check; beyond this many the rest says nothing new. */
const violationsMax = 20;
/** For what is under way to end, when nobody asks any more. */
const quietMs = 20_000;

class Run {
  readonly #scenario: Scenario;
  readonly #world: World;
  readonly #violations: Violation[] = [];
  readonly #clients: Clients;
  #sites: Sites | undefined;
  #faults: readonly Fault[] = [];
  #trust: Trust | undefined;
  #money: Money | undefined;

  constructor(scenario: Scenario, seed: number) {
    this.#scenario = scenario;
    this.#world = new World({ seed, tokens: scenario.tokens, ...(scenario.links ? { links: scenario.links } : {}) });
    this.#clients = new Clients(this.#world, scenario, (violation) => this.#violate(violation));
  }

  #violate(violation: Violation): void {
    const earlier = this.#violations.filter(({ check }) => check === violation.check).length;
    if (earlier < violationsMax) this.#violations.push(violation);
  }

  fail(error: unknown): void {
    this.#world.kernel.fail(error);
  }

  /** @returns real milliseconds that it took. */
  async play(sabotage: RunOptions['sabotage']): Promise<number> {
    const { kernel } = this.#world;
    const { formingMs, calmMs, faultsMs, settleMs, probeMs, requestsPerSecond } = this.#scenario;
    const sites = await Sites.create(this.#world, this.#scenario);
    this.#sites = sites;
    const startMs = hostNowMs();
    const { trust, money } = this.#scenario;
    if (money !== undefined) {
      this.#money = new Money(this.#world, sites, money, (violation) => this.#violate(violation));
      const { callersIn, isHonest } = this.#money;
      this.#clients.callersIn = callersIn;
      this.#clients.isHonest = (node) => node === undefined || isHonest(node);
      kernel.schedule(formingMs / 2, () => this.#money?.open());
    }
    if (trust !== undefined)
      this.#trust = new Trust(this.#world, sites, trust, (violation) => this.#violate(violation));
    sites.onKilled(({ machine }) => machine.ports && this.#clients.lost(machine.ports.lifeline));
    sabotage?.(this.#world, sites);
    sites.bootAll();
    await kernel.run(formingMs);
    checkConnected(sites, this.#violateNow);

    const calmEndMs = formingMs + calmMs;
    this.#clients.askAround(sites.gateways, requestsPerSecond, calmEndMs, 'calm');
    this.#trust?.revokeAround(calmEndMs, 'calm');
    this.#trust?.banAround(calmEndMs);
    // What was asked in calm shall not meet the faults.
    const faultsStartMs = calmEndMs + 5_000;
    const faultsEndMs = faultsStartMs + faultsMs;
    await kernel.run(faultsStartMs);
    this.#trust?.checkCalm();
    sites.dismissGuests();

    const { gateways, nodes, faults } = this.#scenario;
    const window = { gateways, nodes, startMs: faultsStartMs, endMs: faultsEndMs };
    this.#faults = drawFaults(faults, window, kernel.random.fork('faults'));
    playFaults(this.#faults, { world: this.#world, sites, ...(this.#money ? { money: this.#money } : {}) });
    const { moving } = this.#scenario;
    if (moving === undefined) this.#clients.askAround(sites.gateways, requestsPerSecond, faultsEndMs, 'faults');
    else this.#clients.askMoving(sites.gateways, moving, faultsEndMs, 'faults');
    this.#trust?.revokeAround(faultsEndMs, 'faults');
    await kernel.run(faultsEndMs + settleMs / 2);
    // Whoever lies, lies to a mesh that is whole: how soon that is found out is measured.
    this.#trust?.betray().catch((error: unknown) => this.fail(error));
    this.#money?.betray().catch((error: unknown) => this.fail(error));
    await kernel.run(faultsEndMs + settleMs);
    checkConnected(sites, this.#violateNow);
    this.#trust?.checkSettled();

    const probeEndMs = faultsEndMs + settleMs + probeMs;
    const { probesPerSecond } = this.#scenario;
    for (const gateway of sites.gateways) {
      // Nobody has to serve one that was caught lying.
      const isTrusted = this.#money?.isHonest(gateway.machine.peer) ?? true;
      if (isTrusted) this.#clients.askAround([gateway], probesPerSecond, probeEndMs, 'probe');
    }
    await kernel.run(probeEndMs + quietMs);
    for (const request of this.#clients.requests) request.checkEnded();
    await this.#checkMoney();
    checkNothingLeft(sites, this.#violateNow);
    return hostNowMs() - startMs;
  }

  /** Reading disks takes virtual time, which passes only while the kernel runs. */
  async #checkMoney(): Promise<void> {
    const { kernel } = this.#world;
    let isRead = false;
    const checking = this.#money?.check(this.#clients.requests).finally(() => {
      isRead = true;
    });
    while (checking !== undefined && !isRead) await kernel.run(kernel.nowMs + 1_000);
    await checking;
  }

  readonly #violateNow = (check: string, detail: string): void =>
    this.#violate({ atMs: this.#world.kernel.nowMs, check, detail });

  played(seed: number, tookMs: number): Played {
    const { kernel, counts, log } = this.#world;
    const { failure } = kernel;
    if (failure !== undefined) {
      const { error } = failure;
      const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.#violations.unshift({ atMs: kernel.nowMs, check: 'no broken promise', detail });
    }
    const sites = this.#sites?.all() ?? [];
    return {
      result: {
        scenario: this.#scenario.name,
        seed,
        events: kernel.events,
        eventsPerSecond: Math.round((kernel.events / Math.max(1, tookMs)) * 1_000),
        virtualSeconds: Math.round(kernel.nowMs) / 1_000,
        traceHash: kernel.trace.hash(),
        faults: counts.toObject(),
        violations: this.#violations,
        requests: countRequests(this.#clients.requests),
        ...(this.#trust === undefined ? {} : { trust: this.#trust.counts() }),
        ...unlessUndefined(this.#money?.counts()),
      },
      scenario: this.#scenario,
      faults: this.#faults,
      requests: this.#clients.requests,
      machines: sites.map(({ machine }) => machine.name),
      peers: sites.map(({ machine }) => machine.peer),
      log: log.lines(),
    };
  }
}

const unlessUndefined = (money: MoneyCounts | undefined): { readonly money?: MoneyCounts } =>
  money === undefined ? {} : { money };

/** Plays `scenario`, and keeps what a report shows. One run at a time: it guards the host. */
export async function playScenario(scenario: Scenario, { seed, sabotage }: RunOptions): Promise<Played> {
  const run = new Run(scenario, seed);
  using _guard = guardHost((error) => run.fail(error));
  return run.played(seed, await run.play(sabotage));
}

/** Plays `scenario`; the same seed gives the same trace hash. */
export const runScenario = async (scenario: Scenario, options: RunOptions): Promise<SimResult> =>
  (await playScenario(scenario, options)).result;
