/** `helixflow audit`: reading the log of a directory, whether or not somebody writes it. */

import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test, vi } from 'vitest';
import { type AuditLog, openAuditLog } from '../../ledger/adapters/audit-files.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { createLog } from '../../protocol/adapters/log.ts';
import { runHere } from './in-process.ts';
import { jsonLine, runCli, startCli } from './run-cli.ts';
import { tempDir } from './temp-dir.ts';

const log = createLog({ level: 'silent', destination: 'stderr' });
const keyAt = (index: number): string => `key:${index.toString(16).padStart(16, '0')}`;

function noteKeys(audit: AuditLog, from: number, to: number): void {
  for (let index = from; index < to; index += 1) {
    audit.note({ action: 'key.create', actor: 'local', object: keyAt(index), outcome: 'done', reason: '' });
  }
}

/** A data directory whose audit log has `count` lines in several files. */
async function directory(count: number) {
  const dir = await tempDir();
  const audit = join(dir.path, 'audit');
  const open = () => openAuditLog(audit, { clock: systemClock(), log }, { fileMaxBytes: 1_500 });
  await using writer = await open();
  noteKeys(writer, 0, count);
  return {
    path: dir.path,
    audit,
    open,
    args: ['--data-dir', dir.path],
    [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose](),
  };
}

/** The file that holds line `number`, and where it stands there. */
async function fileOf(
  audit: string,
  number: number,
): Promise<{ path: string; name: string; at: number; lines: string[] }> {
  const firsts = (await readdir(audit)).flatMap((name) => /^audit-(\d+)\.jsonl$/.exec(name)?.[1] ?? []).map(Number);
  const first = Math.max(...firsts.filter((each) => each <= number));
  const name = `audit-${first}.jsonl`;
  const path = join(audit, name);
  return { path, name, at: number - first, lines: (await readFile(path, 'latin1')).split('\n') };
}

const objectsOf = (stdout: string): unknown[] =>
  stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line).object);

describe('audit verify', () => {
  test('follows all files, and prints a line to write down', async ({ expect }) => {
    await using dir = await directory(25);
    expect((await readdir(dir.audit)).length).toBeGreaterThan(3);
    const { code, value } = await runHere(['audit', 'verify', ...dir.args]);
    const last = { number: 24, hash: expect.stringMatching(/^[0-9a-f]{64}$/) };
    expect([code, value]).toEqual([0, { ok: true, lines: 25, first: 0, last, torn: false }]);
  });

  test('ends with 6 and names the file and the line that was changed', async ({ expect }) => {
    await using dir = await directory(25);
    const { path, name, at, lines } = await fileOf(dir.audit, 13);
    lines[at] = lines[at]!.replace('"done"', '"failed"');
    await writeFile(path, lines.join('\n'));
    const { code, stdout, stderr } = await runCli(['audit', 'verify', ...dir.args, '--json']);
    expect(code).toBe(6);
    const finding = { fault: 'changed', number: 13, place: { file: name, line: at + 1 } };
    expect(jsonLine(stdout)).toMatchObject({ ok: false, finding });
    expect(jsonLine(stderr)).toMatchObject({ event: 'error', code: 'CHECK_FAILED' });
  });

  test('names lines that were removed, moved, or cut off at the end', async ({ expect }) => {
    const damage = {
      missing: (lines: string[], at: number) => lines.toSpliced(at, 1),
      misplaced: (lines: string[], at: number) => lines.with(at, lines[at - 1]!).with(at - 1, lines[at]!),
    };
    for (const [fault, change] of Object.entries(damage)) {
      await using dir = await directory(25);
      const { path, lines, at } = await fileOf(dir.audit, 13);
      await writeFile(path, change(lines, at).join('\n'));
      const { value, error } = await runHere(['audit', 'verify', ...dir.args]);
      expect([error, value]).toEqual(['CHECK_FAILED', expect.objectContaining({ ok: false })]);
      expect(value['finding']).toMatchObject({ fault, number: 13 });
    }
    await using dir = await directory(25);
    await rm((await fileOf(dir.audit, 24)).path);
    const { value, error } = await runHere(['audit', 'verify', ...dir.args]);
    expect([error, value['finding']]).toEqual([
      'CHECK_FAILED',
      expect.objectContaining({ fault: 'missing', upTo: 24 }),
    ]);
  });

  test('finds a log that was rewritten as a whole by a line that was written down before', async ({ expect }) => {
    await using real = await directory(25);
    const { value } = await runHere(['audit', 'verify', ...real.args]);
    const { number, hash } = value['last'] as { number: number; hash: string };
    const anchor = ['--anchor', `${number}:${hash}`];
    expect((await runHere(['audit', 'verify', ...real.args, ...anchor])).code).toBe(0);
    await rm(real.audit, { recursive: true });
    {
      await using forger = await real.open();
      noteKeys(forger, 100, 130);
    }
    expect((await runHere(['audit', 'verify', ...real.args])).code).toBe(0);
    const again = await runHere(['audit', 'verify', ...real.args, ...anchor]);
    expect([again.error, again.value['finding']]).toEqual([
      'CHECK_FAILED',
      expect.objectContaining({ fault: 'changed', number: 24 }),
    ]);
  });

  test('refuses an anchor that is none', async ({ expect }) => {
    await using dir = await directory(1);
    const { code, error } = await runHere(['audit', 'verify', ...dir.args, '--anchor', '1:abc']);
    expect([code, error]).toEqual([2, 'CONFIG_INVALID']);
  });

  test('tells people what was found and where', async ({ expect }) => {
    await using dir = await directory(5);
    const { path, lines } = await fileOf(dir.audit, 2);
    await writeFile(path, ['garbage', ...lines].join('\n'));
    const { code, stdout, stderr } = await runCli(['audit', 'verify', ...dir.args]);
    expect(code).toBe(6);
    expect(stdout).toContain('(audit-0.jsonl:1) is no line of the log');
    expect(stderr).toContain('CHECK_FAILED');
  });
});

describe('audit tail', () => {
  test('prints the newest lines in order, one JSON line each', async ({ expect }) => {
    await using dir = await directory(25);
    const { code, stdout } = await runCli(['audit', 'tail', ...dir.args, '--lines', '3', '--json']);
    expect([code, objectsOf(stdout)]).toEqual([0, [22, 23, 24].map(keyAt)]);
    expect(JSON.parse(stdout.split('\n')[0] ?? '')).toMatchObject({ number: 22, time: expect.stringMatching(/Z$/) });
  });

  test('prints a line for people, in which nothing can steer a terminal', async ({ expect }) => {
    await using dir = await directory(1);
    const { path, lines } = await fileOf(dir.audit, 0);
    await writeFile(path, lines.join('\n').replace('"actor":"local"', '"actor":"\\u001b[2Jlocal"'));
    const { stdout } = await runCli(['audit', 'tail', ...dir.args]);
    expect(stdout).toContain(`key.create        ?[2Jlocal → ${keyAt(0)}`);
  });

  test('follows what another process writes, over the end of a file, until it is interrupted', async ({ expect }) => {
    await using dir = await directory(2);
    await using follower = startCli(['audit', 'tail', ...dir.args, '--follow', '--json']);
    await follower.ready();
    await using writer = await dir.open();
    noteKeys(writer, 2, 20);
    const all = Array.from({ length: 20 }, (_, index) => keyAt(index));
    await vi.waitFor(() => expect(objectsOf(follower.stdout().replace(/[^\n]*$/, ''))).toEqual(all), 10_000);
    follower.child.kill('SIGINT');
    expect((await follower.ended).code).toBe(0);
  });
});

test('a directory without a log ends with 3, and one of a newer version with 1', async ({ expect }) => {
  await using dir = await tempDir();
  for (const command of ['tail', 'verify']) {
    const { code, error } = await runHere(['audit', command, '--data-dir', dir.path]);
    expect([code, error]).toEqual([3, 'SUBJECT_UNKNOWN']);
  }
  await mkdir(join(dir.path, 'audit'));
  await writeFile(join(dir.path, 'audit', 'head.json'), '{"format":2}\n');
  for (const command of ['tail', 'verify']) {
    expect((await runHere(['audit', command, '--data-dir', dir.path])).error).toBe('FORMAT_TOO_NEW');
  }
});
