/** What to do next with a request: which node to try, whether to try again, whether to go on elsewhere. Pure but for the given chance. */

import type { HelixFlowError } from '../../protocol/errors.ts';
import { errorRow } from '../../protocol/errors.ts';
import type { PeerId } from '../../protocol/ids.ts';
import type { Random } from '../../protocol/ports.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import { type Needs, type Refusal, refusalOf } from './candidates.ts';
import { type RoutedNode, type Score, scoreNode, utilisation } from './score.ts';

/** How far a gateway goes for one request. */
export interface RoutePolicy {
  /** Attempts before first content, hedges not counted. */
  readonly attemptsMax: number;
  /** Times that one answer may be carried on elsewhere. */
  readonly splicesMax: number;
  /** To find a node that may take the request, when all are full or silent. */
  readonly waitMs: Ms;
  /** To find a node that goes on with an answer. */
  readonly spliceWaitMs: Ms;
  /** To first content at one node, at most; less where the model's own times tell that something is wrong. */
  readonly firstContentMs: Ms;
  /** Between two pieces of an answer, and without any progress of its node before the first. */
  readonly gapMs: Ms;
  /** Hedges for each request, on the average; 0 for none. */
  readonly hedgeShare: number;
  /** As `Needs.queueMax`. */
  readonly nodeQueueMax: number;
}

export const usualPolicy: RoutePolicy = {
  attemptsMax: 3,
  splicesMax: 32,
  waitMs: ms(10_000),
  spliceWaitMs: ms(10_000),
  firstContentMs: ms(120_000),
  gapMs: ms(4_000),
  hedgeShare: 0.05,
  nodeQueueMax: 2,
};

/** What a choice is made from. */
export interface Question<Node extends RoutedNode> {
  readonly group: readonly Node[];
  readonly needs: Needs;
  /** Bytes of the request's beginning that each node holds; nodes that hold nothing are absent. */
  readonly held: ReadonlyMap<PeerId, number>;
  /** What one unit of work costs there, for `prefer: 'price'`; only its order counts. */
  readonly priceOf: (node: Node) => number;
  /** What took one node away may have taken others of which nobody knows yet. */
  readonly hasLostNode: boolean;
}

/** Why a node was chosen: a closed list, shown to operators. */
export const choiceReasons = ['only', 'prefix', 'soonest', 'price', 'liveliest'] as const;
export type ChoiceReason = (typeof choiceReasons)[number];

/** A node that may take the request, and what is expected of it. */
export interface Scored<Node extends RoutedNode> {
  readonly node: Node;
  readonly score: Score;
  readonly cachedBytes: number;
}

/** What came of a question. */
export interface Choice<Node extends RoutedNode> {
  readonly chosen: Scored<Node> | undefined;
  readonly reason: ChoiceReason | undefined;
  readonly candidates: readonly Scored<Node>[];
  readonly refusals: readonly Refusal[];
}

/** Of a large group so many are looked at, beside those that hold the request's beginning. */
const sampleMax = 8;
/** A node counts as good while it is at most this much later than the best, and this many milliseconds. */
const goodFactor = 1.25;
const goodMs = 5;
/** As far behind the best as a cheaper node may be. */
const cheapFactor = 3;
const cheapMs = 1_000;

/** Nodes to look at: all of a small group; of a large one a run from a place drawn by chance, and who holds the beginning. */
function sample<Node extends RoutedNode>({ group, held }: Question<Node>, random: Random): readonly Node[] {
  if (group.length <= sampleMax) return group;
  const start = random.int(group.length);
  const run = Array.from({ length: sampleMax }, (_, at) => group[(start + at) % group.length] as Node);
  if (held.size === 0) return run;
  return [...run, ...group.filter((node) => held.has(node.peer) && !run.includes(node))];
}

/** Power of two choices: the less used of two that are drawn, so that gateways that know the same do not stampede. */
function drawOne<Node extends RoutedNode>(good: readonly Scored<Node>[], random: Random): Scored<Node> {
  const first = good[random.int(good.length)] as Scored<Node>;
  if (good.length === 1) return first;
  const second = good[random.int(good.length)] as Scored<Node>;
  return utilisation(second.node) < utilisation(first.node) ? second : first;
}

const soonest = <Node extends RoutedNode>(candidates: readonly Scored<Node>[]): Scored<Node> =>
  candidates.reduce((best, one) => (one.score.totalMs < best.score.totalMs ? one : best));

const inRegion = <Node extends RoutedNode>(candidates: readonly Scored<Node>[], region: string | undefined) => {
  if (region === undefined) return candidates;
  const near = candidates.filter(({ node }) => node.region === region);
  return near.length > 0 ? near : candidates;
};

function pick<Node extends RoutedNode>(
  candidates: readonly Scored<Node>[],
  question: Question<Node>,
  random: Random,
): Pick<Choice<Node>, 'chosen' | 'reason'> {
  const [only] = candidates;
  if (only === undefined) return { chosen: undefined, reason: undefined };
  if (candidates.length === 1) return { chosen: only, reason: 'only' };
  if (question.hasLostNode) {
    const chosen = candidates.reduce((a, b) => (b.node.lastHeardMs > a.node.lastHeardMs ? b : a));
    return { chosen, reason: 'liveliest' };
  }
  const near = inRegion(candidates, question.needs.preferences.region);
  const best = soonest(near);
  if (question.needs.preferences.prefer === 'price') {
    const bound = Math.max(best.score.totalMs * cheapFactor, best.score.totalMs + cheapMs);
    const fit = near.filter(({ score }) => score.totalMs <= bound);
    const least = Math.min(...fit.map(({ node }) => question.priceOf(node)));
    return { chosen: soonest(fit.filter(({ node }) => question.priceOf(node) === least)), reason: 'price' };
  }
  // What a node holds of the request is worth more than an even spread: the others would have to compute it.
  if (best.cachedBytes > 0) return { chosen: best, reason: 'prefix' };
  const bound = Math.max(best.score.totalMs * goodFactor, best.score.totalMs + goodMs);
  return { chosen: drawOne(near.filter(({ score }) => score.totalMs <= bound), random), reason: 'soonest' };
}

/** Chooses a node. */
export function chooseNode<Node extends RoutedNode>(question: Question<Node>, random: Random): Choice<Node> {
  const { needs, held } = question;
  const candidates: Scored<Node>[] = [];
  const refusals: Refusal[] = [];
  const look = (nodes: readonly Node[]): void => {
    for (const node of nodes) {
      const reason = refusalOf(node, needs);
      if (reason !== undefined) {
        refusals.push({ peer: node.peer, reason });
        continue;
      }
      const cachedBytes = held.get(node.peer) ?? 0;
      candidates.push({ node, cachedBytes, score: scoreNode(node, { bodyBytes: needs.bodyBytes, cachedBytes }) });
    }
  };
  const sampled = sample(question, random);
  look(sampled);
  // Of a large group none of those that were drawn may do; then all are looked at.
  if (candidates.length === 0 && sampled.length < question.group.length) {
    look(question.group.filter((node) => !sampled.includes(node)));
  }
  return { ...pick(candidates, question, random), candidates, refusals };
}

/** What becomes of a request whose attempt has failed. */
export type Recovery = 'retry' | 'splice' | 'restart' | 'give-up';

/** How a request stands when an attempt of it fails. */
export interface Standing {
  /** Attempts so far, hedges not counted. */
  readonly attempts: number;
  readonly splices: number;
  /** Content of this attempt, or of one before it, has been taken over. */
  readonly hasContent: boolean;
  /** From what the answer could be carried on; undefined where nobody could, or no longer. */
  readonly continues: 'tokens' | 'text' | undefined;
  /** Nothing of the content has left this gateway: it may be made again from the start. */
  readonly isUnseen: boolean;
}

/** What to do about `error`: the table of errors tells whether another node can help (`errorRow(code).retry`). */
export function recover(error: HelixFlowError, standing: Standing, policy: RoutePolicy): Recovery {
  const { attempts, splices, hasContent, continues, isUnseen } = standing;
  const { retry } = errorRow(error.code);
  if (!hasContent) return retry !== 'never' && attempts < policy.attemptsMax ? 'retry' : 'give-up';
  if (retry === 'never' || splices >= policy.splicesMax) return 'give-up';
  if (continues !== undefined) return 'splice';
  return isUnseen ? 'restart' : 'give-up';
}
