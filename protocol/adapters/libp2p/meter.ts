/** A token bucket for each peer: how much it may send to a service, and how fast. */

import type { Clock } from '../../ports.ts';

export interface MeterOptions {
  /** What a peer may send at once. */
  readonly burstBytes: number;
  /** What it may send in the long run. */
  readonly bytesPerSecond: number;
  /** Peers remembered; the one seen longest ago is forgotten. */
  readonly peersMax: number;
}

interface Bucket {
  bytes: number;
  atMs: number;
}

export interface Meter {
  /** Takes `bytes` from the bucket of `peer`. @returns false when it holds less. */
  take(peer: string, bytes: number): boolean;
}

export function createMeter(clock: Clock, options: MeterOptions): Meter {
  const buckets = new Map<string, Bucket>();
  return {
    take: (peer, bytes) => {
      const nowMs = clock.nowMs();
      const bucket = buckets.get(peer) ?? { bytes: options.burstBytes, atMs: nowMs };
      const grownBytes = ((nowMs - bucket.atMs) * options.bytesPerSecond) / 1_000;
      bucket.bytes = Math.min(options.burstBytes, bucket.bytes + grownBytes);
      bucket.atMs = nowMs;
      buckets.delete(peer);
      buckets.set(peer, bucket);
      const [oldest] = buckets.keys();
      if (buckets.size > options.peersMax && oldest !== undefined) buckets.delete(oldest);
      if (bucket.bytes < bytes) return false;
      bucket.bytes -= bytes;
      return true;
    },
  };
}
