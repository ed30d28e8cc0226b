/** `ledger export`: attempt by attempt in bounded memory, it comes to what all of it at once comes to. */

import fc from 'fast-check';
import { test } from 'vitest';
import { type ExportRow, exportSettled } from '../../ledger/export.ts';
import type { Settled } from '../../ledger/settlement.ts';
import type { Store } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';
import { feedsOf, scenarios, settledOf } from './export-stage.ts';
import { meshId } from './feed-stage.ts';
import { gateway, line, node, startMs, storeOf } from './verify-stage.ts';
import '../support/seed.ts';

const alice = node('alice');

async function rowsOf(store: Pick<Store, 'range'>, options: { sinceMs?: number; untilMs?: number } = {}) {
  const rows: ExportRow[] = [];
  const { sinceMs, untilMs } = options;
  const asked = {
    sinceMs: sinceMs === undefined ? undefined : unixMs(sinceMs),
    untilMs: untilMs === undefined ? undefined : unixMs(untilMs),
  };
  for await (const row of exportSettled(store, { meshId, holds: 'all', ...asked })) rows.push(row);
  return rows;
}

/** What is settled, in one order; how far a running attempt was told to be is told by several. */
const textsOf = (settled: readonly Settled[]): string[] =>
  settled
    .map(({ line: said, ...rest }) => {
      const { completionTokens, ...others } = said;
      const shown = said.outcome === 'running' ? others : said;
      return JSON.stringify({ ...rest, line: shown });
    })
    .toSorted();

test('every attempt comes out once, as all that was said of it together settles it', async ({ expect }) => {
  await fc.assert(
    fc.asyncProperty(scenarios, scenarios, async (one, other) => {
      const feeds = [...feedsOf(one), ...feedsOf(other, 'second gateway')];
      const rows = await rowsOf(await storeOf(...feeds));
      expect(textsOf(rows.map(({ settled }) => settled))).toEqual(textsOf(settledOf(feeds)));
    }),
    { numRuns: 150 },
  );
});

test('a row names where the line stands that counts, and why its node refused it', async ({ expect }) => {
  const g = gateway();
  const entry = g.statement(alice.peer, [line('run', 1), line('run', 2)]);
  g.block([entry]);
  g.block([g.word(alice.key, entry, [{ index: 1, reason: 'count' }])]);
  const rows = await rowsOf(await storeOf(g));
  expect(rows.map(({ settled, origin, refused }) => [settled.line.serial, settled.state, origin, refused])).toEqual([
    [1, 'agreed', expect.objectContaining({ epoch: g.epoch, block: 0, entry: 1, list: 'line', at: 0 }), undefined],
    [2, 'refused', expect.objectContaining({ epoch: g.epoch, block: 0, entry: 1, list: 'line', at: 1 }), 'count'],
  ]);
});

test('a countersignature that the node did not make changes nothing', async ({ expect }) => {
  const g = gateway();
  const entry = g.statement(alice.peer, [line('run', 1)]);
  g.block([entry, { ...g.word(node('bob').key, entry), node: alice.peer }, g.word(node('bob').key, entry)]);
  expect((await rowsOf(await storeOf(g))).map(({ settled }) => settled.state)).toEqual(['alone']);
});

test('a moment cuts by when attempts began; the first counts, the last does not', async ({ expect }) => {
  const g = gateway();
  g.block([g.statement(alice.peer, [line('run', 1), line('run', 2), line('run', 3)])]);
  const rows = await rowsOf(await storeOf(g), { sinceMs: startMs + 2, untilMs: startMs + 3 });
  expect(rows.map(({ settled }) => settled.line.serial)).toEqual([2]);
});
