/** Requests that wait for a node: bounded, and fair to accounts whatever each of them asks for. */

import type { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest } from '../../protocol/ids.ts';
import type { Cancel } from '../../protocol/ports.ts';

/** One request that waits. */
export interface Waiter {
  /** Whose it is; places and turns are shared between accounts. */
  readonly account: string;
  /** How many attempts of this account run in this group now: who has fewest is next. */
  readonly running: () => number;
  /** A place may be free: tries to take it. @returns false when there was none for it after all; it keeps its turn. */
  go(): boolean;
  /** It has to give up its place to others: it ends with this error. */
  refused(error: HelixFlowError<'GATEWAY_OVERLOADED' | 'ACCOUNT_OVERLOADED'>): void;
}

/** The requests of one gateway that wait, by model. */
export interface WaitingRoom {
  readonly size: number;
  /** How many wait for this model. */
  sizeOf(digest: ModelDigest): number;
  /**
   * Takes a place. When all are taken, an account that holds more than its share loses its newest one to this one.
   * @returns how to leave, or why there is no place: GATEWAY_OVERLOADED, or ACCOUNT_OVERLOADED when that is the account's own doing.
   */
  enter(digest: ModelDigest, waiter: Waiter): Cancel | HelixFlowError<'GATEWAY_OVERLOADED' | 'ACCOUNT_OVERLOADED'>;
  /** Something changed at a node of this model: whoever is next goes, and the next, until one finds no place. */
  changed(digest: ModelDigest): void;
  /** An attempt of this model has ended: what an honest `retryAfterMs` is made of. */
  left(digest: ModelDigest): void;
  /** When a request that comes now should find a place: from those that wait, and how fast they went lately. */
  retryAfterMs(digest: ModelDigest): number;
}
