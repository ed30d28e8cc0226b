/** The audit log on a disk that fails: crashes at every change, and a disk that is full. */

import fc from 'fast-check';
import { afterEach, describe, test, vi } from 'vitest';
import { verifyAudit } from '../../ledger/adapters/audit-read.ts';
import type { AuditLine } from '../../ledger/audit.ts';
import { type AuditStage, auditStage, deed, refusal } from './audit-stage.ts';
import { faults, heal } from './faulty-fs.ts';

vi.mock('node:fs/promises', async (original) =>
  (await import('./faulty-fs.ts')).faultyFileSystem(await original<typeof import('node:fs/promises')>()),
);

afterEach(heal);

const small = { fileMaxBytes: 1_200, totalMaxBytes: 3_600 };
const accounts = (lines: readonly string[]): string[] =>
  lines.map((line) => JSON.parse(line) as AuditLine).flatMap(({ object }) => (object === 'none' ? [] : [object]));

/** Notes and flushes until something fails. @returns what was on disk for certain, and all that was noted. */
async function work(stage: AuditStage, prefix: string, count: number): Promise<{ sure: string[]; noted: string[] }> {
  const noted: string[] = [];
  let sure = 0;
  try {
    const audit = await stage.open(small);
    for (let index = 0; index < count && faults.changes < faults.crashAt; index += 1) {
      const object = `account:${prefix}-${index}`;
      noted.push(object);
      audit.note(deed({ object }));
      if (index % 3 !== 2) continue;
      await audit.flush();
      if (faults.changes < faults.crashAt) sure = noted.length;
    }
    if (faults.changes < faults.crashAt) await audit[Symbol.asyncDispose]();
  } catch (error) {
    if (faults.changes < faults.crashAt) throw error;
  }
  return { sure: noted.slice(0, sure), noted };
}

/** What is left of what was noted must be an unbroken run of it that ends at or after the last that was sure. */
function isRun(
  kept: readonly string[],
  { sure, noted }: { sure: readonly string[]; noted: readonly string[] },
): boolean {
  const end = noted.lastIndexOf(kept.at(-1) ?? '');
  const start = end - kept.length + 1;
  return end >= sure.length - 1 && start >= 0 && kept.every((object, index) => object === noted[start + index]);
}

describe('a crash', () => {
  test('at any change, however much of it reached the disk, breaks no chain and loses no line that was sure', async ({
    expect,
  }) => {
    const runLength = 24;
    await using probe = await auditStage();
    await work(probe, 'a', runLength);
    const changes = faults.changes;
    expect(changes).toBeGreaterThan(60);
    for (let crashAt = 1; crashAt <= changes; crashAt += 1) {
      await using stage = await auditStage();
      await heal();
      Object.assign(faults, { crashAt, tornBytes: (crashAt * 37) % 400 });
      const before = await work(stage, 'a', runLength);
      await heal();
      const after = await work(stage, 'b', 2);
      const verdict = await verifyAudit(stage.directory);
      expect(verdict?.finding, `crash at change ${crashAt}`).toBeUndefined();
      const kept = accounts(await stage.lines());
      expect(kept.slice(-2)).toEqual(after.noted);
      const ofBefore = kept.slice(0, -2);
      if (before.sure.length > 0) expect(isRun(ofBefore, before), `crash at change ${crashAt}`).toBe(true);
      expect(
        stage.told.filter(({ fields }) => ['broken', 'headless', 'missing'].includes(String(fields['reason']))),
      ).toEqual([]);
    }
  });

  test('after a crash after a crash', async ({ expect }) => {
    const crash = fc.record({ crashAt: fc.integer({ min: 1, max: 40 }), tornBytes: fc.nat(600) });
    await fc.assert(
      fc.asyncProperty(fc.array(crash, { minLength: 1, maxLength: 5 }), async (crashes) => {
        await using stage = await auditStage();
        for (const [index, each] of crashes.entries()) {
          await heal();
          Object.assign(faults, each);
          await work(stage, `c${index}`, 8);
        }
        await heal();
        await work(stage, 'z', 1);
        expect((await verifyAudit(stage.directory))?.finding).toBeUndefined();
        expect(accounts(await stage.lines()).at(-1)).toBe('account:z-0');
      }),
      { numRuns: 60 },
    );
  });

  test('leaves half a line, which is cut off and told of', async ({ expect }) => {
    await using stage = await auditStage();
    const audit = await stage.open();
    audit.note(deed());
    await audit.flush();
    // More than the line that tells of it.
    Object.assign(faults, { crashAt: faults.changes + 1, tornBytes: 250 });
    audit.note(deed({ object: `author:${'ab'.repeat(32)}` }));
    await audit.flush();
    await heal();
    expect(await verifyAudit(stage.directory)).toMatchObject({ lines: 1, isTorn: true });
    await using again = await stage.open();
    expect(await again.tail(10)).toMatchObject([
      { number: 0, action: 'key.create' },
      { number: 1, action: 'audit.repair', outcome: 'done', reason: 'torn' },
    ]);
    expect(await again.verify()).toEqual({ lines: 2, first: 0, last: { number: 1, hash: expect.any(String) } });
    expect(stage.told).toContainEqual({ level: 'warn', event: 'audit.repaired', fields: { reason: 'torn', lines: 1 } });
  });
});

describe('a full disk', () => {
  test('lets nobody wait: lines wait in memory and are written, in order, once there is room', async ({ expect }) => {
    await using stage = await auditStage();
    const audit = await stage.open();
    audit.note(deed({ object: 'account:before' }));
    await audit.flush();
    faults.isFull = true;
    for (let index = 0; index < 5; index += 1) audit.note(deed({ object: `account:during-${index}` }));
    await audit.flush();
    await stage.clock.advance(5_000);
    expect(accounts(await stage.lines())).toEqual(['account:before']);
    expect(stage.told.filter(({ event }) => event === 'audit.failed')).toHaveLength(1);
    faults.isFull = false;
    await stage.clock.advance(1_000);
    await vi.waitFor(() => expect(stage.told.map(({ event }) => event)).toContain('audit.resumed'));
    const during = Array.from({ length: 5 }, (_, index) => `account:during-${index}`);
    expect(accounts(await stage.lines())).toEqual(['account:before', ...during]);
    expect((await audit.verify()).finding).toBeUndefined();
    await audit[Symbol.asyncDispose]();
  });

  test('loses what is too much to wait, counts it and says so', async ({ expect }) => {
    await using stage = await auditStage();
    const audit = await stage.open({ waitingMax: 10 });
    faults.isFull = true;
    for (let index = 0; index < 25; index += 1) audit.note(deed());
    await audit.flush();
    faults.isFull = false;
    await audit.flush();
    const lines = await audit.tail(100);
    expect(lines.map(({ action, count }) => [action, count])).toEqual([
      ...Array.from({ length: 10 }, () => ['key.create', undefined]),
      ['audit.drop', 15],
    ]);
    expect(lines.at(-1)).toMatchObject({ actor: 'none', object: 'none', outcome: 'failed', reason: 'full' });
    expect(stage.told).toContainEqual({ level: 'error', event: 'audit.dropped', fields: { lines: 15 } });
    expect((await audit.verify()).finding).toBeUndefined();
    await audit[Symbol.asyncDispose]();
  });

  test('at the end is told with the number of lines that are lost', async ({ expect }) => {
    await using stage = await auditStage();
    const audit = await stage.open();
    faults.isFull = true;
    for (let index = 0; index < 3; index += 1) audit.note(deed());
    audit.note(refusal());
    await audit[Symbol.asyncDispose]();
    expect(stage.told).toContainEqual({ level: 'error', event: 'audit.lost', fields: { lines: 4 } });
  });

  test('on which files that are there still grow, but not their head, breaks nothing, nor does a crash then', async ({
    expect,
  }) => {
    await using stage = await auditStage();
    const audit = await stage.open(small);
    const noted = Array.from({ length: 12 }, (_, index) => `account:a-${index}`);
    for (const [index, object] of noted.entries()) {
      faults.isFullForNew = index > 0;
      audit.note(deed({ object }));
      await audit.flush();
    }
    // The first file is full; without a head that knows its lines no other is begun.
    expect(await stage.names()).toEqual(['audit-0.jsonl']);
    const kept = accounts(await stage.lines());
    expect(kept.length).toBeGreaterThan(1);
    expect(kept).toEqual(noted.slice(0, kept.length));
    await heal();
    await using again = await stage.open(small);
    expect(await again.verify()).toMatchObject({ lines: kept.length });
    expect((await again.verify()).finding).toBeUndefined();
    expect(stage.told.filter(({ event }) => event === 'audit.repaired')).toEqual([]);
  });
});
