/** Where the attempts of one request go: asks the plan, and remembers what the request has met so far. */

import type { HelixFlowError } from '../../protocol/errors.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { PeerId } from '../../protocol/ids.ts';
import type { Random } from '../../protocol/ports.ts';
import type { NodeEntry, Serving } from '../nodes.ts';
import type { Needs } from './candidates.ts';
import { type Choice, chooseNode, type RoutePolicy, type Scored } from './plan.ts';
import type { Preferences } from './preferences.ts';
import type { PrefixChain, PrefixMemory } from './prefix.ts';
import type { Shown } from './shown.ts';
import type { TracedCandidate } from './trace.ts';

const nobody: ReadonlySet<PeerId> = new Set();
const nothingHeld: ReadonlyMap<PeerId, number> = new Map();

export interface SeekDeps {
  readonly random: Random;
  readonly prefixes: PrefixMemory;
  readonly policy: RoutePolicy;
}

/** What is sought. */
export interface Sought {
  /** The digest's nodes at this moment. */
  readonly group: () => readonly Serving[];
  readonly bodyBytes: number;
  readonly chain: PrefixChain;
  readonly preferences: Preferences;
  /** What the model costs there. */
  readonly priceOf: (serving: Serving) => number;
}

/** Of one request. */
export class Seeker {
  readonly #deps: SeekDeps;
  readonly #sought: Sought;
  /** Sessions with nodes that have failed the request since its last content; a node that comes back has a new one. */
  readonly #tried = new Set<NodeEntry>();
  /** Those of them that cannot go on with its answer. */
  readonly #unable = new Set<NodeEntry>();
  #hasLostNode = false;
  #contextTokens = 0;

  constructor(deps: SeekDeps, sought: Sought) {
    this.#deps = deps;
    this.#sought = sought;
  }

  /**
   * The node for the next attempt.
   * @param shown What of the answer has to be carried on; undefined for one that begins.
   * @param except Where an attempt of it runs already.
   */
  choose(shown: Shown | undefined, except?: NodeEntry): Choice<Serving> {
    const { group, bodyBytes, chain, preferences, priceOf } = this.#sought;
    const { random, prefixes, policy } = this.#deps;
    const nodes = group();
    const needs: Needs = {
      tried: this.#triedOf(nodes, except),
      bodyBytes,
      preferences,
      contextTokens: this.#contextTokens,
      continues: shown?.continues,
      queueMax: policy.nodeQueueMax,
    };
    const held = chain.bytes === 0 ? nothingHeld : prefixes.held(chain);
    return chooseNode(
      { group: nodes, needs, held, priceOf, hasLostNode: this.#hasLostNode, routing: policy.routing },
      random,
    );
  }

  /** An attempt there has failed. */
  failed(node: NodeEntry, error: HelixFlowError): void {
    this.#hasLostNode ||= error.code === 'NODE_LOST';
    if (error.code === 'RESUME_REFUSED') this.#unable.add(node);
    if (error.code === 'NODE_OVERLOADED') node.overloaded();
    else this.#tried.add(node);
  }

  /** An answer that has begun finds no other place: where it failed it may be tried again, as far as breakers allow. */
  forgive(): void {
    for (const node of this.#tried) if (!this.#unable.has(node)) this.#tried.delete(node);
  }

  /**
   * A node has no room for the request in its context.
   * @returns true when another one, with a longer one, may have.
   */
  needsRoom(error: HelixFlowError, node: Serving): boolean {
    if (!isHelixFlowError(error, 'CONTEXT_LENGTH_EXCEEDED')) return false;
    const { requestedTokens } = error.details;
    this.#contextTokens = Math.max(this.#contextTokens, requestedTokens);
    return this.#sought
      .group()
      .some(({ contextTokens }) => contextTokens >= requestedTokens && contextTokens > node.contextTokens);
  }

  /** Content has come: what failed before may be there again. */
  progressed(): void {
    this.#tried.clear();
    this.#unable.clear();
    this.#hasLostNode = false;
  }

  #triedOf(nodes: readonly Serving[], except: NodeEntry | undefined): ReadonlySet<PeerId> {
    if (this.#tried.size === 0 && except === undefined) return nobody;
    return new Set(nodes.filter(({ node }) => node === except || this.#tried.has(node)).map(({ peer }) => peer));
  }
}

/** A candidate as it looks now, for the request's story. */
export const traced = ({ node, score, cachedBytes }: Scored<Serving>): TracedCandidate => ({
  peer: node.peer,
  score,
  cachedBytes,
  active: node.active,
  queued: node.queued,
});
