/** The chain on disk: whatever is changed, removed, added or moved is found, at the line where it happened. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { type AuditVerdict, verifyAudit } from '../../ledger/adapters/audit-read.ts';
import { hashLine, lineOf, parseHead } from '../../ledger/audit-chain.ts';
import type { Finding } from '../../ledger/audit-verify.ts';
import { unixMs } from '../../protocol/units.ts';
import { type AuditStage, auditStage, deed } from './audit-stage.ts';

/** A log of 24 lines in files of about 6, of which the oldest two were removed again; closed. */
async function keptLog(): Promise<AuditStage & { readonly files: readonly (readonly [string, string])[] }> {
  const stage = await auditStage();
  {
    await using audit = await stage.open({ fileMaxBytes: 1_500, totalMaxBytes: 5_000 });
    for (let index = 0; index < 30; index += 1) {
      audit.note(deed({ object: `account:acct-${index}` }));
      if (index % 3 === 0) await audit.flush();
    }
  }
  const names = await stage.names();
  return { ...stage, files: await Promise.all(names.map(async (name) => [name, await stage.read(name)] as const)) };
}

type Files = readonly (readonly [name: string, text: string])[];

async function put({ directory }: AuditStage, files: Files): Promise<void> {
  for (const [name, text] of files) await writeFile(join(directory, name), text, 'latin1');
}

async function findingOf(stage: AuditStage, files: Files): Promise<Finding | undefined> {
  await put(stage, files);
  return (await verdictOf(stage)).finding;
}

async function verdictOf({ directory }: AuditStage): Promise<AuditVerdict> {
  const verdict = await verifyAudit(directory);
  if (verdict === undefined) throw new Error('there is a log');
  return verdict;
}

/** Every line with its file, and back. */
const rowsOf = (files: Files): (readonly [name: string, line: string])[] =>
  files.flatMap(([name, text]) =>
    text
      .split('\n')
      .slice(0, -1)
      .map((line) => [name, line] as const),
  );
const filesOf = (files: Files, rows: readonly (readonly [string, string])[]): Files =>
  files.map(([name]) => [name, rows.flatMap(([file, line]) => (file === name ? [`${line}\n`] : [])).join('')]);
const numberOf = (line: string): number => (JSON.parse(line) as { number: number }).number;

const runs = { numRuns: 150 };

test('a log that nobody touched is whole, however often it was rotated and trimmed', async ({ expect }) => {
  await using stage = await keptLog();
  const rows = rowsOf(stage.files);
  expect(stage.files.length).toBeGreaterThan(2);
  const [first, last] = [rows[0]?.[1] ?? '', rows.at(-1)?.[1] ?? ''];
  expect(numberOf(first)).toBeGreaterThan(0);
  expect(await verdictOf(stage)).toEqual({
    lines: rows.length,
    first: numberOf(first),
    last: { number: numberOf(last), hash: hashLine(last) },
  });
});

describe('damage', () => {
  test('of any byte is found at its line', async ({ expect }) => {
    await using stage = await keptLog();
    const { files } = stage;
    const spots = files.flatMap(([, text], file) => Array.from(text, (_, at) => ({ file, at })));
    const lastNumber = numberOf(rowsOf(files).at(-1)?.[1] ?? '');
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...spots), fc.integer({ min: 1, max: 255 }), async ({ file, at }, flip) => {
        const [name, text] = files[file] ?? ['', ''];
        const byte = String.fromCharCode(text.charCodeAt(at) ^ flip);
        const damaged: Files = [[name, `${text.slice(0, at)}${byte}${text.slice(at + 1)}`]];
        const found = await findingOf(stage, damaged);
        await put(stage, [[name, text]]);
        const line = text.slice(0, at).split('\n').length;
        const isEnd = file === files.length - 1 && at === text.length - 1;
        // Without its newline the last line is one that was never written.
        if (isEnd) expect(found).toEqual({ fault: 'missing', number: lastNumber, upTo: lastNumber });
        else expect(found?.place).toEqual({ file: name, line });
      }),
      runs,
    );
  });

  test('of one digit in the text of a line names the line by its number, too', async ({ expect }) => {
    await using stage = await keptLog();
    for (const [name, line] of rowsOf(stage.files)) {
      const text = stage.files.find(([file]) => file === name)?.[1] ?? '';
      const changed = line.replace(/"time":(\d+)/, (_, time) => `"time":${Number(time) + 1}`);
      const finding = await findingOf(stage, [[name, text.replace(line, changed)]]);
      await put(stage, [[name, text]]);
      expect(finding).toMatchObject({ fault: 'changed', number: numberOf(line) });
    }
  });

  test('of the newline at the end of a file that others follow is found', async ({ expect }) => {
    await using stage = await keptLog();
    const [name, text] = stage.files[1] ?? ['', ''];
    const finding = await findingOf(stage, [[name, text.slice(0, -1)]]);
    const lines = text.split('\n').length - 1;
    expect(finding).toMatchObject({ fault: 'malformed', place: { file: name, line: lines } });
  });

  test('of a number that becomes the next one is no gap', async ({ expect }) => {
    await using stage = await keptLog();
    const [name, text] = stage.files[1] ?? ['', ''];
    const [, second = ''] = text.split('\n');
    const number = numberOf(second);
    const changed = second.replace(`"number":${number}`, `"number":${number + 1}`);
    const finding = await findingOf(stage, [[name, text.replace(second, changed)]]);
    expect(finding).toMatchObject({ fault: 'misplaced', place: { file: name, line: 2 } });
  });

  test('of any byte of the head is found or changes nothing', async ({ expect }) => {
    await using stage = await keptLog();
    const path = join(stage.directory, 'head.json');
    const text = await readFile(path, 'latin1');
    await fc.assert(
      fc.asyncProperty(fc.nat(text.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const byte = String.fromCharCode(text.charCodeAt(at) ^ flip);
        const damaged = `${text.slice(0, at)}${byte}${text.slice(at + 1)}`;
        await writeFile(path, damaged, 'latin1');
        const known = parseHead(damaged);
        if (typeof known === 'number') {
          await expect(verifyAudit(stage.directory)).rejects.toMatchObject({ code: 'FORMAT_TOO_NEW' });
        } else if (JSON.stringify(known) !== JSON.stringify(parseHead(text))) {
          expect((await verdictOf(stage)).finding).toBeDefined();
        }
      }),
      runs,
    );
  });
});

describe('lines', () => {
  test('any that are removed are named', async ({ expect }) => {
    await using stage = await keptLog();
    const { files } = stage;
    const rows = rowsOf(files);
    const from = fc.nat(rows.length - 1);
    await fc.assert(
      fc.asyncProperty(from, fc.integer({ min: 1, max: 8 }), async (at, wish) => {
        const gone = rows.slice(at, at + wish);
        const left = rows.toSpliced(at, gone.length);
        const finding = await findingOf(stage, filesOf(files, left));
        const [number, upTo] = [gone[0]?.[1] ?? '', gone.at(-1)?.[1] ?? ''].map(numberOf);
        expect(finding).toMatchObject({ fault: 'missing', number, upTo });
      }),
      runs,
    );
  });

  test('two that have changed places are found at the first of the places', async ({ expect }) => {
    await using stage = await keptLog();
    const { files } = stage;
    const rows = rowsOf(files);
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(fc.nat(rows.length - 1), { minLength: 2, maxLength: 2 }), async (pair) => {
        const [low = 0, high = 0] = pair.toSorted((a, b) => a - b);
        const [lowRow, highRow] = [rows[low], rows[high]];
        if (lowRow === undefined || highRow === undefined) throw new Error('both are rows');
        const swapped = rows.with(low, [lowRow[0], highRow[1]]).with(high, [highRow[0], lowRow[1]]);
        const finding = await findingOf(stage, filesOf(files, swapped));
        expect(finding).toMatchObject({ number: numberOf(highRow[1]), place: placeOf(rows, low) });
      }),
      runs,
    );
  });

  test('a copy that is put anywhere is found', async ({ expect }) => {
    await using stage = await keptLog();
    const { files } = stage;
    const rows = rowsOf(files);
    const any = fc.nat(rows.length - 1);
    await fc.assert(
      fc.asyncProperty(any, any, async (from, to) => {
        const [name] = rows[to] ?? [''];
        const copied = rows.toSpliced(to, 0, [name, rows[from]?.[1] ?? '']);
        const finding = await findingOf(stage, filesOf(files, copied));
        expect(finding?.fault).toBe('misplaced');
        // Of two equal lines side by side either is the copy.
        const places = [to, ...(Math.abs(from - to) <= 1 ? [to - 1, to + 1] : [])].map((at) => placeOf(copied, at));
        expect(places).toContainEqual(finding?.place);
      }),
      runs,
    );
  });

  test('one that is forged to follow the line before it is found between its neighbours', async ({ expect }) => {
    await using stage = await keptLog();
    const { files } = stage;
    const rows = rowsOf(files);
    for (let at = 1; at < rows.length; at += 1) {
      const before = rows[at - 1]?.[1] ?? '';
      const forged = lineOf(deed({ object: 'none' }), numberOf(before) + 1, unixMs(1), hashLine(before));
      const name = rows[at]?.[0] ?? '';
      const finding = await findingOf(stage, filesOf(files, rows.toSpliced(at, 0, [name, forged])));
      const place = placeOf(rows, at);
      expect(finding).toMatchObject({ number: numberOf(before) + 1 });
      expect(finding?.place).toEqual(place);
    }
  });
});

/** Where a row stands in its file. */
function placeOf(rows: readonly (readonly [string, string])[], at: number) {
  const file = rows[at]?.[0];
  return file === undefined
    ? undefined
    : { file, line: rows.slice(0, at + 1).filter(([name]) => name === file).length };
}

test('a log that was written anew to its end is found by whoever noted a line elsewhere', async ({ expect }) => {
  await using real = await keptLog();
  const verdict = await verdictOf(real);
  const { last } = verdict;
  if (last === undefined) throw new Error('there are lines');
  expect(await verifyAudit(real.directory, [last])).toEqual(verdict);
  await using forged = await auditStage();
  {
    await using audit = await forged.open();
    for (let index = 0; index < 60; index += 1) audit.note(deed());
  }
  const check = async (...noted: Parameters<typeof verifyAudit>[1] & object) =>
    (await verifyAudit(forged.directory, noted))?.finding;
  expect(await check()).toBeUndefined();
  expect(await check(last)).toMatchObject({ fault: 'changed', number: last.number });
  expect(await check({ ...last, number: 1_000 })).toEqual({ fault: 'missing', number: 60, upTo: 1_000 });
});

test('a directory without a log has no verdict', async ({ expect }) => {
  await using stage = await auditStage();
  expect(await verifyAudit(stage.directory)).toBeUndefined();
});
