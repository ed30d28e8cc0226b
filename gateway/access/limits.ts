/** How much a key, and all keys of an account together, may use at this gateway: held on arrival, settled at the end. */

import type { ShareQuery } from '../../ledger/budgets.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { givenRates, type RateLimits } from '../../protocol/grants.ts';
import type { Clock } from '../../protocol/ports.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import type { Access } from './judge.ts';
import { type Bounds, holdOf, type Rate, type Request, Subject, tighter } from './subject.ts';

/** What is set aside for an answer whose client names no `max_tokens`; a longer one takes more as it comes. */
export const defaultHoldTokens = 2_048;
/** Keys and accounts with limits that are under way or were in the last minute; about 1.5 kB each. */
const subjectsMax = 65_536;
const sweepEveryMs = 60_000;
/** What a client is told to wait for something that ends at a time nobody knows. */
const unknownWaitMs = ms(1_000);

/** What is set aside for one request. */
export interface Hold {
  readonly request: Request;
  /** As it stands with this request counted; for headers. */
  readonly rate: Rate;
  /** The answer is longer than what was set aside: it is not cut, but counts at once. */
  grow(tokens: number): void;
  /** The request has ended, with this many tokens used; the first call counts. */
  settle(tokens: number): void;
}

export interface Limits {
  /**
   * Takes one request, all it may need in tokens, and a place among those under way, from the key and from its account:
   * from both or from neither. Undefined when neither has a limit.
   * @param need Asked only where tokens are limited.
   * @returns HelixFlowError RATE_LIMITED, or REQUEST_OVER_LIMIT when it could never pass.
   */
  take(access: Access, need: () => Request): Hold | HelixFlowError | undefined;
  /** What is left now; undefined when nothing is limited. Counts nothing. */
  rateOf(access: Access): Rate | undefined;
  /** What is held and remembered now. */
  counts(): { readonly subjects: number; readonly running: number; readonly heldTokens: number };
}

const isLimited = (limits: RateLimits | undefined): limits is RateLimits =>
  limits !== undefined && (limits.rpm !== undefined || limits.tpm !== undefined || limits.concurrency !== undefined);

const nothing: Request = { promptBound: 0, completionTokens: 0, isExplicit: false };

interface Part {
  readonly subject: Subject;
  readonly limits: RateLimits;
  /** Whose they are, where other gateways may use them, too. */
  readonly shared: ShareQuery['subject'] | undefined;
}

/** A part, with what of its limits may be used here now. */
interface BoundPart extends Part {
  readonly bounds: Bounds;
}

/** This gateway's part of a limit, now; as `Budgets.share`. */
export type ShareOf = (query: ShareQuery) => number;

class RunningHold implements Hold {
  readonly request: Request;
  readonly rate: Rate;
  readonly #clock: Clock;
  readonly #parts: readonly BoundPart[];
  /** Of each part. */
  readonly #held: number[];
  #isSettled = false;

  constructor(clock: Clock, parts: readonly BoundPart[], request: Request) {
    this.request = request;
    this.#clock = clock;
    this.#parts = parts;
    const nowMs = clock.nowMs();
    this.#held = parts.map(({ subject, limits }) => subject.take(limits, request, nowMs));
    this.rate = rateOfParts(parts, nowMs);
  }

  grow(tokens: number): void {
    if (this.#isSettled) return;
    for (const [at, { subject, limits }] of this.#parts.entries()) {
      if (limits.tpm === undefined) continue;
      this.#held[at] = (this.#held[at] ?? 0) + tokens;
      subject.grow(tokens);
    }
  }

  settle(tokens: number): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const nowMs = this.#clock.nowMs();
    for (const [at, { subject, limits }] of this.#parts.entries()) {
      subject.settle(this.#held[at] ?? 0, limits.tpm === undefined ? 0 : tokens, nowMs);
    }
  }
}

const rateOfParts = (parts: readonly BoundPart[], nowMs: Ms): Rate =>
  parts.map(({ subject, bounds }) => subject.rate(bounds, nowMs)).reduce(tighter);

/** The refusal that lasts longest; one that never ends before all others. */
function refusalOf(parts: readonly BoundPart[], request: Request, nowMs: Ms): HelixFlowError | undefined {
  let longestMs = -1;
  let worst: HelixFlowError | undefined;
  for (const { subject, limits, bounds } of parts) {
    const { scope } = subject;
    const { tpm } = limits;
    if (tpm !== undefined && request.isExplicit && request.completionTokens > tpm) {
      return new HelixFlowError('REQUEST_OVER_LIMIT', { tokens: request.completionTokens, limit: tpm, scope });
    }
    for (const { unit, limit, waitMs } of subject.shortfalls(bounds, request, nowMs)) {
      const retryAfterMs = Math.ceil(waitMs ?? unknownWaitMs);
      if (retryAfterMs <= longestMs) continue;
      longestMs = retryAfterMs;
      worst = new HelixFlowError('RATE_LIMITED', { limit, unit, scope, retryAfterMs });
    }
  }
  return worst;
}

class GatewayLimits implements Limits {
  readonly #clock: Clock;
  readonly #nowMs = (): Ms => this.#clock.nowMs();
  readonly #shareOf: ShareOf | undefined;
  readonly #subjects = new Map<string, Subject>();
  #sweptMs: Ms;

  constructor(clock: Clock, shareOf: ShareOf | undefined) {
    this.#clock = clock;
    this.#shareOf = shareOf;
    this.#sweptMs = clock.nowMs();
  }

  take(access: Access, need: () => Request): Hold | HelixFlowError | undefined {
    const { limits: own, accountLimits: shared } = access;
    if (!isLimited(own) && !isLimited(shared)) return undefined;
    const nowMs = this.#clock.nowMs();
    this.#sweep(nowMs);
    if (this.#subjects.size > subjectsMax - 2 && !this.#areKnown(access)) {
      const details = { limit: subjectsMax, unit: 'keys at a time', scope: 'gateway', retryAfterMs: unknownWaitMs };
      return new HelixFlowError('RATE_LIMITED', details);
    }
    const request = own.tpm === undefined && shared?.tpm === undefined ? nothing : need();
    const parts = this.#bound(access, this.#parts(access, true), request);
    return refusalOf(parts, request, nowMs) ?? new RunningHold(this.#clock, parts, request);
  }

  rateOf(access: Access): Rate | undefined {
    const parts = this.#bound(access, this.#parts(access, false), undefined);
    return parts.length === 0 ? undefined : rateOfParts(parts, this.#clock.nowMs());
  }

  counts(): { subjects: number; running: number; heldTokens: number } {
    const all = [...this.#subjects.values()];
    const total = (of: (subject: Subject) => number): number => all.reduce((sum, subject) => sum + of(subject), 0);
    return {
      subjects: all.length,
      running: total(({ running }) => running),
      heldTokens: total(({ heldTokens }) => heldTokens),
    };
  }

  #areKnown(access: Access): boolean {
    return (
      (!isLimited(access.limits) || this.#subjects.has(keyName(access))) &&
      (!isLimited(access.accountLimits) || this.#subjects.has(accountName(access)))
    );
  }

  /** @param request What is asked for; undefined where nothing is. */
  #bound({ issuer, strict }: Access, parts: readonly Part[], request: Request | undefined): BoundPart[] {
    const shareOf = this.#shareOf;
    return parts.map((part) => {
      const { limits, shared, subject } = part;
      if (shareOf === undefined || shared === undefined) return { ...part, bounds: { whole: limits, shares: limits } };
      const shareIn = (limit: keyof RateLimits, need: number): number | undefined => {
        const total = limits[limit];
        if (total === undefined) return undefined;
        const used = subject.readingOf(limit, this.#nowMs);
        return shareOf({ issuer, subject: shared, limit, total, strict, used, need: request === undefined ? 0 : need });
      };
      const tokens = limits.tpm === undefined ? 0 : holdOf(request ?? nothing, limits.tpm);
      const shares = givenRates({
        rpm: shareIn('rpm', 1),
        tpm: shareIn('tpm', tokens),
        concurrency: shareIn('concurrency', 1),
      });
      return { ...part, bounds: { whole: limits, shares } };
    });
  }

  #parts(access: Access, isKept: boolean): Part[] {
    const { limits, accountLimits, gateways, keyId: key, account } = access;
    const parts: Part[] = [];
    if (isLimited(limits)) {
      // A key that is good at one gateway is used nowhere else.
      const shared = gateways.length === 1 ? undefined : ({ kind: 'key', key } as const);
      parts.push({ subject: this.#subject(keyName(access), 'key', isKept), limits, shared });
    }
    if (isLimited(accountLimits)) {
      const shared = { kind: 'account', account } as const;
      parts.push({ subject: this.#subject(accountName(access), 'account', isKept), limits: accountLimits, shared });
    }
    return parts;
  }

  #subject(name: string, scope: 'key' | 'account', isKept: boolean): Subject {
    const known = this.#subjects.get(name);
    if (known !== undefined) return known;
    const made = new Subject(scope);
    if (isKept) this.#subjects.set(name, made);
    return made;
  }

  /** Drops those that hold nothing and whose window is empty: made anew they would be the same. */
  #sweep(nowMs: Ms): void {
    const isFull = this.#subjects.size > subjectsMax - 2 && nowMs - this.#sweptMs >= unknownWaitMs;
    if (nowMs - this.#sweptMs < sweepEveryMs && !isFull) return;
    this.#sweptMs = nowMs;
    for (const [name, subject] of this.#subjects) if (subject.isIdle(nowMs)) this.#subjects.delete(name);
  }
}

const keyName = ({ issuer, keyId }: Access): string => `k${issuer}${keyId}`;
const accountName = ({ issuer, account }: Access): string => `a${issuer}${account}`;

/**
 * Makes the limits of one gateway. Headers and refusals name a limit as it was granted, and what remains of it here.
 * @param shareOf This gateway's part of each limit; without it nothing is shared with others.
 */
export const createLimits = (clock: Clock, shareOf?: ShareOf): Limits => new GatewayLimits(clock, shareOf);
