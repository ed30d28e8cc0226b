/** One key or one account at this gateway: what it used in the last minute, and what is held for requests under way. */

import type { RateLimits } from '../../protocol/grants.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import { Window } from './window.ts';

/** What a request may take at worst. */
export interface Request {
  /** No prompt has more tokens than the bytes it comes in. */
  readonly promptBound: number;
  /** As far as the answer may go, or what is set aside for one without a bound. */
  readonly completionTokens: number;
  /** The client has named that bound. */
  readonly isExplicit: boolean;
}

/** One limit, as a client sees it. */
export interface Allowance {
  readonly limit: number;
  readonly remaining: number;
  /** Until all of it is there again, if nothing more is asked for. */
  readonly resetMs: Ms;
}

/** What is left; absent is unlimited. */
export interface Rate {
  readonly requests?: Allowance;
  readonly tokens?: Allowance;
  readonly concurrency?: Omit<Allowance, 'resetMs'>;
}

/** A limit that a request does not fit into. */
export interface Shortfall {
  readonly limit: number;
  readonly unit: 'requests per minute' | 'tokens per minute' | 'concurrent requests';
  /** Until it would fit; undefined when that depends on requests under way. */
  readonly waitMs: Ms | undefined;
}

const fewer = <T extends { readonly remaining: number }>(a: T | undefined, b: T | undefined): T | undefined =>
  a !== undefined && b !== undefined ? (b.remaining < a.remaining ? b : a) : (a ?? b);

/** Of two, each limit that leaves less. */
export function tighter(a: Rate, b: Rate): Rate {
  const [requests, tokens] = [fewer(a.requests, b.requests), fewer(a.tokens, b.tokens)];
  const concurrency = fewer(a.concurrency, b.concurrency);
  return {
    ...(requests === undefined ? {} : { requests }),
    ...(tokens === undefined ? {} : { tokens }),
    ...(concurrency === undefined ? {} : { concurrency }),
  };
}

/** Limits as they were granted, and this gateway's part of each now: the same where nobody else may use them. */
export interface Bounds {
  readonly whole: RateLimits;
  readonly shares: RateLimits;
}

/** A share may have grown by then. */
const shareWaitMs = ms(1_000);

/** Until it fits into the share, or the share may be another. */
const waitOf = (share: number, whole: number, waitMs: Ms | undefined): Ms | undefined =>
  share >= whole || waitMs === undefined ? waitMs : ms(Math.min(waitMs, shareWaitMs));

/**
 * Requests count when they arrive. Tokens are held while a request is under way and count from its end, so that an
 * answer of several minutes is never forgotten while it runs: what was delivered within any 60 s is in the window or
 * held.
 */
export class Subject {
  readonly scope: 'key' | 'account';
  readonly #readings = new Map<keyof RateLimits, () => number>();
  running = 0;
  heldTokens = 0;
  #requests: Window | undefined;
  #tokens: Window | undefined;

  constructor(scope: 'key' | 'account') {
    this.scope = scope;
  }

  /** What is used and held of a limit now. */
  usedOf(limit: keyof RateLimits, nowMs: Ms): number {
    if (limit === 'concurrency') return this.running;
    return limit === 'rpm' ? this.#requestsNow(nowMs) : this.#tokensNow(nowMs) + this.heldTokens;
  }

  /** `usedOf` at whatever moment it is called; the same function each time. */
  readingOf(limit: keyof RateLimits, nowMs: () => Ms): () => number {
    let reading = this.#readings.get(limit);
    if (reading === undefined) {
      reading = () => this.usedOf(limit, nowMs());
      this.#readings.set(limit, reading);
    }
    return reading;
  }

  /** Which limits the request does not fit into now; of each it is told how much it is as a whole. */
  shortfalls({ whole, shares }: Bounds, request: Request, nowMs: Ms): Shortfall[] {
    const found: Shortfall[] = [];
    const { rpm = 0, tpm = 0, concurrency = 0 } = whole;
    if (shares.rpm !== undefined && this.#requestsNow(nowMs) >= shares.rpm) {
      const freeMs = shares.rpm < 1 ? undefined : this.#requests?.untilAtMost(nowMs, shares.rpm - 1);
      found.push({ limit: rpm, unit: 'requests per minute', waitMs: waitOf(shares.rpm, rpm, freeMs) });
    }
    if (shares.tpm !== undefined) {
      const room = shares.tpm - holdOf(request, tpm);
      if (this.#tokensNow(nowMs) + this.heldTokens > room) {
        const free = room - this.heldTokens;
        const freeMs = free < 0 ? undefined : this.#tokens?.untilAtMost(nowMs, free);
        found.push({ limit: tpm, unit: 'tokens per minute', waitMs: waitOf(shares.tpm, tpm, freeMs) });
      }
    }
    if (shares.concurrency !== undefined && this.running >= shares.concurrency) {
      found.push({ limit: concurrency, unit: 'concurrent requests', waitMs: undefined });
    }
    return found;
  }

  /** Counts the request. @returns the tokens held for it. */
  take({ rpm, tpm }: RateLimits, request: Request, nowMs: Ms): number {
    this.running += 1;
    if (rpm !== undefined) {
      this.#requests ??= new Window();
      this.#requests.add(nowMs, 1);
    }
    const tokens = tpm === undefined ? 0 : holdOf(request, tpm);
    this.heldTokens += tokens;
    return tokens;
  }

  grow(tokens: number): void {
    this.heldTokens += tokens;
  }

  /** Gives back what was held, and counts what was used. */
  settle(held: number, used: number, nowMs: Ms): void {
    this.running -= 1;
    this.heldTokens -= held;
    if (used === 0) return;
    this.#tokens ??= new Window();
    this.#tokens.add(nowMs, used);
  }

  /** The limit is told as it was granted; what remains of it, as far as it can be used here. */
  rate({ whole: { rpm, tpm, concurrency }, shares }: Bounds, nowMs: Ms): Rate {
    return {
      ...(rpm === undefined
        ? {}
        : {
            requests: {
              limit: rpm,
              remaining: Math.max(0, (shares.rpm ?? rpm) - this.#requestsNow(nowMs)),
              resetMs: this.#requests?.untilEmpty(nowMs) ?? ms(0),
            },
          }),
      ...(tpm === undefined
        ? {}
        : {
            tokens: {
              limit: tpm,
              remaining: Math.max(0, (shares.tpm ?? tpm) - this.#tokensNow(nowMs) - this.heldTokens),
              resetMs: this.#tokensResetMs(nowMs),
            },
          }),
      ...(concurrency === undefined
        ? {}
        : {
            concurrency: {
              limit: concurrency,
              remaining: Math.max(0, (shares.concurrency ?? concurrency) - this.running),
            },
          }),
    };
  }

  isIdle(nowMs: Ms): boolean {
    return this.running === 0 && this.#requestsNow(nowMs) === 0 && this.#tokensNow(nowMs) === 0;
  }

  #requestsNow(nowMs: Ms): number {
    return this.#requests?.sum(nowMs) ?? 0;
  }

  #tokensNow(nowMs: Ms): number {
    return this.#tokens?.sum(nowMs) ?? 0;
  }

  /** What is held counts for a minute from its end, and that is not before now. */
  #tokensResetMs(nowMs: Ms): Ms {
    return this.heldTokens > 0 ? ms(60_000) : (this.#tokens?.untilEmpty(nowMs) ?? ms(0));
  }
}

/**
 * The worst case, or the whole limit where that is less: the bytes of a prompt are some four times its tokens, so to
 * refuse by them for ever would keep out prompts that fit. Such a request passes only alone, with nothing left in the
 * window, and counts in full at its end.
 */
export const holdOf = ({ promptBound, completionTokens }: Request, tpm: number): number =>
  Math.min(promptBound + completionTokens, tpm);
