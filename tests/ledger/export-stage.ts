/** Feeds by chance, with everything that gateways and nodes may say of attempts, and what all of it comes to. */

import fc from 'fast-check';
import type { Entry } from '../../ledger/entry.ts';
import { parseEntry } from '../../ledger/entry.ts';
import type { UsageLine } from '../../ledger/line.ts';
import { settleAll } from '../../ledger/settle.ts';
import type { AttemptFacts, Settled } from '../../ledger/settlement.ts';
import { refusalReasons, type StatementEntry, statementHash } from '../../ledger/statement.ts';
import { toHex } from '../../protocol/crypto.ts';
import type { AuthorId, PeerId } from '../../protocol/ids.ts';
import { FeedMaker, line, node, price } from './verify-stage.ts';

const nodes = [node('alice'), node('bob')];

/** One attempt as a gateway may tell of it. */
const attempts = fc.record({
  run: fc.constantFrom('run', 'run 2'),
  serial: fc.integer({ min: 1, max: 14 }),
  back: fc.integer({ min: 0, max: 2 }),
  outcome: fc.constantFrom('done', 'done', 'cancelled', 'cut', 'lost', 'failed', 'hedged'),
  completionTokens: fc.integer({ min: 0, max: 40 }),
  nodeTokens: fc.option(fc.integer({ min: 0, max: 40 }), { nil: undefined }),
  payer: fc.constantFrom('account', 'gateway'),
});

/** Statements, one after the other; what a node says of one comes with a later one. */
export const scenarios = fc.array(
  fc.record({
    node: fc.nat(1),
    lines: fc.array(attempts, { maxLength: 5 }),
    running: fc.array(attempts, { maxLength: 3 }),
    progress: fc.array(fc.record({ serial: fc.integer({ min: 1, max: 14 }), completionTokens: fc.nat(60) }), {
      maxLength: 3,
    }),
    word: fc.option(
      fc.array(fc.record({ index: fc.nat(4), reason: fc.constantFrom(...refusalReasons) }), { maxLength: 2 }),
    ),
    endsBlock: fc.boolean(),
    endsEpoch: fc.boolean(),
  }),
  { minLength: 1, maxLength: 8 },
);

type Scenario = typeof scenarios extends fc.Arbitrary<infer T> ? T : never;
type Attempt = Scenario[number]['lines'][number];

function lineOf({ back, run, serial, nodeTokens, ...rest }: Attempt, change: Partial<UsageLine> = {}): UsageLine {
  const { nodeTokens: _, ...bare } = line(run, serial, {
    ...rest,
    price,
    first: Math.max(1, serial - back),
    ...change,
  } as Partial<UsageLine>);
  return nodeTokens === undefined ? bare : { ...bare, nodeTokens };
}

const unique = <T>(all: readonly T[], nameOf: (one: T) => unknown): T[] => [
  ...new Map(all.map((one) => [nameOf(one), one])).values(),
];

/** The epochs of one gateway that says all this. */
export function feedsOf(scenario: Scenario, name = 'gateway'): FeedMaker[] {
  let feed = new FeedMaker(name, 'gateway');
  const feeds = [feed];
  let waiting: Entry[] = [];
  let words: Entry[] = [];
  for (const { node: at, lines, running, progress, word, endsBlock, endsEpoch } of scenario) {
    const by = nodes[at] ?? node('alice');
    const process = feeds.length === 1 ? 'run' : 'run 2';
    const ended = unique(lines, ({ run, serial }) => `${run} ${serial}`);
    // A statement tells of each attempt once.
    const isEnded = (serial: number): boolean => ended.some((one) => one.run === process && one.serial === serial);
    const begun = unique(running, ({ serial }) => serial).filter(({ serial }) => !isEnded(serial));
    const further = unique(progress, ({ serial }) => serial)
      .filter(({ serial }) => !isEnded(serial) && !begun.some((one) => one.serial === serial))
      .toSorted((one, other) => one.serial - other.serial);
    const lineOfRunning = (one: Attempt): UsageLine =>
      lineOf({ ...one, run: process, nodeTokens: undefined }, { outcome: 'running' });
    const entry = feed.statement(
      by.peer,
      ended.map((one) => lineOf(one)),
      { run: line(process, 1).run, running: begun.map(lineOfRunning), progress: further },
    );
    waiting.push(...words, entry);
    words = [];
    if (word !== null) {
      const refused = unique(word, ({ index }) => index)
        .filter(({ index }) => index < ended.length)
        .toSorted((a, b) => a.index - b.index);
      words.push(feed.word(by.key, entry, refused));
    }
    if (!endsBlock && !endsEpoch) continue;
    const last = feed.block(waiting);
    waiting = [];
    if (!endsEpoch) continue;
    feed = new FeedMaker(name, 'gateway', `${name} ${feeds.length}`, last);
    feeds.push(feed);
  }
  feed.block([...waiting, ...words]);
  return feeds;
}

/** All that was said, settled at once. */
export function settledOf(feeds: readonly FeedMaker[]): readonly Settled[] {
  const told: { author: AuthorId; hash: string; statement: StatementEntry }[] = [];
  const words = new Map<string, Map<number, (typeof refusalReasons)[number]>>();
  for (const { author, blocks } of feeds) {
    for (const bytes of blocks.flatMap(({ entries }) => entries)) {
      const entry = parseEntry(bytes);
      if (entry.kind === 'statement') told.push({ author, hash: toHex(statementHash(bytes)), statement: entry });
      if (entry.kind !== 'countersign') continue;
      words.set(author + toHex(entry.statement), new Map(entry.refused.map(({ index, reason }) => [index, reason])));
    }
  }
  const facts: AttemptFacts[] = [];
  const running = new Map<string, UsageLine>();
  const nameOf = (author: AuthorId, peer: PeerId, run: string, serial: number): string =>
    `${author} ${peer} ${run}.${serial}`;
  for (const { author, hash, statement } of told) {
    const word = words.get(author + hash);
    const { node: peer, lines, run, progress } = statement;
    const say = (one: UsageLine, refused?: (typeof refusalReasons)[number]): void => {
      const said = { line: one, isCountersigned: word !== undefined, ...(refused === undefined ? {} : { refused }) };
      facts.push({ author, node: peer, said: [said] });
    };
    for (const [at, one] of lines.entries()) say(one, word?.get(at));
    for (const one of statement.running) {
      running.set(nameOf(author, peer, one.run, one.serial), one);
      say(one);
    }
    for (const { serial, completionTokens } of progress) {
      const one = running.get(nameOf(author, peer, run, serial));
      if (one !== undefined) say({ ...one, completionTokens });
    }
  }
  return settleAll(facts);
}
