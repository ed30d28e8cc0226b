/** Whether a model at a node is fit for requests: a breaker with half-open probes, and a slow start for newcomers. */

import type { ErrorCode } from '../../protocol/errors.ts';
import type { ModelDigest, PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { Memory } from '../../protocol/tables.ts';
import { Breaker, type BreakerDeps } from './breaker.ts';

export type BreakerState = 'closed' | 'open' | 'half-open';

/** The health of one model at one node; it outlives the node's sessions, so that one that comes and goes is known. */
export interface ServingHealth {
  readonly state: BreakerState;
  /** An attempt may go there now: closed, or half-open with no probe under way. */
  readonly isAllowed: boolean;
  /** As in `RoutedNode`. */
  readonly warmth: number;
  /** When an open breaker lets a probe pass, on the monotonic clock; undefined while it is not open. */
  readonly probeAtMs: number | undefined;
  /** Why it opened last. */
  readonly openedBy: ErrorCode | undefined;
  /** An attempt leaves for it; of a half-open one this is the probe. @returns what to tell of it. */
  began(): AttemptHealth;
}

/** One attempt, as its node's health sees it. Its end is told once, by `failed` or `dropped`, or by `worked` if all went well. */
export interface AttemptHealth {
  /** Content came, or a whole answer: the node works. Counts once; an attempt that fails afterwards counts as failed. */
  worked(): void;
  /** It ended with this error; only codes whose row blames the node tell against it. */
  failed(code: ErrorCode): void;
  /** It was taken away for reasons of its own. */
  dropped(): void;
}

/** All that a gateway knows of its nodes' health. */
export interface Healths {
  of(peer: PeerId, digest: ModelDigest): ServingHealth;
  /** The node's session is there anew: it starts slowly, unless it was warm and is back within `cutMs`. */
  arrived(peer: PeerId): void;
  /** The node's session is gone. */
  gone(peer: PeerId): void;
}

export interface HealthOptions {
  /** Nodes remembered, also while they are away. */
  readonly peersMax?: number;
}

/** A node that is back so soon has its models still loaded. */
export const cutMs = 30_000;

/** One node over its sessions. */
class PeerHealth {
  readonly breakers = new Map<ModelDigest, Breaker>();
  /** Since when it has been away; undefined while it is there. */
  awayMs: number | undefined = Number.NEGATIVE_INFINITY;
}

/** Health in the memory of one process, forgotten of nodes that have long been away. */
export function createHealths(deps: BreakerDeps, options: HealthOptions = {}): Healths {
  const peers = new Memory<PeerHealth>(options.peersMax ?? 4_096);
  const peerOf = (peer: PeerId): PeerHealth => {
    const known = peers.get(peer);
    if (known !== undefined) return known;
    const fresh = new PeerHealth();
    peers.set(peer, fresh);
    return fresh;
  };
  return {
    of: (peer, digest) => {
      const { breakers } = peerOf(peer);
      const known = breakers.get(digest);
      if (known !== undefined) return known;
      // A node that offers ever new models has only its newest remembered.
      const [oldest] = breakers.keys();
      if (breakers.size >= 2 * limits.offerModelsMax && oldest !== undefined) breakers.delete(oldest);
      const breaker = new Breaker(deps);
      breakers.set(digest, breaker);
      return breaker;
    },
    arrived: (peer) => {
      const health = peerOf(peer);
      const { awayMs } = health;
      health.awayMs = undefined;
      // One session may take over from another before that is gone.
      if (awayMs === undefined) return;
      const isBack = deps.clock.nowMs() - awayMs < cutMs;
      for (const breaker of health.breakers.values()) {
        if (isBack) breaker.back();
        else breaker.cool();
      }
    },
    gone: (peer) => {
      const health = peerOf(peer);
      health.awayMs = deps.clock.nowMs();
      for (const breaker of health.breakers.values()) breaker.gone();
    },
  };
}
