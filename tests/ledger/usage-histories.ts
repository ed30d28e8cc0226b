/** Histories of usage, drawn: whatever may be signed, and what honest peers sign. */

import fc from 'fast-check';
import type { HeldEntry } from '../../ledger/feeds.ts';
import { attemptName, type UsageLine } from '../../ledger/line.ts';
import { refusalReasons } from '../../ledger/statement.ts';
import type { EpochId, PeerId } from '../../protocol/ids.ts';
import { unixMs } from '../../protocol/units.ts';
import { epochs, type Stated, UsageFeeds } from './usage-feeds.ts';
import { authors, dayMs, firstDay, lineOf, nodes, prices, runs, someLine, tagOf } from './usage-stage.ts';

const verdict = fc.uniqueArray(fc.record({ index: fc.nat(3), reason: fc.constantFrom(...refusalReasons) }), {
  selector: ({ index }) => index,
  maxLength: 3,
});
const progress = fc.record({ serial: fc.integer({ min: 1, max: 6 }), completionTokens: fc.nat(40) });

/** Whatever a gateway and its nodes may sign; a statement tells of each attempt once. */
export const someStated: fc.Arbitrary<Stated> = fc
  .record({
    author: fc.constantFrom(...authors),
    epoch: fc.constantFrom(...epochs),
    node: fc.constantFrom(...nodes),
    run: fc.constantFrom(...runs),
    lines: fc.uniqueArray(someLine, { maxLength: 5, selector: attemptName }),
    progress: fc.uniqueArray(progress, { maxLength: 2, selector: ({ serial }) => serial }),
    refused: fc.option(verdict, { nil: undefined }),
  })
  .map(({ lines: all, run, progress, refused, ...rest }) => {
    const lines = all.filter(({ outcome }) => outcome !== 'running');
    const running = all.filter((line) => line.outcome === 'running' && line.run === run);
    const told = new Set([...lines, ...running].map(attemptName));
    return {
      ...rest,
      run,
      lines,
      running: running.map(({ nodeTokens: _, ...line }) => line),
      progress: progress
        .filter(({ serial }) => !told.has(attemptName({ run, serial })))
        .sort((a, b) => a.serial - b.serial),
      refused: refused?.filter(({ index }) => index < lines.length).sort((a, b) => a.index - b.index),
    };
  });

export function feedsOf(stated: readonly Stated[]): readonly HeldEntry[] {
  const feeds = new UsageFeeds();
  for (const one of stated) feeds.state(one);
  return feeds.held;
}

/** In any order, some twice: holes are refilled, and what stands after a fork is told again. */
export const anyhow = (held: readonly HeldEntry[]) =>
  fc
    .shuffledSubarray([...held, ...held.map((one) => ({ ...one, place: { ...one.place, isAfterFork: true } }))], {
      minLength: held.length,
    })
    .map((some) => [...some, ...held]);

/** One attempt as an honest gateway and node see it end. */
interface Attempt {
  readonly node: PeerId;
  readonly outcome: UsageLine['outcome'];
  readonly sent: number;
  /** What the gateway has not received of it, and what the node told beyond it. */
  readonly short: number;
  readonly told: number;
  readonly epoch: EpochId;
  /** It ran for so long that it was stated before it ended. */
  readonly isLong: boolean;
  /** What the node says of the line; a line may be stated again by a later process. */
  readonly word: 'none' | 'signed' | 'refused';
  readonly isStatedAgain: boolean;
}

const attempt = (outcomes: readonly UsageLine['outcome'][]): fc.Arbitrary<Attempt> =>
  fc.record({
    node: fc.constantFrom(...nodes),
    outcome: fc.constantFrom(...outcomes),
    sent: fc.nat(30),
    short: fc.nat(2),
    told: fc.nat(2),
    epoch: fc.constantFrom(...epochs),
    isLong: fc.boolean(),
    word: fc.constantFrom('none', 'signed', 'signed', 'refused'),
    isStatedAgain: fc.integer({ min: 0, max: 9 }).map((drawn) => drawn === 0),
  });
/** Those that failed, and one that ended it, if any did. */
export const someRequest = fc.tuple(
  fc.array(attempt(['lost', 'failed', 'hedged', 'cut']), { maxLength: 2 }),
  fc.option(attempt(['done', 'done', 'cancelled']), { freq: 6 }),
);

function honestLine(serial: number, first: number, { outcome, sent, short, told }: Attempt): UsageLine {
  const { nodeTokens: _, ...line } = lineOf(serial, {
    first,
    outcome,
    price: prices[serial % prices.length] as UsageLine['price'],
    completionTokens: Math.max(0, sent - short),
    lease: tagOf(8 + (serial % 2)),
    startMs: unixMs((firstDay + (serial % 3)) * dayMs),
  });
  return outcome === 'done' || outcome === 'cancelled' ? { ...line, nodeTokens: sent + told } : line;
}

/** All that honest peers sign of some requests, in the order in which they happen. */
export function honestFeeds(
  requests: readonly (readonly [readonly Attempt[], Attempt | null])[],
): readonly HeldEntry[] {
  const feeds = new UsageFeeds();
  const [author] = authors;
  let serial = 0;
  const last: Stated[] = [];
  for (const [failed, end] of requests) {
    const first = serial + 1;
    for (const one of end === null ? failed : [...failed, end]) {
      serial += 1;
      const line = honestLine(serial, first, one);
      const { node, epoch, isLong, word, isStatedAgain } = one;
      const { nodeTokens: _, ...running } = { ...line, outcome: 'running' as const };
      if (isLong) {
        const early = Math.floor(line.completionTokens / 2);
        feeds.state({ author, epoch, node, running: [{ ...running, completionTokens: 0 }], refused: [] });
        feeds.state({ author, epoch, node, progress: [{ serial, completionTokens: early }] });
      }
      const refused = word === 'none' ? undefined : word === 'signed' ? [] : [{ index: 0, reason: 'count' as const }];
      feeds.state({ author, epoch, node, lines: [line], refused });
      const repeated = { index: 0, reason: 'repeated' as const };
      if (isStatedAgain) last.push({ author, epoch: epochs[1], node, lines: [line], refused: [repeated] });
    }
  }
  for (const one of last) feeds.state(one);
  return feeds.held;
}
