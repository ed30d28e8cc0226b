/** What lies between machines: latency, and the faults that block or slow it down. Nothing is kept per pair. */

import type { FaultCounts, FaultKind } from './effects.ts';
import type { SimRandom } from './random.ts';

/** A machine's number in its world. */
export type HostId = number;

/** A fault on the way between machines. */
export interface LinkRule {
  readonly kind: FaultKind;
  /** True when nothing passes from one to the other. */
  blocks?(from: HostId, to: HostId): boolean;
  /** How much slower it is; 1 for no difference. */
  slows?(from: HostId, to: HostId): number;
}

/** Nothing passes between the inside and the outside. */
export const partition = (inside: ReadonlySet<HostId>): LinkRule => ({
  kind: 'partition',
  blocks: (from, to) => inside.has(from) !== inside.has(to),
});

/** Nothing passes between the two groups; both reach everybody else. */
export const apart = (one: ReadonlySet<HostId>, other: ReadonlySet<HostId>): LinkRule => ({
  kind: 'partition',
  blocks: (from, to) => (one.has(from) && other.has(to)) || (other.has(from) && one.has(to)),
});

/** Nothing gets out of the inside, or nothing into it; the other way is open. */
export const oneWay = (inside: ReadonlySet<HostId>, closed: 'out' | 'in'): LinkRule => ({
  kind: 'oneWay',
  blocks: (from, to) => inside.has(from) !== inside.has(to) && inside.has(from) === (closed === 'out'),
});

/** What `from` sends to `to` vanishes; the other way is open. */
export const blackHole = (from: HostId, to: HostId): LinkRule => ({
  kind: 'blackHole',
  blocks: (a, b) => a === from && b === to,
});

/** Everything from and to one machine takes longer. */
export const slowLink = (host: HostId, factor: number): LinkRule => ({
  kind: 'slowLink',
  slows: (from, to) => (from === host || to === host ? factor : 1),
});

/** How far apart machines are. */
export interface LinkOptions {
  readonly latencyMinMs: number;
  readonly latencyMaxMs: number;
  /** Added to each delivery, up to this much. */
  readonly jitterMs: number;
  readonly bytesPerMs: number;
}

export const usualLinks: LinkOptions = { latencyMinMs: 0.2, latencyMaxMs: 40, jitterMs: 2, bytesPerMs: 125_000 };

export class Links {
  readonly options: LinkOptions;
  readonly #random: SimRandom;
  readonly #counts: FaultCounts;
  readonly #salt: number;
  readonly #rules = new Set<LinkRule>();
  readonly #healed: (() => void)[] = [];

  constructor(random: SimRandom, counts: FaultCounts, options: LinkOptions = usualLinks) {
    this.options = options;
    this.#random = random;
    this.#counts = counts;
    this.#salt = random.uint32();
  }

  get random(): SimRandom {
    return this.#random;
  }

  /** Puts a fault in place; the result takes it away. */
  add(rule: LinkRule): () => void {
    this.#rules.add(rule);
    return () => {
      if (!this.#rules.delete(rule)) return;
      for (const listener of this.#healed) listener();
    };
  }

  /** Calls `listener` whenever a fault is taken away. */
  onHealed(listener: () => void): void {
    this.#healed.push(listener);
  }

  /** True when nothing gets from one to the other now. */
  isBlocked(from: HostId, to: HostId): boolean {
    return this.#blocking(from, to) !== undefined;
  }

  /** As `isBlocked`, for something that was sent and is lost by it: an effect of the fault. */
  stops(from: HostId, to: HostId): boolean {
    const rule = this.#blocking(from, to);
    if (rule !== undefined) this.#counts.add(rule.kind, 1);
    return rule !== undefined;
  }

  #blocking(from: HostId, to: HostId): LinkRule | undefined {
    for (const rule of this.#rules) if (rule.blocks?.(from, to) === true) return rule;
    return undefined;
  }

  #slowness(from: HostId, to: HostId): number {
    let slowness = 1;
    for (const rule of this.#rules) {
      const factor = rule.slows?.(from, to) ?? 1;
      if (factor > 1) this.#counts.add(rule.kind, 1);
      slowness *= factor;
    }
    return slowness;
  }

  /** The time a message takes now; the same for both ways but for jitter, and different for each pair. */
  latencyMs(from: HostId, to: HostId): number {
    const { latencyMinMs, latencyMaxMs, jitterMs } = this.options;
    let mixed = Math.imul(Math.min(from, to) ^ this.#salt, 0x9e3779b1) ^ Math.imul(Math.max(from, to), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
    const share = ((mixed ^ (mixed >>> 13)) >>> 0) / 2 ** 32;
    const base = latencyMinMs + (latencyMaxMs - latencyMinMs) * share;
    return (base + jitterMs * this.#random.float()) * this.#slowness(from, to);
  }

  /** How long the line is busy with so many bytes. */
  sendingMs(bytes: number, from: HostId, to: HostId): number {
    return (bytes / this.options.bytesPerMs) * this.#slowness(from, to);
  }
}
