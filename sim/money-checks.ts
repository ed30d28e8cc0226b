/** What must be true of all lines together once everything is whole again, liars and damaged disks aside. */

import { authorIdOf } from '../ledger/block.ts';
import type { UsageLine } from '../ledger/line.ts';
import { settleAll } from '../ledger/settle.ts';
import type { AttemptFacts, Settled } from '../ledger/settlement.ts';
import type { RefusalReason } from '../ledger/statement.ts';
import type { AccountId, AuthorId, PeerId, RequestId, Tag } from '../protocol/ids.ts';
import type { Caller } from './accounts.ts';
import type { WatchedRequest } from './checkers.ts';
import { epochMs } from './clock.ts';
import type { Custody } from './custody.ts';
import type { UsageRead } from './feeds-read.ts';
import type { Liars } from './liars.ts';
import type { Site, Sites } from './sites.ts';
import { type Truth, trueName, worthMicro } from './truth.ts';

/** Told of a promise that was broken. */
export type Violate = (check: string, detail: string) => void;

/** Who takes part. */
export interface MoneyParts {
  readonly sites: Sites;
  readonly truth: Truth;
  readonly liars: Liars;
  readonly custody: Custody;
}

/** What was found when all was over; of forked authors nothing. */
export interface MoneyFound {
  /** Of one gateway; the others have the same. */
  readonly read: UsageRead;
  readonly facts: readonly AttemptFacts[];
  readonly settled: readonly Settled[];
  readonly requests: readonly WatchedRequest[];
  /** Lines that nobody held any more when a disk was damaged. */
  readonly lost: ReadonlyMap<string, UsageLine>;
}

/** Who pays what, together. */
export function sumOf(settled: readonly Settled[]): { readonly accountMicro: number; readonly gatewayMicro: number } {
  const of = (payer: Settled['payer']): number =>
    settled.reduce((sum, one) => sum + (one.payer === payer ? one.amountMicro : 0), 0);
  return { accountMicro: of('account'), gatewayMicro: of('gateway') };
}

/** Everybody comes to the same sums. What is held of a forked author stays where it was held. */
export function checkSame(reads: readonly UsageRead[], forked: AuthorId | undefined, violate: Violate): void {
  const amounts = reads.map(({ attempts }) => {
    const facts = attempts.filter(({ author }) => author !== forked);
    return JSON.stringify([facts.length, sumOf(settleAll(facts))]);
  });
  if (new Set(amounts).size > 1) violate('all owe the same', [...new Set(amounts)].join(' or '));
}

/** Strict budgets are never overspent. @returns what each account has spent. */
export function checkBudgets(
  callers: readonly Caller[],
  leases: ReadonlyMap<Tag, AccountId>,
  { settled, violate }: { readonly settled: readonly Settled[]; readonly violate: Violate },
): ReadonlyMap<AccountId, number> {
  const spent = new Map<AccountId, number>();
  for (const { line, payer, amountMicro } of settled) {
    const account = line.lease && leases.get(line.lease);
    if (payer === 'account' && account !== undefined) spent.set(account, (spent.get(account) ?? 0) + amountMicro);
  }
  for (const { account, budget, strict } of callers) {
    const micro = spent.get(account) ?? 0;
    if (strict && budget !== undefined && micro > budget.amountMicro) {
      violate('strict budgets hold', `${account} spent ${micro} of ${budget.amountMicro}`);
    }
  }
  return spent;
}

/** Checks of lines and tabs. */
export class MoneyChecks {
  readonly #parts: MoneyParts;
  readonly #found: MoneyFound;
  readonly #violate: Violate;

  constructor(parts: MoneyParts, found: MoneyFound, violate: Violate) {
    this.#parts = parts;
    this.#found = found;
    this.#violate = violate;
  }

  all(): void {
    this.#checkRequests();
    this.#checkRecorded();
    this.#checkPaid();
    this.#checkCounts();
    this.#checkRefusals();
    this.#checkTabs();
  }

  #isHonest(peer: PeerId): boolean {
    return this.#parts.liars.isHonest(peer);
  }

  #gatewayOf(author: AuthorId): Site | undefined {
    return this.#parts.sites.gateways.find(({ machine }) => authorIdOf(machine.key.publicKey) === author);
  }

  #isHonestAuthor(author: AuthorId): boolean {
    const site = this.#gatewayOf(author);
    return site !== undefined && this.#parts.liars.of(site) === undefined;
  }

  #nameOf(peer: PeerId): string {
    return this.#parts.sites.all().find(({ machine }) => machine.peer === peer)?.machine.name ?? peer;
  }

  #checkRequests(): void {
    const { settled, requests, lost } = this.#found;
    const byRequest = Map.groupBy(settled, ({ line }) => line.request);
    const excused = new Set<RequestId>([...lost.values()].map(({ request }) => request));
    for (const { facts, end, outcome } of requests) {
      const lines = byRequest.get(facts.id) ?? [];
      const ended = lines.filter(({ promptTokens }) => promptTokens > 0);
      if (ended.length > 1) this.#violate('billed once', `request ${facts.number} is billed ${ended.length} times`);
      if (outcome?.kind !== 'done' || end === undefined || excused.has(facts.id)) continue;
      const site = this.#parts.sites.gateways.find(({ machine }) => machine.name === facts.gateway);
      const isHonest = end.served.nodes.every((node) => this.#isHonest(node));
      if (!isHonest || site === undefined || this.#parts.liars.of(site) !== undefined) continue;
      // One line has ended it; what it was told are the tokens of all, whoever of several nodes made them.
      const whole = lines.filter(({ line }) => line.outcome === 'done');
      const kept = lines.filter(({ line }) => line.outcome !== 'hedged');
      const completionTokens = kept.reduce((sum, one) => sum + one.completionTokens, 0);
      const told = `${whole.map(({ promptTokens }) => promptTokens).join('+')} and ${completionTokens}`;
      if (told !== `${end.promptTokens} and ${end.completionTokens}`) {
        const detail = `request ${facts.number} was told ${end.promptTokens} and ${end.completionTokens}, lines say ${told}`;
        this.#violate('an answered request has its line', detail);
      }
    }
  }

  /** Every line that was on disk is told, but those that a damaged disk took when nobody else had them. */
  #checkRecorded(): void {
    const { facts, lost } = this.#found;
    const told = new Set(
      facts.flatMap(({ said }) => said.flatMap(({ line }) => (line.outcome === 'running' ? [] : [trueName(line)]))),
    );
    for (const attempt of this.#parts.truth.attempts()) {
      const { end, isRecorded, gateway } = attempt;
      const name = trueName(attempt);
      if (!isRecorded || told.has(name) || lost.has(name) || this.#parts.liars.of(gateway) !== undefined) continue;
      this.#violate('what is on disk is told', `${end?.outcome} attempt ${name} of ${gateway.machine.name}`);
    }
  }

  /** Whoever has honest work on record at an honest gateway is paid for it. */
  #checkPaid(): void {
    const { settled, lost } = this.#found;
    const paid = new Map(settled.map(({ line, node, amountMicro }) => [`${trueName(line)} ${node}`, amountMicro]));
    for (const attempt of this.#parts.truth.attempts()) {
      const { gateway, node, isRecorded } = attempt;
      const name = trueName(attempt);
      const isHonest = this.#isHonest(node) && this.#parts.liars.of(gateway) === undefined;
      if (!isHonest || !isRecorded || lost.has(name)) continue;
      const [micro, worth] = [paid.get(`${name} ${node}`) ?? 0, worthMicro(attempt)];
      if (micro < worth) this.#violate('honest work is paid', `attempt ${name}: ${micro} for ${worth}`);
    }
  }

  /** Nobody is charged for more than was sent, nor for more than the bytes of it, whoever lies. */
  #checkCounts(): void {
    const { truth } = this.#parts;
    const chats = new Map(this.#found.requests.map(({ facts }) => [facts.id, facts.chat]));
    for (const { author, node, line, promptTokens, completionTokens } of this.#found.settled) {
      const chat = chats.get(line.request);
      const work = chat && truth.work(node, chat);
      const isHonest = this.#isHonest(node) && this.#isHonestAuthor(author);
      const most = work === undefined ? 0 : isHonest ? work.sentTokens : work.sentBytes + 1;
      const name = `attempt ${trueName(line)} at ${this.#nameOf(node)}`;
      if (completionTokens > most)
        this.#violate('only what was sent', `${name}: ${completionTokens} for ${most} tokens`);
      if (promptTokens > (work?.promptBytes ?? 0))
        this.#violate('only what was sent', `${name}: a prompt of ${promptTokens}`);
    }
  }

  #checkRefusals(): void {
    for (const { author, said, node } of this.#found.facts) {
      if (!this.#isHonest(node) || !this.#isHonestAuthor(author)) continue;
      for (const { line, refused } of said) {
        if (refused === undefined || this.#isExcused(refused, author, node)) continue;
        const { outcome, promptTokens, completionTokens, nodeTokens, startMs, durationMs } = line;
        const counts = `${promptTokens}+${completionTokens} (node ${nodeTokens ?? 'none'})`;
        const times = `begun ${startMs - epochMs} ms, for ${durationMs} ms`;
        this.#violate(
          'nothing honest is refused',
          `${refused}: ${outcome}, ${counts}, ${times}, at ${this.#nameOf(node)}`,
        );
      }
    }
  }

  /** It is paid all the same, as `#checkPaid` sees. */
  #isExcused(refused: RefusalReason, author: AuthorId, node: PeerId): boolean {
    const { custody, sites } = this.#parts;
    const isDamaged = (site: Site | undefined): boolean => site !== undefined && custody.isDamaged(site);
    // A gateway with an old disk may state again what its node has heard, and nobody else.
    if (refused === 'repeated') return isDamaged(this.#gatewayOf(author));
    // A node that cannot have back what its disk has lost knows a price no more.
    return refused === 'price' && isDamaged(sites.nodes.find(({ machine }) => machine.peer === node));
  }

  #checkTabs(): void {
    for (const [author, count] of this.#found.read.waiting) {
      if (!this.#isHonestAuthor(author)) continue;
      const name = this.#gatewayOf(author)?.machine.name;
      this.#violate('statements are countersigned', `${count} of ${name} are not`);
    }
    for (const site of this.#parts.sites.nodes) {
      if (this.#parts.liars.of(site) !== undefined) continue;
      // What a gateway's crash has made it forget stays so; it stands against nobody.
      for (const { gateway, uncovered, uncoveredMs } of site.node?.tabs.status() ?? []) {
        if (uncoveredMs === 0 || !this.#isHonest(gateway)) continue;
        this.#violate('work is covered', `${uncovered} attempts of ${this.#nameOf(gateway)} at ${site.machine.name}`);
      }
    }
  }
}
