/** What to do next with a request: which node to try, whether to try again, whether to go on elsewhere. Pure but for the given chance. */

import type { HelixFlowError } from '../../protocol/errors.ts';
import { errorRow } from '../../protocol/errors.ts';
import type { PeerId } from '../../protocol/ids.ts';
import type { Random } from '../../protocol/ports.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import { type Needs, type Refusal, refusalOf } from './candidates.ts';
import { type RoutedNode, type Score, scoreNode, trustedSlots, utilisation } from './score.ts';

/** How nodes are compared; `least-loaded` and `random` are there to measure what `prefix` is worth. */
export const routings = ['prefix', 'least-loaded', 'random'] as const;
export type Routing = (typeof routings)[number];

/** How far a gateway goes for one request. */
export interface RoutePolicy {
  readonly routing: Routing;
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
  routing: 'prefix',
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
  /** Absent: `prefix`. */
  readonly routing?: Routing;
}

/** Why a node was chosen: a closed list, shown to operators. */
export const choiceReasons = ['only', 'prefix', 'soonest', 'price', 'liveliest', 'least-loaded', 'random'] as const;
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
/** The same where the cheapest is sought. */
const priceSampleMax = 64;
/** A node counts as good while it is at most this much later than the best, or this many milliseconds. */
const goodFactor = 1.25;
const goodMs = 5;
/** The same for one that holds much less of the request than the best: it would have to compute that. */
const spreadFactor = 1.05;
/** As far behind the best as a cheaper node may be. */
const cheapFactor = 3;
const cheapMs = 1_000;
/** A node heard so much earlier than the one heard last may be gone with the one that was lost: a missed heartbeat and a bit. */
const livelyMs = 500;

/** At most `max` of the nodes, from a place drawn by chance. */
function run<Node extends RoutedNode>(nodes: readonly Node[], max: number, random: Random): readonly Node[] {
  if (nodes.length <= max) return nodes;
  const start = random.int(nodes.length);
  return Array.from({ length: max }, (_, at) => nodes[(start + at) % nodes.length] as Node);
}

/** Nodes to look at first: all of a small group; some of a large one, and who holds the beginning. */
function sample<Node extends RoutedNode>({ group, held, needs }: Question<Node>, random: Random): readonly Node[] {
  if (group.length <= sampleMax) return group;
  const { region, prefer } = needs.preferences;
  const local = region === undefined ? group : group.filter((node) => node.region === region);
  const near = local.length > 0 ? local : group;
  const drawn = run(near, prefer === 'price' ? priceSampleMax : sampleMax, random);
  if (held.size === 0 || drawn.length === near.length) return drawn;
  return [...drawn, ...near.filter((node) => held.has(node.peer) && !drawn.includes(node))];
}

/** A node drawn by chance, each as often as it has slots. */
function draw<Node extends RoutedNode>(good: readonly Scored<Node>[], slots: number, random: Random): Scored<Node> {
  let left = random.float() * slots;
  for (const one of good) {
    left -= trustedSlots(one.node);
    if (left < 0) return one;
  }
  return good[good.length - 1] as Scored<Node>;
}

/** Power of two choices: the less used of two that are drawn, so that gateways that know the same do not stampede. */
function drawOne<Node extends RoutedNode>(good: readonly Scored<Node>[], random: Random): Scored<Node> {
  if (good.length === 1) return good[0] as Scored<Node>;
  let slots = 0;
  for (const { node } of good) slots += trustedSlots(node);
  const first = draw(good, slots, random);
  const second = draw(good, slots, random);
  return utilisation(second.node) < utilisation(first.node) ? second : first;
}

function soonest<Node extends RoutedNode>(candidates: readonly Scored<Node>[]): Scored<Node> {
  let best = candidates[0] as Scored<Node>;
  for (const one of candidates) if (one.score.totalMs < best.score.totalMs) best = one;
  return best;
}

const atMost = (bestMs: number, factor: number, marginMs: number): number =>
  Math.max(bestMs * factor, bestMs + marginMs);

/** One of those that are about as good as the best. What they hold of the request is worth more than an even spread. */
function oneOfGood<Node extends RoutedNode>(candidates: readonly Scored<Node>[], random: Random): Scored<Node> {
  const best = soonest(candidates);
  const goodBound = atMost(best.score.totalMs, goodFactor, goodMs);
  const spreadBound = atMost(best.score.totalMs, spreadFactor, goodMs);
  const good = candidates.filter(
    ({ score, cachedBytes }) => score.totalMs <= (2 * cachedBytes < best.cachedBytes ? spreadBound : goodBound),
  );
  return drawOne(good, random);
}

/** One of those with the smallest share of their slots in use. */
function leastLoaded<Node extends RoutedNode>(candidates: readonly Scored<Node>[], random: Random): Scored<Node> {
  const least = Math.min(...candidates.map(({ node }) => utilisation(node)));
  const free = candidates.filter(({ node }) => utilisation(node) <= least);
  return free[random.int(free.length)] ?? (candidates[0] as Scored<Node>);
}

const inRegion = <Node extends RoutedNode>(candidates: readonly Scored<Node>[], region: string | undefined) => {
  if (region === undefined) return candidates;
  const near = candidates.filter(({ node }) => node.region === region);
  return near.length > 0 ? near : candidates;
};

/** Those of the lowest price among the nodes that are not much later than the best. */
function cheapest<Node extends RoutedNode>(
  candidates: readonly Scored<Node>[],
  priceOf: Question<Node>['priceOf'],
): readonly Scored<Node>[] {
  const bound = atMost(soonest(candidates).score.totalMs, cheapFactor, cheapMs);
  let least = Number.POSITIVE_INFINITY;
  let found: Scored<Node>[] = [];
  for (const one of candidates) {
    if (one.score.totalMs > bound) continue;
    const price = priceOf(one.node);
    // Nor one without a price.
    if (!(price <= least)) continue;
    if (price < least) found = [];
    least = price;
    found.push(one);
  }
  return found.length > 0 ? found : candidates;
}

/** Those that were heard lately, of those where nobody waits for a slot: a wrong guess costs less than a long queue. */
function liveliest<Node extends RoutedNode>(candidates: readonly Scored<Node>[]): readonly Scored<Node>[] {
  const free = candidates.filter(({ score }) => score.waitMs === 0);
  const open = free.length > 0 ? free : candidates;
  const newestMs = Math.max(...open.map(({ node }) => node.lastHeardMs));
  return open.filter(({ node }) => node.lastHeardMs >= newestMs - livelyMs);
}

function pick<Node extends RoutedNode>(
  candidates: readonly Scored<Node>[],
  question: Question<Node>,
  random: Random,
): Pick<Choice<Node>, 'chosen' | 'reason'> {
  const { hasLostNode, priceOf, needs, routing = 'prefix' } = question;
  const { region, prefer } = needs.preferences;
  const [first] = candidates;
  if (first === undefined) return { chosen: undefined, reason: undefined };
  if (candidates.length === 1) return { chosen: first, reason: 'only' };
  if (routing === 'random') return { chosen: candidates[random.int(candidates.length)], reason: 'random' };
  if (routing === 'least-loaded') return { chosen: leastLoaded(candidates, random), reason: 'least-loaded' };
  if (hasLostNode) return { chosen: oneOfGood(inRegion(liveliest(candidates), region), random), reason: 'liveliest' };
  const near = inRegion(candidates, region);
  if (prefer === 'price') return { chosen: oneOfGood(cheapest(near, priceOf), random), reason: 'price' };
  const chosen = oneOfGood(near, random);
  return { chosen, reason: chosen.cachedBytes > 0 ? 'prefix' : 'soonest' };
}

/** Chooses a node. */
export function chooseNode<Node extends RoutedNode>(question: Question<Node>, random: Random): Choice<Node> {
  const { group, needs, held } = question;
  const { bodyBytes } = needs;
  const nodes: Node[] = [];
  const refusals: Refusal[] = [];
  const look = (some: readonly Node[]): void => {
    for (const node of some) {
      const reason = refusalOf(node, needs);
      if (reason === undefined) nodes.push(node);
      else refusals.push({ peer: node.peer, reason });
    }
  };
  const sampled = sample(question, random);
  look(sampled);
  // Of a large group none of those that were drawn may do; then all are looked at.
  if (nodes.length === 0 && sampled.length < group.length) {
    const looked = new Set(sampled);
    look(group.filter((node) => !looked.has(node)));
  }
  const candidates = nodes.map((node): Scored<Node> => {
    const cachedBytes = held.get(node.peer) ?? 0;
    return { node, cachedBytes, score: scoreNode(node, { bodyBytes, cachedBytes }, nodes) };
  });
  return { ...pick(candidates, question, random), candidates, refusals };
}

/** What becomes of a request whose attempt has failed. */
export type Recovery = 'retry' | 'splice' | 'restart' | 'give-up';

/** How a request stands when an attempt of it fails. */
export interface Standing {
  /** Attempts so far, hedges not counted. */
  readonly attempts: number;
  /** Times that another node went on, or began again. */
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
  // After content the deadline that has passed at a node is that of the whole answer.
  if (retry === 'never' || error.code === 'DEADLINE_EXCEEDED' || splices >= policy.splicesMax) return 'give-up';
  if (continues !== undefined) return 'splice';
  return isUnseen ? 'restart' : 'give-up';
}
