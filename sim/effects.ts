/** Effect counters: how often each kind of fault really changed something. A fault without effect tests nothing. */

export const faultKinds = [
  'partition',
  'oneWay',
  'blackHole',
  'reset',
  'slowLink',
  'crash',
  'pause',
  'clockSkew',
  'engineStall',
  'engineCrash',
  'engineSlow',
  'diskLostSuffix',
  'diskHoles',
  'diskRestored',
  'diskWriteError',
  'diskSyncError',
  'diskFull',
  'diskSlow',
  'diskCrash',
  'replay',
  'lyingNode',
  'lyingGateway',
  'resumed',
] as const;

export type FaultKind = (typeof faultKinds)[number];

/** Counts per kind, for one run. */
export class FaultCounts {
  readonly #counts = new Map<FaultKind, number>();

  add(kind: FaultKind, times: number): void {
    if (times > 0) this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + times);
  }

  of(kind: FaultKind): number {
    return this.#counts.get(kind) ?? 0;
  }

  /** Only kinds that had an effect, in the order of `faultKinds`. */
  toObject(): Partial<Record<FaultKind, number>> {
    const seen = faultKinds.filter((kind) => this.of(kind) > 0);
    return Object.fromEntries(seen.map((kind) => [kind, this.of(kind)]));
  }
}
