/** What became of liars: what each gained from each honest member, and whether it was stopped. */

import type { PeerId } from '../protocol/ids.ts';
import { type Gain, gatewayGain, nodeGain } from './gains.ts';
import type { Liar } from './liars.ts';
import type { GatewayLie, NodeLie } from './lies.ts';
import type { MoneyFound, MoneyParts, Violate } from './money-checks.ts';
import type { GatewaySite, NodeSite } from './sites.ts';
import { type TrueAttempt, type TrueWork, trueName, worthMicro } from './truth.ts';

/** Lies by which work stays uncovered, however little of it there is. */
const stoppingLies: readonly Liar['lie'][] = ['shave', 'price', 'omit', 'running'];
/** Gains that grow with the work: nobody counts the tokens of texts again yet, nor asks nodes what they have signed. */
const openLies: readonly Liar['lie'][] = ['prompt', 'pad', 'faces'];
/** A restart, a partition and `uncoveredMaxMs` may lie between a lie and its end. */
const stoppedAfterMs = 65_000;

/** What is told of all liars. */
export interface Judgement {
  readonly gains: readonly Gain[];
  /** Pairs of an honest node and a lying gateway that it serves no more. */
  readonly stopped: number;
}

class Judge {
  readonly #parts: MoneyParts;
  readonly #found: MoneyFound;
  readonly #violate: Violate;
  /** What each attempt at each node has brought it. */
  readonly #paid: ReadonlyMap<string, number>;
  readonly #gains = new Map<GatewayLie | NodeLie, Gain>();
  #stopped = 0;

  constructor(parts: MoneyParts, found: MoneyFound, violate: Violate) {
    this.#parts = parts;
    this.#found = found;
    this.#violate = violate;
    const paid = new Map<string, number>();
    for (const { line, node, amountMicro } of found.settled) {
      const name = `${trueName(line)} ${node}`;
      paid.set(name, (paid.get(name) ?? 0) + amountMicro);
    }
    this.#paid = paid;
  }

  judge(): Judgement {
    const { liars, sites } = this.#parts;
    for (const liar of liars.all()) {
      const { site } = liar;
      if (site.role === 'gateway') {
        for (const node of sites.nodes) if (liars.of(node) === undefined) this.#gateway(liar, site, node);
      } else {
        for (const gateway of sites.gateways) if (liars.of(gateway) === undefined) this.#node(liar, site, gateway);
      }
    }
    return { gains: [...this.#gains.values()], stopped: this.#stopped };
  }

  readonly #paidMicro = (attempt: TrueAttempt): number => this.#paid.get(`${trueName(attempt)} ${attempt.node}`) ?? 0;

  #attempts(gateway: GatewaySite, node: PeerId, sinceMs: number): TrueAttempt[] {
    return this.#parts.truth
      .attempts()
      .filter((one) => one.gateway === gateway && one.node === node && (one.endMs ?? sinceMs) >= sinceMs);
  }

  #note(gain: Gain): void {
    const before = this.#gains.get(gain.lie);
    if (before === undefined || before.micro < gain.micro) this.#gains.set(gain.lie, gain);
  }

  #gateway({ lie, sinceMs }: Liar, site: GatewaySite, { machine }: NodeSite): void {
    const attempts = this.#attempts(site, machine.peer, sinceMs);
    const restarts = machine.runs + site.machine.runs - 2;
    const { micro, windowMicro, boundMicro } = gatewayGain(attempts, this.#paidMicro, restarts);
    this.#note({ lie, micro, windowMicro });
    const pair = `${site.machine.name} at ${machine.name}`;
    if (micro > boundMicro && !openLies.includes(lie)) {
      this.#violate('liars gain no more than a window', `${pair}, ${lie}: ${micro} of a window of ${windowMicro}`);
    }
    const refusals = this.#parts.truth.refusals(machine.peer, site.machine.peer);
    if (refusals > 0) this.#stopped += 1;
    if (!stoppingLies.includes(lie) || refusals > 0) return;
    const lied = attempts.find((one) => one.end?.outcome === 'done' && worthMicro(one) > this.#paidMicro(one));
    const later = attempts.filter(
      ({ startMs }) => startMs > (lied?.endMs ?? Number.POSITIVE_INFINITY) + stoppedAfterMs,
    );
    if (later.length > 0) this.#violate('liars are stopped', `${pair}, ${lie}: ${later.length} attempts later`);
  }

  #node({ lie, sinceMs }: Liar, { machine }: NodeSite, gateway: GatewaySite): void {
    const attempts = this.#attempts(gateway, machine.peer, sinceMs).flatMap((attempt): [TrueAttempt, TrueWork][] => {
      const work = this.#workOf(attempt);
      return work === undefined ? [] : [[attempt, work]];
    });
    const { micro, windowMicro, boundMicro } = nodeGain(attempts, this.#paidMicro);
    this.#note({ lie, micro, windowMicro });
    if (micro <= boundMicro || openLies.includes(lie)) return;
    const pair = `${machine.name} from ${gateway.machine.name}`;
    this.#violate('liars gain no more than a window', `${pair}, ${lie}: ${micro} of a window of ${windowMicro}`);
  }

  #workOf({ node, request }: TrueAttempt): TrueWork | undefined {
    const asked = this.#found.requests.find(({ facts }) => facts.id === request);
    return asked && this.#parts.truth.work(node, asked.facts.chat);
  }
}

/** Weighs every liar against every honest member of the other role. */
export const judgeLiars = (parts: MoneyParts, found: MoneyFound, violate: Violate): Judgement =>
  new Judge(parts, found, violate).judge();
