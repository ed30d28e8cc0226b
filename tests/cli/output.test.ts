/** Errors as people read them. */

import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { describe, test } from 'vitest';
import { columns } from '../../cli/lists.ts';
import { describeError } from '../../cli/output.ts';
import { commandIn } from '../../cli/program.ts';
import { errorTable } from '../../protocol/error-table.ts';
import { type ErrorCode, type ErrorDetails, errorCodes, HelixFlowError } from '../../protocol/errors.ts';
import { entry } from './run-cli.ts';

/** A detail for every placeholder of the code's sentence. */
const sample = (code: ErrorCode): HelixFlowError => {
  const names = [...errorTable[code].text.matchAll(/\{(\w+)\}/g)].map(([, name]) => [name, `<${name}>`]);
  return new HelixFlowError(code, Object.fromEntries(names) as ErrorDetails[ErrorCode]);
};

describe('an error for people', () => {
  test.each(errorCodes)('%s says what happened and what to do', (code) => {
    const lines = describeError(sample(code)).split('\n');
    const [what = '', ...rest] = lines;
    const form = rest.length === 2 ? /^ {2}why: \S.*\n {2}do: {2}\S.*$/ : /^ {2}do: {2}\S.*$/;
    if (!/^helixflow: \S.{3,} \([A-Z_]+\)$/.test(what)) throw new Error(what);
    if (!form.test(rest.join('\n'))) throw new Error(lines.join('\n'));
    for (const [, name] of errorTable[code].text.matchAll(/\{(\w+)\}/g)) {
      if (!lines.join('\n').includes(`<${name}>`)) throw new Error(`${name} is lost`);
    }
  });

  test('secrets in its details are cut, and words that only look like them are not', ({ expect }) => {
    const token = `eyJ${'a'.repeat(40)}.${'b'.repeat(40)}.${'c'.repeat(86)}`;
    for (const secret of [`sk-hx-${token}`, `hx-invite-${token}`, `hx-handover-grant-${'d'.repeat(90)}`, token]) {
      const text = describeError(new HelixFlowError('CONFIG_INVALID', { reason: `--x '${secret}': no` }));
      expect(text).toContain(`--x '${secret.slice(0, 12)}…': no`);
      expect(text).not.toContain(secret.slice(0, 13));
    }
    const cut = '<peer> sk-hx-eyJhbG…: expected a peer id';
    expect(describeError(new HelixFlowError('CONFIG_INVALID', { reason: cut }))).toContain(cut);
    const path = '/data/risk-assessment-models/a.eyes.of.b';
    expect(describeError(new HelixFlowError('DAEMON_UNREACHABLE', { path }))).toContain(path);
  });

  test('says where the ids are listed, and which command has help', ({ expect }) => {
    const unknown = new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'key', id: 'f'.repeat(16) });
    expect(describeError(unknown)).toContain('do:  helixflow keys ls lists the ids');
    const invalid = new HelixFlowError('CONFIG_INVALID', { reason: 'x' });
    const advice = ['keys set x', 'up --prot 1', 'keys', 'nonsense', ''].map(
      (line) => describeError(invalid, commandIn(line.split(' '))).split('  do:  ')[1],
    );
    expect(advice).toEqual([
      'helixflow keys set --help says how it is used',
      'helixflow up --help says how it is used',
      'helixflow keys --help says how it is used',
      ...Array(2).fill('helixflow --help lists the commands, helixflow <command> --help their options'),
    ]);
  });

  test('names the command that helps where what was asked for cannot be done', ({ expect }) => {
    const revoked = new HelixFlowError('REQUEST_MALFORMED', { reason: 'the key has been revoked' });
    const itself = new HelixFlowError('REQUEST_UNSUPPORTED', {
      param: 'peer',
      reason: 'this gateway cannot ban itself.',
    });
    expect(describeError(revoked, 'keys rotate')).toContain('do:  helixflow keys create makes a new key');
    expect(describeError(itself, 'mesh ban')).toContain('do:  helixflow mesh leave takes this machine out of the mesh');
    expect(describeError(revoked, 'keys set')).toContain('do:  helixflow keys set --help says how it is used');
    const typed = new HelixFlowError('CONFIG_INVALID', { reason: '--grace x: expected a duration' });
    expect(describeError(typed, 'keys rotate')).toContain('do:  helixflow keys rotate --help says how it is used');
  });

  test('details with the signs that part a sentence stay whole', ({ expect }) => {
    const error = new HelixFlowError('DATA_DIR_UNUSABLE', { path: '/a; b: c', reason: 'x; y: z' });
    expect(describeError(error)).toBe(
      [
        'helixflow: the data directory /a; b: c cannot be used (DATA_DIR_UNUSABLE)',
        '  why: x; y: z',
        '  do:  fix that, or use another --data-dir',
      ].join('\n'),
    );
  });
});

describe('a result', () => {
  const printed = (isJson: boolean, text: string): string => {
    const module = JSON.stringify(new URL('../../cli/output.ts', import.meta.url).href);
    const script = `import { createOutput } from ${module}; createOutput(${isJson}).data('value', ${JSON.stringify(text)});`;
    return execFileSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' });
  };

  test('for people keeps its lines, and nothing in them steers the terminal', ({ expect }) => {
    const evil = 'MODEL  COST\n\u001b]0;title\u0007\u001b[2Jm\r\u202e  1';
    expect([printed(false, evil), printed(true, evil)]).toEqual(['MODEL  COST\n?]0;title??[2Jm??  1\n', '"value"\n']);
  });

  test('may have more rows than a call may have arguments', ({ expect }) => {
    const rows = Array.from({ length: 200_000 }, (_, at) => [`${at}`, 'x']);
    expect(columns(['NUMBER', 'X'], rows).split('\n').slice(-1)).toEqual(['199999  x']);
  });
});

test.skipIf(!existsSync('/dev/full'))('output that cannot be written is an error in plain words', ({ expect }) => {
  const full = openSync('/dev/full', 'w');
  const { status, stderr } = spawnSync(process.execPath, [entry, 'version'], {
    stdio: ['ignore', full, 'pipe'],
    encoding: 'utf8',
  });
  closeSync(full);
  expect([status, stderr.split('\n')]).toEqual([
    1,
    [
      'helixflow: the output cannot be written (OUTPUT_FAILED)',
      '  why: the disk is full',
      '  do:  write it to another place',
      '',
    ],
  ]);
});
