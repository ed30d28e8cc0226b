/** `ledger reconcile`: sums of the feeds against counters that move, and against what a provider has written down. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { csvHeader, csvLine } from '../../ledger/adapters/export-csv.ts';
import { jsonLine } from '../../ledger/adapters/export-jsonl.ts';
import { readProviderFile } from '../../ledger/adapters/reconcile-file.ts';
import { createUsage } from '../../ledger/create-usage.ts';
import { parseEntry } from '../../ledger/entry.ts';
import { type ExportRow, exportSettled } from '../../ledger/export.ts';
import { compareProvider, compareSums, providerSums, sumsOf, sumUp } from '../../ledger/reconcile.ts';
import { usageDimensions } from '../../ledger/usage.ts';
import type { Store } from '../../protocol/ports.ts';
import { tempDir } from '../cli/temp-dir.ts';
import { failure } from '../protocol/mesh-fixture.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { meshId } from './feed-stage.ts';
import { type FeedMaker, gateway, line, node, price, storeOf } from './verify-stage.ts';
import '../support/seed.ts';

const alice = node('alice');

const settled = (store: Pick<Store, 'range'>) => exportSettled(store, { meshId, holds: 'all' });

/** The live counters over the same feeds, as a daemon keeps them. */
function counted(...feeds: readonly FeedMaker[]) {
  const usage = createUsage({ clock: new ManualClock() }, { meshId });
  for (const { head, entries } of feeds.flatMap(({ blocks }) => blocks)) {
    const { author, epoch, number, generation, timeMs } = head.header;
    for (const [index, bytes] of entries.entries()) {
      const place = { author, epoch, number, generation, timeMs, index, isAfterFork: false };
      usage.apply({ entry: parseEntry(bytes), bytes, place });
    }
  }
  return sumsOf(usage.rollUp({}, usageDimensions));
}

/** Work of a gateway: whole, retried, refused, and not yet signed. */
function worked(): FeedMaker {
  const g = gateway();
  const one = g.statement(alice.peer, [line('run', 1, { price }), line('run', 2, { price, nodeTokens: 15 })]);
  const two = g.statement(alice.peer, [
    line('run', 3, { price, outcome: 'lost' }),
    line('run', 4, { price, first: 3 }),
  ]);
  g.block([one, two, g.word(alice.key, one, [{ index: 0, reason: 'count' }])]);
  g.block([g.statement(alice.peer, [line('run', 5, { price, outcome: 'hedged' })])]);
  return g;
}

describe('counters', () => {
  test('of the same feeds are the same, to the last', async ({ expect }) => {
    const g = worked();
    const sums = await sumUp(settled(await storeOf(g)));
    expect(sums.size).toBe(1);
    expect(compareSums(sums, counted(g))).toEqual([]);
  });

  test('that moved while the feeds were read may lie on either side of them', async ({ expect }) => {
    const g = worked();
    const before = counted(g);
    g.block([g.statement(alice.peer, [line('run', 6, { price })])]);
    const feeds = await sumUp(settled(await storeOf(g)));
    g.block([g.statement(alice.peer, [line('run', 7, { price })])]);
    expect(compareSums(feeds, before, counted(g))).toEqual([]);
    expect(compareSums(feeds, before).map(({ field }) => field)).toContain('attempts');
  });

  test('that miss a line, or count one twice, are told field by field', async ({ expect }) => {
    const g = worked();
    const feeds = await sumUp(settled(await storeOf(g)));
    const [[name, counts] = ['', undefined]] = feeds;
    const theirs = new Map([[name, { ...counts, attempts: 9, accountMicro: 0 } as NonNullable<typeof counts>]]);
    expect(compareSums(feeds, theirs)).toEqual([
      { place: name, field: 'attempts', feeds: 5, theirs: 9 },
      { place: name, field: 'accountMicro', feeds: counts?.accountMicro, theirs: 0 },
    ]);
  });
});

describe('a provider’s file', () => {
  async function written(name: string, text: string, run: (path: string) => Promise<void>): Promise<void> {
    await using temp = await tempDir();
    const path = join(temp.path, name);
    await writeFile(path, text);
    await run(path);
  }

  async function rowsOf(g: FeedMaker): Promise<ExportRow[]> {
    const rows: ExportRow[] = [];
    for await (const row of settled(await storeOf(g))) rows.push(row);
    return rows;
  }

  test('in the form of an export is the same as the export', async ({ expect }) => {
    const g = worked();
    const rows = await rowsOf(g);
    const check = async (path: string): Promise<void> => {
      const { key, rows: theirs } = await readProviderFile(path);
      expect(await compareProvider(settled(await storeOf(g)), providerSums(theirs), key)).toEqual([]);
    };
    await written('all.csv', csvHeader + rows.map(csvLine).join(''), check);
    await written('all.jsonl', rows.map(jsonLine).join(''), check);
  });

  test('by requests alone is compared by their sums; what differs, lacks or is too much is named', async ({
    expect,
  }) => {
    const g = worked();
    const [one, , three] = [1, 2, 3].map((serial) => line('run', serial).request);
    const csv = `request,completion_tokens,amount_micro\n${one},20,50\n${three},41,1\n${'ff'.repeat(16)},1,2\n`;
    await written('theirs.csv', csv, async (path) => {
      const { key, rows } = await readProviderFile(path);
      const found = await compareProvider(settled(await storeOf(g)), providerSums(rows), key);
      expect(found.map(({ place, field, theirs }) => [place, field, theirs])).toEqual([
        [line('run', 2).request, 'attempt', undefined],
        [line('run', 5).request, 'attempt', undefined],
        [three, 'completionTokens', 41],
        [three, 'amountMicro', 1],
        ['ff'.repeat(16), 'attempt', 2],
      ]);
    });
  });

  test('that says nothing of attempts is refused', async ({ expect }) => {
    for (const [name, text] of [
      ['a.csv', 'day,tokens\n1,2\n'],
      ['a.csv', 'run,serial,amount_micro\nx,1,many\n'],
      ['a.jsonl', '{"request":"x","amountMicro":-1}\n'],
      ['a.jsonl', 'request\n'],
    ] as const) {
      await written(name, text, async (path) => {
        expect(await failure(() => readProviderFile(path))).toMatchObject({ code: 'CONFIG_INVALID' });
      });
    }
    expect(await failure(() => readProviderFile('nowhere.csv'))).toMatchObject({ code: 'CONFIG_INVALID' });
  });

  test('CSV comes back whole, whatever stands in its cells', async ({ expect }) => {
    const cell = fc.string({ unit: 'grapheme', maxLength: 12 }).map((text) => text.replaceAll('\r', ''));
    await fc.assert(
      fc.asyncProperty(fc.array(cell, { minLength: 1, maxLength: 5 }), async (cells) => {
        const quoted = cells.map((text) => `"${text.replaceAll('"', '""')}"`);
        const csv = `request,note,amount_micro\n${quoted.map((text, at) => `${at},${text},${at}`).join('\n')}`;
        await written('x.csv', csv, async (path) => {
          const { rows } = await readProviderFile(path);
          expect(rows).toEqual(cells.map((_, at) => ({ name: String(at), counts: { amountMicro: at } })));
        });
      }),
      { numRuns: 40 },
    );
  });
});
