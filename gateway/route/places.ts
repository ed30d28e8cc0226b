/** Finds a place for the next attempt of one call: at once, or after waiting for its turn. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { Cancel } from '../../protocol/ports.ts';
import type { Ms } from '../../protocol/units.ts';
import type { NodeEntry, Serving } from '../nodes.ts';
import { isHopeless, isOwnDoing, isWorthWaiting, type Refusal } from './candidates.ts';
import type { Choice, Scored } from './plan.ts';
import { hopelessError, type RouteDeps } from './route.ts';
import type { Runs } from './runs.ts';
import { traced } from './seek.ts';
import type { Shown } from './shown.ts';
import type { AttemptPurpose } from './trace.ts';
import type { DispatchWork } from './work.ts';

/** What a place is sought for. */
export interface Wanted {
  readonly purpose: AttemptPurpose;
  /** What of the answer has to be carried on; undefined for one that begins. */
  readonly shown: Shown | undefined;
  /** Its client has a part of the answer, or would have: it goes before others, and waits for nodes to come back. */
  readonly hasContent: boolean;
}

/** Called in the same turn, or when a place was waited for. */
export interface PlaceEvents {
  found(place: Scored<Serving>, purpose: AttemptPurpose): void;
  none(error: HelixFlowError): void;
}

/** Until a model that nobody serves may be there again. */
const retryAfterMs = 1_000;

/** No node could ever take it. */
const isNever = ({ chosen, refusals }: Choice<Serving>): boolean => chosen === undefined && isHopeless(refusals);

/** Of one call. */
export class Places {
  readonly #deps: RouteDeps;
  readonly #work: DispatchWork;
  readonly #runs: Runs;
  readonly #events: PlaceEvents;
  #leave: Cancel | undefined;
  /** Since the last content all waiting counts together. */
  #waitUntilMs: number | undefined;

  constructor(deps: RouteDeps, work: DispatchWork, runs: Runs, events: PlaceEvents) {
    this.#deps = deps;
    this.#work = work;
    this.#runs = runs;
    this.#events = events;
  }

  get isWaiting(): boolean {
    return this.#leave !== undefined;
  }

  /** Whoever came earlier has its turn first; but nobody waits for what never comes. */
  queue(wanted: Wanted): void {
    const isFirst = this.#deps.waiting.sizeOf(this.#work.target.digest) === 0;
    if (isFirst || isNever(this.#choose(wanted))) this.seek(wanted);
    else this.#wait(wanted);
  }

  /** A place at once, or a turn, or none. */
  seek(wanted: Wanted): void {
    const choice = this.#choose(wanted);
    this.#trace(wanted.purpose, choice);
    const { chosen, refusals } = choice;
    if (chosen !== undefined) this.#events.found(chosen, wanted.purpose);
    // Content came from a node that could do it: that one may be back.
    else if (wanted.hasContent) this.#wait(wanted);
    else if (isNever(choice)) this.#events.none(this.#hopeless(refusals));
    else if (isWorthWaiting(refusals)) this.#wait(wanted);
    else this.#events.none(this.#unavailable());
  }

  /** A place beside the attempt that runs at `except`, where one starts at once. */
  second(wanted: Wanted, except: NodeEntry): Scored<Serving> | undefined {
    // Asked every few milliseconds: who is late where all are busy must cost nothing.
    const mayBeFree = ({ node, active, slots }: Serving): boolean => node !== except && active < slots;
    if (!this.#work.target.group().some(mayBeFree)) return undefined;
    const choice = this.#choose(wanted, except);
    const isFree = choice.chosen !== undefined && choice.chosen.score.waitMs === 0;
    if (!isFree || !this.#deps.lateness.takeHedge()) return undefined;
    this.#trace(wanted.purpose, choice);
    return choice.chosen;
  }

  tick(nowMs: Ms): void {
    if (this.#leave === undefined || this.#waitUntilMs === undefined || nowMs < this.#waitUntilMs) return;
    const { waiting, counts } = this.#deps;
    const { digest } = this.#work.target;
    counts.waits.expired += 1;
    const overloaded = new HelixFlowError('GATEWAY_OVERLOADED', { retryAfterMs: waiting.retryAfterMs(digest) });
    const isGone = this.#work.target.group().length === 0;
    this.leave();
    this.#events.none(isGone ? this.#unavailable() : overloaded);
  }

  /** Content has come: whoever waits again may do so from the start. */
  progressed(): void {
    this.#waitUntilMs = undefined;
  }

  /** Waits no more. */
  leave(): void {
    const leave = this.#leave;
    this.#leave = undefined;
    leave?.();
  }

  #choose({ shown }: Wanted, except?: NodeEntry): Choice<Serving> {
    return this.#work.seeker.choose(shown, except);
  }

  #wait(wanted: Wanted): void {
    const { waiting, policy, counts, clock } = this.#deps;
    const { account, target, trace } = this.#work;
    const ahead = waiting.sizeOf(target.digest);
    let isPicky = false;
    const leave = waiting.enter(target.digest, {
      account: account.name,
      get isPicky() {
        return isPicky;
      },
      isUrgent: wanted.hasContent,
      running: () => account.running,
      go: () => {
        const refusals = this.#go(wanted);
        isPicky = refusals !== undefined && isOwnDoing(refusals);
        return refusals === undefined;
      },
      refused: (error) => this.#refused(error),
    });
    if (leave instanceof HelixFlowError) {
      this.#refused(leave);
      return;
    }
    if (wanted.hasContent) this.#work.seeker.forgive();
    counts.waits.begun += 1;
    this.#leave = leave;
    this.#waitUntilMs ??= clock.nowMs() + (wanted.hasContent ? policy.spliceWaitMs : policy.waitMs);
    trace.add({ kind: 'waits', atMs: this.#runs.elapsedMs(), ahead });
  }

  /** It is its turn. @returns why there is no place for it yet. */
  #go(wanted: Wanted): readonly Refusal[] | undefined {
    const choice = this.#choose(wanted);
    const { chosen, refusals } = choice;
    if (chosen === undefined && (wanted.hasContent || !isNever(choice))) return refusals;
    this.#leave = undefined;
    this.#trace(wanted.purpose, choice);
    if (chosen === undefined) this.#events.none(this.#hopeless(refusals));
    else this.#events.found(chosen, wanted.purpose);
    return undefined;
  }

  #refused(error: HelixFlowError): void {
    this.#leave = undefined;
    this.#deps.counts.waits.refused += 1;
    this.#events.none(error);
  }

  #hopeless(refusals: readonly Refusal[]): HelixFlowError {
    const largestBytes = Math.max(...this.#work.target.group().map(({ bodyMaxBytes }) => bodyMaxBytes));
    return hopelessError(this.#work.call, refusals, largestBytes);
  }

  #unavailable(): HelixFlowError {
    return new HelixFlowError('MODEL_UNAVAILABLE', { model: this.#work.target.name, retryAfterMs });
  }

  #trace(purpose: AttemptPurpose, { chosen, reason, candidates, refusals }: Choice<Serving>): void {
    this.#work.trace.add({
      kind: 'choice',
      atMs: this.#runs.elapsedMs(),
      purpose,
      chosen: chosen?.node.peer,
      reason,
      candidates: candidates.map(traced),
      refusals,
      groupSize: this.#work.target.group().length,
    });
  }
}
