/** Settlement: everyone comes to the same amounts, and nobody gains by what it alone says, or says again. */

import fc from 'fast-check';
import { test } from 'vitest';
import type { UsageLine } from '../../ledger/line.ts';
import { costMicro, freePrice } from '../../ledger/price.ts';
import { settleAll, settleAttempt, settleRequest } from '../../ledger/settle.ts';
import type { AttemptFacts, Said, Settled } from '../../ledger/settlement.ts';
import type { RefusalReason } from '../../ledger/statement.ts';
import type { PeerId } from '../../protocol/ids.ts';
import { factsOf, lineOf, nodes, said, someFact, someFacts, someLine } from './usage-stage.ts';
import '../support/seed.ts';

const [nora, noah] = nodes;

/** What is paid, without the line. */
const paid = (settled: Settled | undefined) => {
  if (settled === undefined) return undefined;
  const { state, promptTokens, cachedTokens, completionTokens, payer, isBilled } = settled;
  return [state, promptTokens, cachedTokens, completionTokens, payer, isBilled];
};
const lineOnly = ({ nodeTokens: _, ...line }: UsageLine): UsageLine => line;

test('both counts agree, or the lower one is paid', ({ expect }) => {
  const settle = (changes: Partial<UsageLine>, of: Partial<Said> = {}) =>
    paid(settleAttempt(factsOf([said(lineOf(1, changes), of)])));
  expect({
    agreed: settle({}),
    inflatedByNode: settle({ nodeTokens: 25 }),
    inflatedByGateway: settle({ completionTokens: 25 }),
    alone: settle({ nodeTokens: 15 }, { isCountersigned: false }),
    unknown: settle({}, { refused: 'unknown' }),
    repeated: settle({}, { refused: 'repeated' }),
    count: settle({ nodeTokens: 15 }, { refused: 'count' }),
    price: settle({}, { refused: 'price' }),
    lost: paid(settleAttempt(factsOf([said(lineOnly(lineOf(1, { outcome: 'lost' })))]))),
    hedged: settle({ outcome: 'hedged' }),
    cancelled: settle({ outcome: 'cancelled' }),
    failed: settle({ outcome: 'failed', completionTokens: 0, nodeTokens: 0 }),
    grace: settle({ payer: 'gateway' }),
  }).toEqual({
    agreed: ['agreed', 10, 4, 20, 'account', true],
    inflatedByNode: ['lower', 10, 4, 20, 'account', true],
    inflatedByGateway: ['lower', 10, 4, 20, 'account', true],
    alone: ['alone', 10, 4, 15, 'account', true],
    unknown: ['refused', 0, 0, 0, 'account', false],
    repeated: ['refused', 10, 4, 20, 'account', true],
    count: ['refused', 10, 4, 15, 'account', true],
    price: ['refused', 10, 4, 20, 'account', true],
    lost: ['agreed', 0, 0, 20, 'account', true],
    hedged: ['agreed', 0, 0, 20, 'gateway', false],
    cancelled: ['agreed', 10, 4, 20, 'account', true],
    failed: ['agreed', 0, 0, 0, 'account', false],
    grace: ['agreed', 10, 4, 20, 'gateway', true],
  });
});

test('without a line the highest running count is paid, and no prompt', ({ expect }) => {
  const running = (completionTokens: number) => said(lineOnly(lineOf(1, { outcome: 'running', completionTokens })));
  expect(paid(settleAttempt(factsOf([running(3), running(9), running(5)])))).toEqual([
    'running',
    0,
    0,
    9,
    'account',
    true,
  ]);
});

test('counts of statements that tell of it as running once more are what it was at least', ({ expect }) => {
  const settle = (changes: Partial<UsageLine>, runningTokens: number) =>
    settleAttempt({ ...factsOf([said(lineOnly(lineOf(1, changes)))]), runningTokens })?.completionTokens;
  expect([settle({ completionTokens: 5 }, 9), settle({ completionTokens: 5, outcome: 'running' }, 9)]).toEqual([9, 9]);
});

test('no prompt has more tokens from a cache than it has', ({ expect }) => {
  expect(paid(settleAttempt(factsOf([said(lineOf(1, { cachedTokens: 50 }))])))).toEqual(
    paid(settleAttempt(factsOf([said(lineOf(1, { cachedTokens: 10 }))]))),
  );
});

test('a line below what was signed while the attempt ran does not lower what is paid', ({ expect }) => {
  const running = said(lineOnly(lineOf(1, { outcome: 'running', completionTokens: 18 })));
  const settle = (changes: Partial<UsageLine>) =>
    settleAttempt(factsOf([said(lineOf(1, changes), { refused: 'count' }), running]))?.completionTokens;
  expect([settle({ completionTokens: 2 }), settle({ completionTokens: 2, nodeTokens: 12 })]).toEqual([18, 12]);
});

test('a splice, a retry and a hedge bill one prompt, and each node for what it delivered', ({ expect }) => {
  const facts = [
    factsOf([said(lineOnly(lineOf(1, { outcome: 'lost', completionTokens: 7 })))], nora),
    factsOf([said(lineOf(2, { first: 1, outcome: 'failed', completionTokens: 0, nodeTokens: 0 }))], noah),
    factsOf([said(lineOf(3, { first: 1, outcome: 'hedged', completionTokens: 2, nodeTokens: 2 }))], nora),
    factsOf([said(lineOf(4, { first: 1, completionTokens: 13, nodeTokens: 13 }))], noah),
  ];
  expect(settleRequest(facts).map(paid)).toEqual([
    ['agreed', 0, 0, 7, 'account', false],
    ['agreed', 0, 0, 0, 'account', false],
    ['agreed', 0, 0, 2, 'gateway', false],
    ['agreed', 10, 4, 13, 'account', true],
  ]);
});

test('when all attempts fail, what was delivered is billed once, without a prompt', ({ expect }) => {
  const lost = (serial: number, completionTokens: number) =>
    factsOf([said(lineOnly(lineOf(serial, { first: 1, outcome: 'lost', completionTokens })))]);
  expect(settleRequest([lost(1, 0), lost(2, 5), lost(3, 6)]).map(paid)).toEqual([
    ['agreed', 0, 0, 0, 'account', false],
    ['agreed', 0, 0, 5, 'account', true],
    ['agreed', 0, 0, 6, 'account', false],
  ]);
});

test('of two attempts that say they ended a request the first is paid for the prompt', ({ expect }) => {
  const ended = (serial: number) => factsOf([said(lineOf(serial, { first: 1, outcome: 'cancelled' }))]);
  expect(settleRequest([ended(3), ended(2)]).map(paid)).toEqual([
    ['agreed', 10, 4, 20, 'account', true],
    ['agreed', 0, 0, 20, 'account', false],
  ]);
});

test('of two that say so, the one that a node has signed is paid for the prompt', ({ expect }) => {
  const ended = (serial: number, isCountersigned: boolean) =>
    factsOf([said(lineOf(serial, { first: 1 }), { isCountersigned })]);
  expect(settleRequest([ended(1, false), ended(2, true)]).map(paid)).toEqual([
    ['alone', 0, 0, 20, 'account', false],
    ['agreed', 10, 4, 20, 'account', true],
  ]);
});

test('a node that is told of a serial stated elsewhere is owed by the gateway, once it has signed', ({ expect }) => {
  const settle = (of: Partial<Said>) =>
    settleAll([
      factsOf([said(lineOf(1, { completionTokens: 5, nodeTokens: 5 }))], nora),
      factsOf([said(lineOf(1), of)], noah),
    ])
      .filter(({ node }) => node === noah)
      .map(paid);
  expect([settle({}), settle({ isCountersigned: false }), settle({ refused: 'unknown' })]).toEqual([
    [['agreed', 0, 0, 20, 'gateway', false]],
    [['alone', 0, 0, 0, 'gateway', false]],
    // It is the word of a node all the same, so this is the attempt: the other node is owed by the gateway.
    [['refused', 0, 0, 0, 'account', false]],
  ]);
});

const shuffled = someFacts.chain((facts) =>
  fc.tuple(
    fc.constant(facts),
    fc.shuffledSubarray([...facts, ...facts], { minLength: 2 * facts.length, maxLength: 2 * facts.length }),
  ),
);

test('of one line that a node has both signed and refused, the same counts in any order', ({ expect }) => {
  const lines = [
    lineOf(1),
    lineOf(1, { price: freePrice, completionTokens: 0, nodeTokens: 0 }),
    lineOf(1, { outcome: 'failed', completionTokens: 0, nodeTokens: 0 }),
  ];
  for (const line of lines) {
    const all = [undefined, 'count', 'unknown', 'outcome'].map((refused) =>
      said(line, refused === undefined ? {} : { refused: refused as RefusalReason }),
    );
    const settled = settleAll([factsOf(all)]);
    expect(settleAll([factsOf(all.toReversed())])).toEqual(settled);
    for (const [at, one] of all.entries()) {
      for (const other of all.slice(0, at)) {
        expect(settleAll([factsOf([one, other])])).toEqual(settleAll([factsOf([other, one])]));
      }
    }
  }
});

test('neither order, nor repetition, nor how facts are bundled changes anything', ({ expect }) => {
  fc.assert(
    fc.property(shuffled, ([facts, again]) => {
      const bundled = new Map<string, AttemptFacts>();
      for (const fact of again) {
        const [{ line }] = fact.said as [Said];
        const name = [fact.author, fact.node, line.run, line.serial].join(' ');
        const known = bundled.get(name);
        const runningTokens = Math.max(known?.runningTokens ?? 0, fact.runningTokens ?? 0);
        bundled.set(name, { ...fact, said: [...(known?.said ?? []), ...fact.said], runningTokens });
      }
      const expected = settleAll(facts);
      expect(settleAll(again)).toEqual(expected);
      expect(settleAll([...bundled.values()])).toEqual(expected);
    }),
  );
});

test('a request is settled by itself as among all', ({ expect }) => {
  fc.assert(
    fc.property(someFacts, (facts) => {
      // Serials that are said to belong to several requests bind these together, so each here has one.
      const alone = facts.map(({ said, ...fact }) => ({
        ...fact,
        said: said.map((one) => ({ ...one, line: { ...one.line, first: Math.ceil(one.line.serial / 2) } })),
      }));
      const requestOf = ({ author, said: [one] }: AttemptFacts) => `${author} ${one?.line.run} ${one?.line.first}`;
      const requests = [...new Set(alone.map(requestOf))];
      const each = requests.flatMap((name) => settleRequest(alone.filter((fact) => requestOf(fact) === name)));
      expect(each.toSorted(byName)).toEqual(settleAll(alone).toSorted(byName));
    }),
  );
});

const nameOf = ({ author, node, line }: Settled): string => `${author} ${line.run} ${line.serial} ${node}`;
const byName = (a: Settled, b: Settled): number => (nameOf(a) < nameOf(b) ? -1 : 1);
const sum = (all: readonly Settled[], which: (settled: Settled) => boolean): bigint =>
  all.reduce((total, settled) => total + (which(settled) ? BigInt(settled.amountMicro) : 0n), 0n);

test('money is conserved: what nodes get is what accounts and gateways owe', ({ expect }) => {
  fc.assert(
    fc.property(someFacts, (facts) => {
      const settled = settleAll(facts);
      const credits = nodes.reduce((total, node) => total + sum(settled, (one) => one.node === node), 0n);
      const debits =
        sum(settled, ({ payer }) => payer === 'account') + sum(settled, ({ payer }) => payer === 'gateway');
      expect(credits).toBe(debits);
      for (const one of settled) {
        expect(Number.isSafeInteger(one.amountMicro) && one.amountMicro >= 0).toBe(true);
        expect(one.amountMicro).toBe(costMicro(one.line.price, one));
      }
    }),
  );
});

const most = (counts: readonly string[]): number =>
  Math.max(0, ...counts.map((name) => counts.filter((other) => other === name).length));

test('a prompt is billed once a request, a serial once to an account, a hedge never', ({ expect }) => {
  fc.assert(
    fc.property(someFacts, (facts) => {
      const settled = settleAll(facts);
      const requestOf = ({ author, line }: Settled) => `${author} ${line.run} ${line.first}`;
      const prompts = settled.filter(({ promptTokens }) => promptTokens > 0).map(requestOf);
      const requests = settled.filter(({ isBilled }) => isBilled).map(requestOf);
      const onAccounts = settled.filter(({ payer, amountMicro }) => payer === 'account' && amountMicro > 0);
      const serials = onAccounts.map(({ author, line }) => `${author} ${line.run} ${line.serial}`);
      expect([most(prompts), most(requests), most(serials)].every((count) => count <= 1)).toBe(true);
      expect(onAccounts.filter(({ line }) => line.outcome === 'hedged')).toEqual([]);
    }),
  );
});

/** What the gateway and the node have said of an attempt's tokens. */
function countsOf(facts: readonly AttemptFacts[], { author, node, line }: Settled) {
  const { run, serial } = line;
  const isAbout = (one: UsageLine): boolean => one.run === run && one.serial === serial;
  const about = facts.filter((fact) => fact.author === author && fact.node === node);
  const running = about
    .filter(({ said }) => said.some((one) => isAbout(one.line)))
    .flatMap(({ said, runningTokens = 0 }) => [
      runningTokens,
      ...said.map((one) => (one.line.outcome === 'running' ? one.line.completionTokens : 0)),
    ]);
  return { own: Math.max(line.completionTokens, ...running), told: line.nodeTokens ?? Number.POSITIVE_INFINITY };
}

test('never more is paid than the lower of both counts, nor a prompt above the one stated', ({ expect }) => {
  fc.assert(
    fc.property(someFacts, (facts) => {
      for (const settled of settleAll(facts)) {
        const { own, told } = countsOf(facts, settled);
        expect(settled.completionTokens).toBeLessThanOrEqual(Math.min(own, told));
        expect(settled.promptTokens).toBeLessThanOrEqual(settled.line.promptTokens);
        expect(settled.cachedTokens).toBeLessThanOrEqual(settled.promptTokens);
      }
    }),
  );
});

const creditOf = (settled: readonly Settled[], node: PeerId): bigint => sum(settled, (one) => one.node === node);
const change = (facts: readonly AttemptFacts[], map: (said: Said) => Said): AttemptFacts[] =>
  facts.map(({ author, node, said }) => ({ author, node, said: said.map(map) }));
/** Everything countersigned: who said what of a serial first does not matter. */
const signed = fc.uniqueArray(someLine, { selector: ({ run, serial }) => `${run} ${serial}`, maxLength: 8 });

test('a node gains nothing by telling more than the gateway counted', ({ expect }) => {
  fc.assert(
    fc.property(signed, fc.nat(50), (lines, more) => {
      const facts = lines.map((line) => factsOf([said(line)]));
      const honest = change(facts, (one) => said({ ...one.line, nodeTokens: one.line.completionTokens }));
      const inflated = change(facts, (one) => said({ ...one.line, nodeTokens: one.line.completionTokens + more }));
      expect(creditOf(settleAll(inflated), nora)).toBe(creditOf(settleAll(honest), nora));
    }),
  );
});

test('a node gains nothing by refusing, or by telling less', ({ expect }) => {
  const refused = fc.constantFrom('unknown' as const, 'count' as const, 'price' as const, 'outcome' as const);
  fc.assert(
    fc.property(signed, fc.nat(10), fc.option(refused, { nil: undefined }), (lines, less, reason) => {
      for (const line of lines) {
        const before = settleAttempt(factsOf([said(line)]))?.amountMicro ?? 0;
        const told = Math.max(0, (line.nodeTokens ?? line.completionTokens) - less);
        const after = settleAttempt(
          factsOf([said({ ...line, nodeTokens: told }, reason === undefined ? {} : { refused: reason })]),
        );
        expect(after?.amountMicro).toBeLessThanOrEqual(before);
      }
    }),
  );
});

/** The same attempts, with everything else as the gateway likes. */
function restated(lines: readonly UsageLine[], other: UsageLine, changes: Partial<Said>): AttemptFacts[] {
  const { promptTokens, completionTokens, nodeTokens, outcome, payer, price } = other;
  return lines.map((line) => {
    const cachedTokens = Math.min(line.cachedTokens, promptTokens);
    const lie = { ...line, promptTokens, cachedTokens, completionTokens, outcome, payer, price };
    return factsOf([said(nodeTokens === undefined ? lie : { ...lie, nodeTokens }, changes)]);
  });
}

test('a gateway changes nothing by stating again what the node has signed', ({ expect }) => {
  const isEnded = ({ outcome }: UsageLine): boolean => outcome !== 'running';
  fc.assert(
    fc.property(signed, someLine.filter(isEnded), fc.boolean(), (all, other, isRefused) => {
      const lines = all.filter(isEnded);
      const facts = lines.map((line) => factsOf([said(line)]));
      const again = restated(lines, other, isRefused ? { refused: 'repeated' } : { isCountersigned: false });
      expect(settleAll([...facts, ...again])).toEqual(settleAll(facts));
    }),
  );
});

test('what a gateway adds by itself takes nothing from a node that has signed', ({ expect }) => {
  fc.assert(
    fc.property(signed, fc.array(someLine, { maxLength: 4 }), (lines, more) => {
      const facts = lines.map((line) => factsOf([said(line)]));
      const added = more.map((line) => factsOf([said(line, { isCountersigned: false })], noah));
      const credits = (all: readonly AttemptFacts[]) => creditOf(settleAll(all), nora);
      expect(credits([...facts, ...added])).toBeGreaterThanOrEqual(credits(facts));
    }),
  );
});

test('an older or lower running count changes nothing', ({ expect }) => {
  fc.assert(
    fc.property(signed, fc.nat(30), (lines, less) => {
      const facts = lines.map((line) => factsOf([said(line)]));
      const older = lines.map((line) => {
        const completionTokens = Math.max(0, line.completionTokens - less);
        return factsOf([said({ ...lineOnly(line), outcome: 'running', completionTokens })]);
      });
      const amounts = (all: readonly AttemptFacts[]) =>
        settleAll(all).map(({ amountMicro, payer }) => [amountMicro, payer]);
      expect(amounts([...older, ...facts])).toEqual(amounts(facts));
    }),
  );
});

test('of lines that no node has signed the account owes for the lowest', ({ expect }) => {
  fc.assert(
    fc.property(fc.array(someFact, { maxLength: 8 }), someFact, (facts, one) => {
      const alone = change([...facts, one], ({ line }) =>
        said({ ...line, serial: 1, first: 1, outcome: 'done' }, { isCountersigned: false }),
      );
      const owed = (all: readonly AttemptFacts[]) => sum(settleAll(all), ({ payer }) => payer === 'account');
      const each = alone.map((fact) => settleAttempt(fact)?.amountMicro ?? 0);
      const gateways = new Set(alone.map(({ author, said: [first] }) => `${author} ${first?.line.run}`)).size;
      expect(owed(alone)).toBeLessThanOrEqual(BigInt(Math.max(...each)) * BigInt(gateways));
      if (gateways === 1) expect(sum(settleAll(alone), () => true)).toBe(BigInt(Math.min(...each)));
    }),
  );
});
