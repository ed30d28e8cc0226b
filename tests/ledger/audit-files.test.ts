/** The audit log's files: who may read them, how they grow and are bounded, and what becomes of damage at the next start. */

import { chmod, mkdir, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { describe, test, vi } from 'vitest';
import { readAuditTail, verifyAudit } from '../../ledger/adapters/audit-read.ts';
import type { AuditRecord } from '../../ledger/audit.ts';
import { hashLine } from '../../ledger/audit-chain.ts';
import { type AuditStage, anyDeed, auditStage, deed, refusal } from './audit-stage.ts';

const small = { fileMaxBytes: 1_500, totalMaxBytes: 5_000 };

/** Opens, notes and closes. */
async function write(stage: AuditStage, count: number, options = {}): Promise<void> {
  await using audit = await stage.open(options);
  for (let index = 0; index < count; index += 1) {
    audit.note(deed({ object: `account:acct-${index}` }));
    await audit.flush();
  }
}

const repairs = ({ told }: AuditStage): unknown[] =>
  told.filter(({ event }) => event === 'audit.repaired').map(({ fields }) => fields['reason']);

test('a line has its members in a fixed order, and the hash of the line before', async ({ expect }) => {
  await using stage = await auditStage();
  {
    await using audit = await stage.open();
    audit.note(deed());
    audit.note(refusal());
    audit.note(refusal());
    audit.note(refusal());
  }
  const lines = await stage.lines();
  const time = stage.clock.wallMs();
  const key = '"key:00000000000000aa"';
  const request = `"action":"request.refuse","actor":${key},"object":"POST /v1/chat/completions","outcome":"refused","reason":"KEY_EXPIRED"`;
  expect(lines).toEqual([
    `{"number":0,"time":${time},"action":"key.create","actor":"local","object":${key},"outcome":"done","reason":"","previous":"${'0'.repeat(64)}"}`,
    `{"number":1,"time":${time},${request},"previous":"${hashLine(lines[0] ?? '')}"}`,
    `{"number":2,"time":${time},${request},"count":2,"previous":"${hashLine(lines[1] ?? '')}"}`,
  ]);
});

test('whatever is noted is read again, in order, over any number of runs', async ({ expect }) => {
  const isOwn = ({ action, actor, object }: AuditRecord): boolean =>
    action === 'audit.trim' && actor === 'none' && object === 'none';
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(anyDeed, { maxLength: 12 }), { maxLength: 4 }), async (sessions) => {
      await using stage = await auditStage();
      for (const records of sessions) {
        await using audit = await stage.open(small);
        for (const record of records) audit.note(record);
      }
      const lines = (await readAuditTail(stage.directory, 1_000)) ?? [];
      const kept = lines.map(({ number: _number, time: _time, previous: _previous, ...record }) => record);
      const noted = sessions.flat().filter((record) => !isOwn(record));
      const others = kept.filter((record) => !isOwn(record));
      expect(others).toEqual(noted.slice(noted.length - others.length));
      expect(lines[0]?.number ?? 0).toBeGreaterThanOrEqual(noted.length - others.length);
      expect((await verifyAudit(stage.directory))?.finding).toBeUndefined();
    }),
    { numRuns: 40 },
  );
});

describe('a log in which nothing was noted', () => {
  test('is there while it is open, and leaves nothing behind', async ({ expect }) => {
    await using stage = await auditStage();
    await rm(stage.directory, { recursive: true, force: true });
    const audit = await stage.open();
    expect(await audit.verify()).toEqual({ lines: 0 });
    await audit[Symbol.asyncDispose]();
    expect(await readdir(dirname(stage.directory))).toEqual([]);
  });

  test('takes nothing with it that it did not make', async ({ expect }) => {
    await using stage = await auditStage();
    await mkdir(stage.directory, { recursive: true });
    await write(stage, 0);
    expect(await readdir(stage.directory)).toEqual([]);
    await write(stage, 2);
    await rm(join(stage.directory, 'audit-0.jsonl'));
    await write(stage, 0);
    expect(await stage.names()).toEqual(['audit-2.jsonl']);
    await writeFile(join(stage.directory, 'other'), '');
    await rm(join(stage.directory, 'head.json'));
    await rm(join(stage.directory, 'audit-2.jsonl'));
    await write(stage, 0);
    expect(await readdir(stage.directory)).toEqual(['other']);
  });
});

describe('noting', () => {
  test('waits for nothing: lines reach the disk in groups, at most ten a second', async ({ expect }) => {
    await using stage = await auditStage();
    const audit = await stage.open();
    for (let index = 0; index < 1_000; index += 1) audit.note(deed());
    expect(await stage.names()).toEqual([]);
    await stage.clock.advance(0);
    await vi.waitFor(async () => expect(await stage.lines()).toHaveLength(1_000));
    await audit.flush();
    audit.note(deed());
    await stage.clock.advance(99);
    expect(stage.clock.timers).toBe(1);
    await stage.clock.advance(1);
    await vi.waitFor(async () => expect(await stage.lines()).toHaveLength(1_001));
    await audit[Symbol.asyncDispose]();
  });

  test('what may not enter the log tells whoever reads the process’s log, once and without the value', async ({
    expect,
  }) => {
    await using stage = await auditStage();
    const secret = 'sk-hx-eyJhbGciOiJFZERTQSJ9';
    {
      await using audit = await stage.open();
      for (let index = 0; index < 3; index += 1) audit.note(deed({ actor: secret, object: '192.0.2.7' }));
      expect(await audit.tail(1)).toMatchObject([{ actor: 'removed', object: 'removed' }]);
    }
    expect(stage.told).toEqual([
      { level: 'error', event: 'audit.record.unfit', fields: { action: 'key.create', members: 'actor object' } },
    ]);
    expect((await stage.lines()).join()).not.toMatch(/eyJ|192\.0/);
  });

  test('to a log that is closed does nothing', async ({ expect }) => {
    await using stage = await auditStage();
    const audit = await stage.open();
    audit.note(deed());
    await audit[Symbol.asyncDispose]();
    audit.note(deed());
    await audit[Symbol.asyncDispose]();
    expect(await stage.lines()).toHaveLength(1);
  });
});

describe('files', () => {
  test('are the owner’s alone, in a directory that is closed to others', async ({ expect }) => {
    await using stage = await auditStage();
    await mkdir(stage.directory, { mode: 0o755 });
    await chmod(stage.directory, 0o755);
    await write(stage, 30, small);
    const modes = await Promise.all(
      ['', 'head.json', ...(await stage.names())].map(
        async (name) => (await stat(join(stage.directory, name))).mode & 0o777,
      ),
    );
    expect(modes).toEqual([0o700, ...modes.slice(1).map(() => 0o600)]);
    expect(modes.length).toBeGreaterThan(3);
  });

  test('follow one another when they are full, and the oldest go when there are too many', async ({ expect }) => {
    await using stage = await auditStage();
    await write(stage, 200, small);
    const names = await stage.names();
    const sizes = await Promise.all(names.map(async (name) => (await stage.read(name)).length));
    expect(Math.max(...sizes)).toBeLessThanOrEqual(small.fileMaxBytes);
    expect(sizes.reduce((sum, bytes) => sum + bytes)).toBeLessThanOrEqual(small.totalMaxBytes);
    const lines = await stage.lines();
    const trims = lines.filter((line) => line.includes('"audit.trim"'));
    expect(trims.length).toBeGreaterThan(0);
    expect(JSON.parse(trims.at(-1) ?? '')).toMatchObject({ actor: 'none', outcome: 'done', count: expect.any(Number) });
    expect((await verifyAudit(stage.directory))?.lines).toBe(lines.length);
  });

  test('whose removal was cut short are removed at the next start, and not counted meanwhile', async ({ expect }) => {
    await using stage = await auditStage();
    await write(stage, 6, { fileMaxBytes: 1_500 });
    const [oldest = ''] = await stage.names();
    const text = await stage.read(oldest);
    await write(stage, 30, small);
    expect(await stage.names()).not.toContain(oldest);
    const lines = await stage.lines();
    await writeFile(join(stage.directory, oldest), text);
    expect(await verifyAudit(stage.directory)).toMatchObject({ lines: lines.length });
    await write(stage, 0, small);
    expect(await stage.names()).not.toContain(oldest);
    expect(await stage.lines()).toEqual(lines);
  });

  test('are not removed because of a head that does not fit them', async ({ expect }) => {
    await using stage = await auditStage();
    await write(stage, 30, { fileMaxBytes: 1_500 });
    const lines = await stage.lines();
    const names = await stage.names();
    const head = join(stage.directory, 'head.json');
    const first = Number.parseInt(names.at(-1)?.slice(6) ?? '', 10);
    await writeFile(head, (await readFile(head, 'utf8')).replace('"number":0', `"number":${first}`));
    await write(stage, 0);
    expect(await stage.lines()).toEqual(lines);
    expect((await verifyAudit(stage.directory))?.finding).toBeDefined();
  });

  test('of which somebody removes the oldest while the log is open do not stop it', async ({ expect }) => {
    await using stage = await auditStage();
    await using audit = await stage.open(small);
    for (let index = 0; index < 60; index += 1) {
      audit.note(deed());
      await audit.flush();
      const [oldest, ...others] = await stage.names();
      if (oldest !== undefined && others.length > 1) await rm(join(stage.directory, oldest));
    }
    expect((await audit.tail(1))[0]?.number).toBeGreaterThanOrEqual(59);
    expect(stage.told.filter(({ event }) => event === 'audit.failed')).toEqual([]);
  });
});

describe('the next start', () => {
  test('goes on where the last one ended', async ({ expect }) => {
    await using stage = await auditStage();
    await write(stage, 3);
    await write(stage, 2);
    expect(await verifyAudit(stage.directory)).toMatchObject({ lines: 5, first: 0, last: { number: 4 } });
    expect(repairs(stage)).toEqual([]);
  });

  test('after lines were cut off at the end goes on, says so, and the gap stays to be found', async ({ expect }) => {
    await using stage = await auditStage();
    await write(stage, 5);
    const lines = await stage.lines();
    await truncate(join(stage.directory, 'audit-0.jsonl'), lines.slice(0, 3).join('\n').length + 1);
    expect((await verifyAudit(stage.directory))?.finding).toEqual({ fault: 'missing', number: 3, upTo: 4 });
    await write(stage, 1);
    const place = { file: 'audit-0.jsonl', line: 4 };
    expect((await verifyAudit(stage.directory))?.finding).toEqual({ fault: 'missing', number: 3, upTo: 4, place });
    expect(repairs(stage)).toEqual(['broken']);
    expect(await stage.lines()).toContainEqual(expect.stringContaining('"audit.repair"'));
  });

  test('after all files were removed goes on from the head, and they stay missed', async ({ expect }) => {
    await using stage = await auditStage();
    await write(stage, 5);
    await rm(join(stage.directory, 'audit-0.jsonl'));
    expect((await verifyAudit(stage.directory))?.finding).toEqual({ fault: 'missing', number: 0, upTo: 4 });
    await write(stage, 1);
    expect((await verifyAudit(stage.directory))?.finding).toMatchObject({ fault: 'missing', number: 0, upTo: 4 });
    expect(repairs(stage)).toEqual(['missing']);
  });

  test('after the head was lost or damaged takes the newest line for it, and says so in a line', async ({ expect }) => {
    for (const text of [undefined, '', '{', '{"format":1}', '{"format":"1"}']) {
      await using stage = await auditStage();
      await write(stage, 12, { fileMaxBytes: 1_500 });
      const head = join(stage.directory, 'head.json');
      if (text === undefined) await rm(head);
      else await writeFile(head, text);
      expect((await verifyAudit(stage.directory))?.finding).toEqual({ fault: 'headless', number: 11 });
      await write(stage, 1);
      expect(await verifyAudit(stage.directory)).toMatchObject({ lines: 14, last: { number: 13 } });
      expect((await verifyAudit(stage.directory))?.finding).toBeUndefined();
      expect(repairs(stage)).toEqual(['headless']);
    }
  });

  test('keeps lines that were changed as they are, and they stay to be found', async ({ expect }) => {
    await using stage = await auditStage();
    await write(stage, 5);
    const path = join(stage.directory, 'audit-0.jsonl');
    const text = (await readFile(path, 'utf8')).replace('account:acct-2', 'account:acct-7');
    await writeFile(path, text);
    await write(stage, 2);
    expect((await readFile(path, 'utf8')).startsWith(text)).toBe(true);
    const place = { file: 'audit-0.jsonl', line: 3 };
    expect((await verifyAudit(stage.directory))?.finding).toEqual({ fault: 'changed', number: 2, place });
  });

  test('with a file of a later name planted goes on behind it', async ({ expect }) => {
    await using stage = await auditStage();
    await write(stage, 2);
    await writeFile(join(stage.directory, 'audit-900.jsonl'), '');
    await write(stage, 12, { fileMaxBytes: 1_500 });
    const [, second, third] = await stage.names();
    expect(second).toBe('audit-900.jsonl');
    expect(Number.parseInt(third?.slice(6) ?? '', 10)).toBeGreaterThan(900);
    expect((await verifyAudit(stage.directory))?.finding).toMatchObject({ fault: 'missing', number: 2, upTo: 899 });
  });

  test('of an older version is refused', async ({ expect }) => {
    await using stage = await auditStage();
    await write(stage, 1);
    const head = join(stage.directory, 'head.json');
    await writeFile(head, (await readFile(head, 'utf8')).replace('"format":1', '"format":2'));
    const refused = { code: 'FORMAT_TOO_NEW', details: { path: head, found: 2, known: 1 } };
    await expect(stage.open()).rejects.toMatchObject(refused);
    await expect(verifyAudit(stage.directory)).rejects.toMatchObject(refused);
    await expect(readAuditTail(stage.directory, 1)).rejects.toMatchObject(refused);
  });

  test('in a place that cannot be used is refused', async ({ expect }) => {
    await using stage = await auditStage();
    await writeFile(stage.directory, '');
    const unusable = { code: 'DATA_DIR_UNUSABLE', details: { path: stage.directory } };
    await expect(stage.open()).rejects.toMatchObject(unusable);
    await expect(verifyAudit(stage.directory)).rejects.toMatchObject(unusable);
    await expect(readAuditTail(stage.directory, 1)).rejects.toMatchObject(unusable);
    await rm(stage.directory);
    await symlink(join(dirname(stage.directory), 'nowhere'), stage.directory);
    await expect(stage.open()).rejects.toMatchObject(unusable);
  });
});

describe('the tail', () => {
  test('is the newest lines, oldest first, over as many files as it takes', async ({ expect }) => {
    await using stage = await auditStage();
    await write(stage, 30, { fileMaxBytes: 1_500 });
    const numbers = async (count: number) => (await readAuditTail(stage.directory, count))?.map(({ number }) => number);
    expect(await numbers(0)).toEqual([]);
    expect(await numbers(1)).toEqual([29]);
    expect(await numbers(12)).toEqual(Array.from({ length: 12 }, (_, index) => 18 + index));
    expect(await numbers(1_000)).toHaveLength(30);
  });

  test('leaves out what is no line, and there is none where there is no log', async ({ expect }) => {
    await using stage = await auditStage();
    expect(await readAuditTail(stage.directory, 5)).toBeUndefined();
    await write(stage, 2);
    const path = join(stage.directory, 'audit-0.jsonl');
    const text = await readFile(path, 'latin1');
    await writeFile(path, `\u001b[2J\n${'x'.repeat(100_000)}\n${text}{"number":2`, 'latin1');
    expect((await readAuditTail(stage.directory, 5))?.map(({ number }) => number)).toEqual([0, 1]);
  });
});
