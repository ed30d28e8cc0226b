/** Usage: at every moment what settlement of all facts comes to, whatever order they came in. */

import fc from 'fast-check';
import { test } from 'vitest';
import { createUsage } from '../../ledger/create-usage.ts';
import type { HeldEntry } from '../../ledger/feeds.ts';
import type { UsageLine } from '../../ledger/line.ts';
import { settleAttempt } from '../../ledger/settle.ts';
import { signClaim } from '../../ledger/statement.ts';
import { type Usage, type UsageDimension, type UsageRow, usageDimensions } from '../../ledger/usage.ts';
import { type UsageBounds, usageBounds } from '../../ledger/usage-state.ts';
import { UsageTable } from '../../ledger/usage-table.ts';
import { fromHex } from '../../protocol/crypto.ts';
import type { AuthorId, PeerId, Tag } from '../../protocol/ids.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { answersOf, countersign, epochs, expectedOf, meshId, sumRows, UsageFeeds } from './usage-feeds.ts';
import { anyhow, feedsOf, honestFeeds, someRequest, someStated } from './usage-histories.ts';
import { authors, factsOf, firstDay, keyOfNode, lineOf, nodes, runs, said, someLine, tagOf } from './usage-stage.ts';
import '../support/seed.ts';

const leases = authors.flatMap((author) => [8, 9].map((number) => [author, tagOf(number)] as const));

function heardBy(held: readonly HeldEntry[], bounds: Partial<UsageBounds> = {}): Usage {
  const usage = createUsage({ clock: new ManualClock() }, { meshId, bounds: { ...usageBounds, ...bounds } });
  for (const one of held) usage.apply(one);
  return usage;
}

test('it is what settlement comes to, whoever lies, in any order', ({ expect }) => {
  const told = fc.array(someStated, { maxLength: 8 }).chain((stated) => anyhow(feedsOf(stated)));
  fc.assert(
    fc.property(told, (held) => {
      expect(answersOf(heardBy(held), leases)).toEqual(expectedOf(held));
    }),
    { numRuns: 300 },
  );
});

test('requests that were let go stay what they came to, while everyone is honest', ({ expect }) => {
  const told = fc
    .array(someRequest, { maxLength: 12 })
    .map(honestFeeds)
    .chain((held) => fc.tuple(fc.constant(held), anyhow(held)));
  fc.assert(
    fc.property(told, fc.integer({ min: 1, max: 3 }), ([held, again], wholeMax) => {
      expect(answersOf(heardBy(held, { wholeMax }), leases)).toEqual(expectedOf(held));
      // A retry that comes after its request was let go is not known from one that was paid, so order counts here.
      const wide = { wholeMax: 1_000 };
      expect(answersOf(heardBy(again, wide), leases)).toEqual(expectedOf(held));
    }),
    { numRuns: 200 },
  );
});

test('a request of which too much is said is let go: billed once, and not looked at each time', ({ expect }) => {
  const feeds = new UsageFeeds();
  const [author, epoch, node] = [authors[0], epochs[0], nodes[0]];
  const counted = () => {
    const { requests, attempts, promptTokens, completionTokens } = heardBy(feeds.held).totals();
    return { requests, attempts, promptTokens, completionTokens };
  };
  for (let less = 0; less < 65; less += 1) {
    feeds.state({ author, epoch, node, lines: [lineOf(1, { promptTokens: 100 - less, durationMs: ms(less) })] });
  }
  const kept = { requests: 1, attempts: 1, promptTokens: 36, completionTokens: 20 };
  expect(counted()).toEqual(kept);
  feeds.state({ author, epoch, node, lines: [lineOf(1, { promptTokens: 4 })] });
  feeds.state({ author, epoch, node, lines: [lineOf(2, { first: 1 })] });
  expect(counted()).toEqual({ ...kept, attempts: 2, completionTokens: 40 });
});

const someBy = fc.subarray([...usageDimensions]);
const someFilter = fc.record({
  sinceDay: fc.constantFrom(undefined, undefined, firstDay, firstDay + 1),
  untilDay: fc.constantFrom(undefined, undefined, firstDay + 1, firstDay + 3),
  model: fc.constantFrom(undefined, 'm', 'another'),
  node: fc.constantFrom(undefined, ...nodes),
  account: fc.constantFrom(undefined, tagOf(1)),
});

/** Rows with nothing in their keys but what was asked for, and what tells a tag. */
function bare([key, counts]: UsageRow, by: readonly UsageDimension[]): UsageRow {
  const isTagged = by.includes('account') || by.includes('key');
  const tagDay = isTagged ? key.tagDay : 0;
  const gateway = by.includes('gateway') || (isTagged && key.tagDay === 0) ? key.gateway : ('' as AuthorId);
  const { day, account, key: tag, model, node } = key;
  const kept = { day, account, key: tag, model, node };
  const none = { day: 0, account: '' as Tag, key: '' as Tag, model: '', node: '' as PeerId };
  const asked = Object.entries(kept).filter(([name]) => by.includes(name as UsageDimension));
  return [{ ...none, ...Object.fromEntries(asked), tagDay, gateway }, counts];
}

test('sums are over the rows that a filter leaves', ({ expect }) => {
  const lines = fc.array(fc.tuple(someLine, fc.constantFrom(...authors), fc.constantFrom(...nodes), fc.nat(1)), {
    minLength: 1,
    maxLength: 40,
  });
  fc.assert(
    fc.property(lines, someBy, someFilter, (all, by, { account, sinceDay, untilDay, model, node }) => {
      const table = new UsageTable();
      for (const [at, [line, author, at0, day]] of all.entries()) {
        const caller = { ...line.caller, day: day * firstDay };
        const settled = settleAttempt(
          factsOf([said({ ...line, caller, model: at % 2 === 0 ? 'm' : 'n' })], at0, author),
        );
        // What was summed up before must not be told again.
        if (at === all.length - 1) table.rollUp({}, by);
        if (settled !== undefined) table.add(settled, 1);
      }
      const filter = {
        ...(sinceDay === undefined ? {} : { sinceDay }),
        ...(untilDay === undefined ? {} : { untilDay }),
        ...(model === undefined ? {} : { model }),
        ...(node === undefined ? {} : { node }),
        ...(account === undefined ? {} : { caller: (caller: { account: Tag }) => caller.account === account }),
      };
      const whole = table.rows({});
      const left = whole.filter(
        ([key]) =>
          key.day >= (sinceDay ?? 0) &&
          key.day < (untilDay ?? Number.POSITIVE_INFINITY) &&
          (model ?? key.model) === key.model &&
          (node ?? key.node) === key.node &&
          (account ?? key.account) === key.account,
      );
      expect(table.rows(filter)).toEqual(left);
      expect(table.rollUp(filter, by)).toEqual(sumRows(left.map((row) => bare(row, by))));
    }),
    { numRuns: 300 },
  );
});

test('a table grows, and gateways share no rows', ({ expect }) => {
  const table = new UsageTable(200);
  const early: number[] = [];
  for (let serial = 1; serial <= 300; serial += 1) {
    if (serial % 100 === 0) early.push(table.rollUp({}, [])[0]?.[1].attempts ?? 0);
    for (const author of authors) {
      const caller = { day: firstDay, account: tagOf(serial), key: tagOf(serial) };
      const settled = settleAttempt(factsOf([said(lineOf(serial, { caller }))], nodes[0], author));
      if (settled !== undefined) table.add(settled, 1);
    }
  }
  const byGateway = table.rollUp({}, ['gateway']).map(([{ gateway }, { attempts }]) => [gateway, attempts]);
  const rest = table.rows({ untilDay: 1 }).map(([{ gateway, account }, { attempts }]) => [gateway, account, attempts]);
  expect([early, table.rowCount, byGateway, rest]).toEqual([
    [198, 398, 598],
    402,
    authors.map((author) => [author, 300]),
    authors.map((author) => [author, '', 100]),
  ]);
});

test('what nobody has signed, or somebody else, changes nothing', ({ expect }) => {
  const [author, other] = authors;
  const feeds = new UsageFeeds();
  const stated = feeds.state({ author, epoch: epochs[0], node: nodes[0], lines: [lineOf(1)], timeMs: 1_000 });
  const word = countersign(stated, [{ index: 0, reason: 'unknown' }]);
  const forged = { ...word, signature: new Uint8Array(64) };
  const ofOther = countersign({ ...stated, entry: { ...stated.entry, node: nodes[1] } as typeof stated.entry });
  feeds.append(author, epochs[0], forged);
  feeds.append(author, epochs[0], ofOther);
  // Signed for another gateway's statement.
  feeds.append(other, epochs[0], word);
  feeds.append(author, epochs[0], { ...word, epoch: epochs[1] });
  const clock = new ManualClock();
  const usage = createUsage({ clock }, { meshId });
  for (const one of feeds.held) usage.apply(one);
  expect(usage.totals()).toMatchObject({ attempts: 1, refused: 0, completionTokens: 20, statements: 1 });
  usage.apply({ ...stated, entry: word, place: { ...stated.place, number: 9 } });
  expect(usage.totals()).toMatchObject({ attempts: 1, refused: 1, completionTokens: 0, statements: 1 });
});

test('a statement without its node’s word is unattested after a minute', async ({ expect }) => {
  const [author] = authors;
  const feeds = new UsageFeeds();
  const clock = new ManualClock();
  const timeMs = clock.wallMs();
  const stated = feeds.state({ author, epoch: epochs[0], node: nodes[0], lines: [lineOf(1)], timeMs });
  feeds.state({ author, epoch: epochs[0], node: nodes[1], lines: [lineOf(2)], timeMs, refused: [] });
  const usage = createUsage({ clock }, { meshId });
  for (const one of feeds.held) usage.apply(one);
  const seen = [usage.totals().unattested];
  await clock.advance(60_001);
  seen.push(usage.totals().unattested);
  usage.apply({ ...stated, entry: countersign(stated) });
  seen.push(usage.totals().unattested);
  expect([seen, usage.newestMs()]).toEqual([[0, 1, 0], lineOf(2).startMs + 50]);
});

test('a claim counts once, whoever appends it, if its node signed it', ({ expect }) => {
  const [author, other] = authors;
  const { request, startMs } = lineOf(1);
  const attempt = { run: runs[0], serial: 1, request, startMs, promptTokens: 1, completionTokens: 1 };
  const gateway = peerIdOf(fromHex(author));
  const about = { kind: 'claim', node: nodes[0], gateway, attempts: [attempt], timeMs: unixMs(5) } as const;
  const claim = signClaim(about, meshId, keyOfNode(nodes[0]));
  const feeds = new UsageFeeds();
  feeds.append(author, epochs[0], claim);
  feeds.append(other, epochs[0], claim);
  feeds.append(other, epochs[0], { ...claim, signature: new Uint8Array(64).fill(1) });
  expect(heardBy(feeds.held).totals()).toMatchObject({ claims: 1, attempts: 0, accountMicro: 0 });
});

test('a serial that was let go and comes again is owed by the gateway, if its node signs for it', ({ expect }) => {
  const [author] = authors;
  const [epoch] = epochs;
  const feeds = new UsageFeeds();
  const [nora, noah] = nodes;
  feeds.state({ author, epoch, node: nora, lines: [lineOf(1)], refused: [] });
  feeds.state({ author, epoch, node: nora, lines: [lineOf(2)], refused: [] });
  const before = heardBy(feeds.held, { wholeMax: 1 }).totals();
  feeds.state({ author, epoch, node: noah, lines: [lineOf(1)] });
  feeds.state({ author, epoch, node: noah, lines: [lineOf(1)], refused: [{ index: 0, reason: 'repeated' }] });
  const unsigned = heardBy(feeds.held, { wholeMax: 1 }).totals();
  feeds.state({ author, epoch, node: noah, lines: [lineOf(1)], refused: [] });
  const after = heardBy(feeds.held, { wholeMax: 1 }).totals();
  expect([unsigned.gatewayMicro, unsigned.accountMicro, unsigned.attempts]).toEqual([0, before.accountMicro, 2]);
  expect([after.accountMicro, after.gatewayMicro, after.promptTokens, after.attempts]).toEqual([
    before.accountMicro,
    140,
    before.promptTokens,
    3,
  ]);
});

test('whoever says more than is kept only loses what it says', ({ expect }) => {
  const [author] = authors;
  const [epoch] = epochs;
  const [nora] = nodes;
  const feeds = new UsageFeeds();
  // Every second serial, of more processes than there may be, to more nodes than a gateway has tabs.
  for (let at = 0; at < 40; at += 1) {
    const run = at.toString(16).padStart(32, '0') as UsageLine['run'];
    feeds.state({ author, epoch, node: nora, lines: [lineOf(2 * at + 1), { ...lineOf(1), run }], refused: [] });
    feeds.state({ author, epoch, node: nora, run, progress: [{ serial: 9, completionTokens: 9 }] });
  }
  const bounds: UsageBounds = {
    wholeMax: 2,
    unendedMax: 2,
    sayingsMax: 64,
    unsignedLinesMax: 2,
    earlyMax: 2,
    runsMax: 4,
    gapsMax: 8,
    tabsMax: 1,
  };
  const { attempts, refused } = heardBy(feeds.held, bounds).totals();
  expect({ attempts, refused }).toEqual({ attempts: 80, refused: 37 });
});

test('statements that wait for ever are let go as they stand', ({ expect }) => {
  const [author] = authors;
  const [epoch] = epochs;
  const feeds = new UsageFeeds();
  const stated = [1, 2, 3].map((serial) => feeds.state({ author, epoch, node: nodes[0], lines: [lineOf(serial)] }));
  const usage = heardBy(feeds.held, { unsignedLinesMax: 2 });
  const before = usage.totals();
  for (const one of stated) usage.apply({ ...one, entry: countersign(one, [{ index: 0, reason: 'unknown' }]) });
  const { attempts, refused, unattested } = usage.totals();
  expect([before.attempts, before.refused, attempts, refused, unattested]).toEqual([3, 0, 3, 2, 1]);
});

test('a request that was let go is not billed again by another attempt', ({ expect }) => {
  const [author] = authors;
  const [epoch] = epochs;
  const feeds = new UsageFeeds();
  for (const serial of [1, 2]) {
    feeds.state({ author, epoch, node: nodes[0], lines: [lineOf(serial)], refused: [] });
  }
  feeds.state({ author, epoch, node: nodes[1], lines: [lineOf(3, { first: 1, outcome: 'cancelled' })], refused: [] });
  const { requests, attempts, promptTokens, completionTokens } = heardBy(feeds.held, { wholeMax: 1 }).totals();
  expect({ requests, attempts, promptTokens, completionTokens }).toEqual({
    requests: 2,
    attempts: 3,
    promptTokens: 20,
    completionTokens: 60,
  });
});

test('a few of many callers come in the order in which they come among all', ({ expect }) => {
  const table = new UsageTable();
  const counts = { requests: 1, attempts: 1, promptTokens: 1, cachedTokens: 0, completionTokens: 1 };
  const whole = { ...counts, accountMicro: 1, gatewayMicro: 0, refused: 0, lower: 0 };
  const tagOf = (at: number): Tag => ((at * 7_919) % 10_007).toString(16).padStart(16, '0') as Tag;
  const add = (at: number): void => {
    const tags = { day: 20_000 + (at % 3), tagDay: 20_000 + (at % 3), account: tagOf(at % 50), key: tagOf(at) };
    table.addRow(
      { ...tags, model: `m${at % 7}`, node: `n${at % 11}` as PeerId, gateway: authors[at % 2] as AuthorId },
      whole,
    );
  };
  for (let at = 0; at < 1_000; at += 1) add(at);
  const few = new Set([3, 14, 15, 92, 653].map(tagOf));
  const filter = { caller: ({ key }: { readonly key: Tag }) => few.has(key) };
  const by = ['account', 'key', 'model', 'node', 'gateway'] as const;
  const first = table.rollUp(filter, by);
  // Sorted among all this time, and among few again once there are others.
  const all = table.rollUp({}, by).filter(([key]) => filter.caller(key));
  add(1_000);
  expect([all, table.rollUp(filter, by)]).toEqual([first, first]);
  expect(first).toHaveLength(5);
});
