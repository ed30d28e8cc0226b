/** Settlement: what all that was said of attempts comes to, whatever order and however often it was said (design §6). */

import type { PeerId } from '../protocol/ids.ts';
import type { LineOutcome, UsageLine } from './line.ts';
import { costMicro } from './price.ts';
import type { AttemptFacts, Said, Settled, SettledState } from './settlement.ts';

/** It pays nothing: the node says that it did no such work. */
const isVoid = ({ refused }: Said): boolean => refused === 'unknown';

/** The node has signed that it did the work that this line tells of. */
const isOwedFor = (said: Said): boolean => said.isCountersigned && !isVoid(said) && said.refused !== 'repeated';

/** Only who ended a request is paid for its prompt. */
const ends = (outcome: LineOutcome): boolean => outcome === 'done' || outcome === 'cancelled';

const compare = <T extends string | number>(a: T, b: T): number => (a < b ? -1 : a > b ? 1 : 0);

/** Something said, and what it would come to were it all. */
interface Choice {
  readonly said: Said;
  readonly settled: Settled;
}

/**
 * What the node has signed outweighs what it has not; that it heard a line before says nothing of the line, which counts
 * only where what it heard then is gone with its gateway's disk.
 */
const rankOf = ({ isCountersigned, refused }: Said): number => (refused === 'repeated' ? 2 : isCountersigned ? 0 : 1);

/** Everything that lines of one attempt may differ in, but for the count of one that runs. */
export function textOf(line: UsageLine): string {
  const { first, request, model, digest, caller, price, lease, payer, startMs, firstMs, durationMs } = line;
  const { day, account, key } = caller;
  const parts = [first, request, model, digest, day, account, key, price.id, price.prompt, price.cached];
  const rest = [price.completion, lease, payer, startMs, firstMs, durationMs, line.cachedTokens, line.nodeTokens];
  const count = line.outcome === 'running' ? '' : line.completionTokens;
  return [...parts, ...rest, line.promptTokens, count, line.outcome].join(' ');
}

/** What counts comes first: the node's word, then the lowest amount; nothing is left to the order in which it was told. */
function byWeight(a: Choice, b: Choice): number {
  const order =
    rankOf(a.said) - rankOf(b.said) ||
    a.settled.amountMicro - b.settled.amountMicro ||
    a.settled.completionTokens - b.settled.completionTokens ||
    a.settled.promptTokens - b.settled.promptTokens ||
    compare(a.said.refused ?? '', b.said.refused ?? '');
  return order || (a.said.line === b.said.line ? 0 : compare(textOf(a.said.line), textOf(b.said.line)));
}

function stateOf({ line, isCountersigned, refused }: Said, own: number): SettledState {
  if (line.outcome === 'running') return 'running';
  if (refused !== undefined) return 'refused';
  if (!isCountersigned) return 'alone';
  return (line.nodeTokens ?? own) === own ? 'agreed' : 'lower';
}

/** The gateway's count is at least what it signed while the attempt ran; the lower of both sides' counts is paid. */
function settleSaid({ author, node }: AttemptFacts, said: Said, runningTokens: number): Settled {
  const { line } = said;
  const own = Math.max(line.completionTokens, runningTokens);
  const isPrompt = ends(line.outcome) && !isVoid(said);
  const tokens = {
    promptTokens: isPrompt ? line.promptTokens : 0,
    cachedTokens: isPrompt ? Math.min(line.cachedTokens, line.promptTokens) : 0,
    completionTokens: isVoid(said) ? 0 : Math.min(line.nodeTokens ?? own, own),
  };
  return {
    author,
    node,
    line,
    state: stateOf(said, own),
    ...tokens,
    amountMicro: costMicro(line.price, tokens),
    payer: line.outcome === 'hedged' ? 'gateway' : line.payer,
    isBilled: isPrompt || (tokens.completionTokens > 0 && line.outcome !== 'hedged'),
  };
}

const isRunning = ({ line }: Said): boolean => line.outcome === 'running';

function choose(facts: AttemptFacts): Choice | undefined {
  const { said } = facts;
  const running = said.filter(isRunning);
  const runningTokens = running.reduce(
    (max, { line }) => Math.max(max, line.completionTokens),
    facts.runningTokens ?? 0,
  );
  const lines = running.length === said.length ? running : said.filter((one) => !isRunning(one));
  let best: Choice | undefined;
  for (const one of lines) {
    const choice = { said: one, settled: settleSaid(facts, one, runningTokens) };
    if (best === undefined || byWeight(choice, best) < 0) best = choice;
  }
  return best;
}

/** What one attempt at one node comes to when nothing else is known of its request; undefined when nothing was said. */
export const settleAttempt = (facts: AttemptFacts): Settled | undefined => choose(facts)?.settled;

/** Of a request whose prompt is paid already, and that is billed already. */
export function withoutPrompt(settled: Settled): Settled {
  const tokens = { promptTokens: 0, cachedTokens: 0, completionTokens: settled.completionTokens };
  return { ...settled, ...tokens, amountMicro: costMicro(settled.line.price, tokens), isBilled: false };
}

/**
 * One serial stated for several nodes: the account owes for one of them. To the others the gateway owes what it had
 * them do, where they have signed that they did it.
 */
function elsewhere({ said, settled }: Choice): Settled {
  return { ...withoutPrompt(isOwedFor(said) ? settled : { ...settled, completionTokens: 0 }), payer: 'gateway' };
}

/** What an attempt comes to whose serial was settled before, for whomever; undefined when nothing is owed for it. */
export function settleAgain(facts: AttemptFacts): Settled | undefined {
  const choice = choose(facts);
  return choice !== undefined && isOwedFor(choice.said) ? elsewhere(choice) : undefined;
}

/** The prompt goes to the attempt that ended the request; of several, to the first that its node has signed. */
function settleTogether(attempts: readonly Settled[]): Settled[] {
  const sorted = attempts.toSorted((a, b) => a.line.serial - b.line.serial);
  const ending = sorted.filter(({ line, isBilled }) => isBilled && ends(line.outcome));
  const ended = ending.find(({ state }) => state !== 'alone') ?? ending[0];
  const billed = ended ?? sorted.find(({ isBilled }) => isBilled);
  return sorted.map((settled) => {
    const isBilled = settled === billed;
    if (settled !== ended && ends(settled.line.outcome)) return withoutPrompt(settled);
    return isBilled === settled.isBilled ? settled : { ...settled, isBilled };
  });
}

const getOr = <K, V>(map: Map<K, V>, key: K, make: () => V): V => {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
};

interface Gathered extends AttemptFacts {
  readonly said: Said[];
  runningTokens: number;
}

/** All that was said of each attempt, by attempt and node. */
function gather(all: readonly AttemptFacts[]): ReadonlyMap<string, ReadonlyMap<PeerId, AttemptFacts>> {
  const attempts = new Map<string, Map<PeerId, Gathered>>();
  for (const { author, node, said, runningTokens = 0 } of all) {
    for (const one of said) {
      const nodes = getOr(attempts, `${author} ${one.line.run} ${one.line.serial}`, () => new Map<PeerId, Gathered>());
      const facts = getOr(nodes, node, () => ({ author, node, said: [], runningTokens }));
      facts.said.push(one);
      facts.runningTokens = Math.max(facts.runningTokens, runningTokens);
    }
  }
  return attempts;
}

/**
 * What attempts come to, of any requests, in the order of author, process, serial and node. A fact that is there twice
 * counts once.
 */
export function settleAll(all: readonly AttemptFacts[]): readonly Settled[] {
  const requests = new Map<string, Settled[]>();
  const settled: Settled[] = [];
  for (const nodes of gather(all).values()) {
    const choices = [...nodes.values()].flatMap((facts) => choose(facts) ?? []);
    choices.sort((a, b) => byWeight(a, b) || compare(a.settled.node, b.settled.node));
    for (const [at, choice] of choices.entries()) {
      const { author, line } = choice.settled;
      if (at > 0) settled.push(elsewhere(choice));
      else getOr(requests, `${author} ${line.run} ${line.first}`, () => []).push(choice.settled);
    }
  }
  // One by one: as arguments of one call, the attempts of a hostile request would not fit the stack.
  for (const attempts of requests.values()) for (const one of settleTogether(attempts)) settled.push(one);
  return settled.sort(
    (a, b) =>
      compare(a.author, b.author) ||
      compare(a.line.run, b.line.run) ||
      a.line.serial - b.line.serial ||
      compare(a.node, b.node),
  );
}

/** What the attempts of one request come to, in the order of their serials. */
export const settleRequest = (attempts: readonly AttemptFacts[]): readonly Settled[] => settleAll(attempts);
