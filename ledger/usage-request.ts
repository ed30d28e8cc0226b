/** One request while more may be said of it: all that was said so far, and what it comes to. */

import type { AuthorId, PeerId, ProcessId } from '../protocol/ids.ts';
import type { UsageLine } from './line.ts';
import { settleAll, settleAttempt, textOf, withoutPrompt } from './settle.ts';
import type { AttemptFacts, Said, Settled } from './settlement.ts';
import type { RefusalReason } from './statement.ts';

/** Something said of an attempt; the node's word on it may come later. */
export interface Saying extends Said {
  isCountersigned: boolean;
  refused?: RefusalReason;
  /** Undefined for a serial that was settled, and let go, before. */
  request: OpenRequest | undefined;
}

/** Of one attempt at one node. */
export interface OpenFacts extends AttemptFacts {
  readonly serial: number;
  readonly said: Saying[];
  runningTokens: number;
}

const isRunning = ({ line }: Said): boolean => line.outcome === 'running';

const isEnded = ({ line, isBilled }: Settled): boolean =>
  isBilled && (line.outcome === 'done' || line.outcome === 'cancelled');

/** How a request stands: a line is not countersigned; an attempt has no line, or none ended it; nothing is open. */
export type Openness = 'unsigned' | 'unended' | 'whole';

/** Attempts that belong together: of one request, or (what no honest gateway says) of several that share a serial. */
export class OpenRequest {
  readonly author: AuthorId;
  readonly run: ProcessId;
  facts: OpenFacts[] = [];
  /** What it counts as now. */
  settled: readonly Settled[] = [];
  /** The numbers of its process by which it is found: its serials, and those of first attempts. */
  numbers: number[] = [];
  isClosed = false;
  /** It stands in a queue, and something has happened since it was put there. */
  isQueued = false;
  isTouched = false;

  constructor(author: AuthorId, run: ProcessId) {
    this.author = author;
    this.run = run;
  }

  /** How much was said of it. */
  get sayings(): number {
    return this.facts.reduce((sum, { said }) => sum + said.length, 0);
  }

  factsOf(serial: number, node: PeerId): OpenFacts | undefined {
    return this.facts.find((facts) => facts.serial === serial && facts.node === node);
  }

  say(node: PeerId, line: UsageLine): Saying {
    let facts = this.factsOf(line.serial, node);
    if (facts === undefined) {
      facts = { author: this.author, node, serial: line.serial, said: [], runningTokens: 0 };
      this.facts.push(facts);
    }
    if (line.outcome === 'running') {
      facts.runningTokens = Math.max(facts.runningTokens, line.completionTokens);
      // Told in full again in each epoch.
      const known = facts.said.find((one) => isRunning(one) && textOf(one.line) === textOf(line));
      if (known !== undefined) return known;
    }
    const saying: Saying = { line, isCountersigned: false, request: this };
    facts.said.push(saying);
    return saying;
  }

  /** Takes over all that was said of another one. */
  absorb(other: OpenRequest): void {
    for (const facts of other.facts) {
      for (const one of facts.said) one.request = this;
      const known = this.factsOf(facts.serial, facts.node);
      if (known === undefined) {
        this.facts.push(facts);
      } else {
        known.said.push(...facts.said);
        known.runningTokens = Math.max(known.runningTokens, facts.runningTokens);
      }
    }
    this.settled = [...this.settled, ...other.settled];
    this.numbers = [...new Set([...this.numbers, ...other.numbers])];
    other.isClosed = true;
  }

  /** @param isPast Whether the request of this first attempt was let go before: its prompt is paid. */
  settle(isPast: (first: number) => boolean): readonly Settled[] {
    const [only] = this.facts;
    const alone = this.facts.length === 1 && only !== undefined ? settleAttempt(only) : undefined;
    const settled = alone === undefined ? settleAll(this.facts) : [alone];
    return settled.some(({ line }) => isPast(line.first))
      ? settled.map((one) => (isPast(one.line.first) ? withoutPrompt(one) : one))
      : settled;
  }

  /** @param isPast As for `settle`, which comes before. */
  openness(isPast: (first: number) => boolean): Openness {
    let isWhole = true;
    for (const { said } of this.facts) {
      let hasLine = false;
      for (const { line, isCountersigned } of said) {
        if (line.outcome === 'running') continue;
        if (!isCountersigned) return 'unsigned';
        hasLine = true;
      }
      isWhole &&= hasLine;
    }
    return isWhole && this.settled.some((one) => isEnded(one) || isPast(one.line.first)) ? 'whole' : 'unended';
  }
}
