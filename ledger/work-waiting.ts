/** The work of one gateway that no statement covers yet: how long it has waited, when it is given up, what is claimed of it. */

import type { PeerId, ProcessId } from '../protocol/ids.ts';
import type { Log } from '../protocol/ports.ts';
import { attemptName, type UsageLine } from './line.ts';
import type { TabChanges } from './work-changes.ts';
import type { TabWork } from './work-own.ts';
import { claimAfterMs, dueMs, mayBeLost, type Patience, pauseMs } from './work-patience.ts';

/** How often running attempts are looked at. */
export const watchEveryMs = 1_000;
const lookEveryMs = 250;
/** Work that was given up, and is covered all the same when its line comes late. */
const givenMax = 4_096;

interface Claimable {
  readonly work: TabWork;
  /** Since when, in connected time, it is overdue. */
  readonly dueMs: number;
}

/** All moments are in connected time. */
export class WaitingWorks {
  readonly #gateway: PeerId;
  readonly #log: Log;
  readonly #changes: TabChanges;
  /** By name. */
  readonly #works = new Map<string, TabWork>();
  /** Those that are waited for no more. */
  readonly #given = new Map<string, TabWork>();
  /** Of these, what is yet to be claimed. */
  #unclaimed: Claimable[] = [];
  #patience: Patience = { run: undefined, runSinceMs: undefined, losses: 0, lossMs: 0 };
  /** Nothing is overdue before. */
  #nextDueMs = 0;
  /** Something is, up to then. */
  #overdueUntilMs = 0;

  constructor(deps: { readonly gateway: PeerId; readonly log: Log; readonly changes: TabChanges }) {
    this.#gateway = deps.gateway;
    this.#log = deps.log;
    this.#changes = deps.changes;
  }

  load(works: readonly TabWork[], { run, runSinceMs, losses, lossMs }: Patience): void {
    for (const work of works) this.#works.set(attemptName(work), work);
    this.#patience = { run, runSinceMs, losses, lossMs };
  }

  get patience(): Patience {
    return this.#patience;
  }

  get size(): number {
    return this.#works.size;
  }

  /** Nothing is waited for, nor to be claimed. */
  get isIdle(): boolean {
    return this.#works.size + this.#unclaimed.length === 0;
  }

  running(): number {
    let count = 0;
    for (const { end } of this.#works.values()) if (end === undefined) count += 1;
    return count;
  }

  /** The gateway runs in this process. @returns false where that is no news. */
  noteRun(run: ProcessId, nowMs: number): boolean {
    const before = this.#patience.run;
    if (run === before) return false;
    this.#patience = { ...this.#patience, run, ...(before === undefined ? {} : { runSinceMs: nowMs }) };
    this.#nextDueMs = 0;
    return true;
  }

  add(work: TabWork): void {
    this.#works.set(attemptName(work), work);
  }

  find(line: Pick<UsageLine, 'run' | 'serial'>): TabWork | undefined {
    const name = attemptName(line);
    return this.#works.get(name) ?? this.#given.get(name);
  }

  /** It is needed no more. */
  remove(work: TabWork): void {
    const name = attemptName(work);
    this.#given.delete(name);
    this.#overdueUntilMs = 0;
    if (this.#works.delete(name)) this.#changes.covered(work);
  }

  /** Those that were on disk when this process began. */
  removeOld(): void {
    for (const work of [...this.#works.values()]) if (work.isOld) this.remove(work);
  }

  /** It is remembered, for its line may come, but not waited for. */
  waitNoMore(work: TabWork): void {
    this.remove(work);
    this.#given.set(attemptName(work), work);
    const [oldest] = this.#given.keys();
    if (this.#given.size > givenMax && oldest !== undefined) this.#given.delete(oldest);
  }

  /** Something of it has changed. */
  changed(work: TabWork): void {
    this.#nextDueMs = 0;
    this.#overdueUntilMs = 0;
    if (work.end !== undefined && this.#works.has(attemptName(work))) this.#changes.work(work);
  }

  /** Time passes: what is covered at this moment is as old as this moment, and what is overdue for long is given up. */
  watch(nowMs: number): void {
    for (const work of this.#works.values()) if (work.end === undefined) work.watched(nowMs);
    this.#giveUp(nowMs);
  }

  /** Some work has waited for too long. */
  isOverdue(nowMs: number): boolean {
    if (nowMs < this.#nextDueMs) return false;
    // Whoever is refused asks again and again.
    if (nowMs >= this.#overdueUntilMs && this.#overdue(nowMs).length > 0) this.#overdueUntilMs = nowMs + lookEveryMs;
    return nowMs < this.#overdueUntilMs;
  }

  #overdue(nowMs: number): Claimable[] {
    const overdue: Claimable[] = [];
    let nextMs = nowMs + watchEveryMs;
    for (const work of this.#works.values()) {
      const due = dueMs(work, this.#patience, nowMs);
      if (due === undefined) continue;
      if (due < nowMs) overdue.push({ work, dueMs: due });
      nextMs = Math.min(nextMs, due);
    }
    this.#nextDueMs = nextMs;
    return overdue;
  }

  /** Gives up what has been overdue for long enough, and with it all that waits in the same way. */
  #giveUp(nowMs: number): void {
    if (nowMs < this.#nextDueMs) return;
    const patience = this.#patience;
    const overdue = this.#overdue(nowMs);
    const ended = overdue.filter(({ work, dueMs: due }) => nowMs >= due + pauseMs(work, patience, nowMs));
    if (ended.length === 0) return;
    // One loss is all that a process took with it, and one is a dispute.
    const isGone = ended.some(({ work }) => mayBeLost(work, patience));
    const given = isGone
      ? [...this.#works.values()].filter((work) => mayBeLost(work, patience))
      : overdue.map(({ work }) => work);
    const lost = given.filter(({ isRefused, isTold }) => isRefused || !isTold);
    if (lost.length > 0) this.#patience = { ...patience, losses: patience.losses + 1, lossMs: nowMs };
    const { losses } = this.#patience;
    this.#log.warn('tab.given-up', { gateway: this.#gateway, attempts: given.length, lost: lost.length, losses });
    for (const work of given) this.waitNoMore(work);
    for (const work of lost) if (work.claims === 0) this.#unclaimed.push({ work, dueMs: nowMs });
    this.#unclaimed.splice(0, this.#unclaimed.length - givenMax);
  }

  /** What is to be claimed now, where it was not `timesMax` times before. */
  toClaim(nowMs: number, timesMax: number): readonly TabWork[] {
    if (this.isIdle) return [];
    this.#unclaimed = this.#unclaimed.filter(({ work }) => work.claims === 0 && work.coveredBy === undefined);
    const overdue = nowMs < this.#nextDueMs ? [] : this.#overdue(nowMs);
    return [...overdue, ...this.#unclaimed]
      .filter(({ work, dueMs: due }) => work.claims < timesMax && nowMs >= due + claimAfterMs)
      .map(({ work }) => work);
  }

  /** Age of the oldest work that is not covered. */
  uncoveredMs(nowMs: number): number {
    let sinceMs = nowMs;
    for (const work of this.#works.values()) {
      if (work.isRefused || !work.isTold) sinceMs = Math.min(sinceMs, work.sinceMs);
    }
    return Math.round(nowMs - sinceMs);
  }
}
