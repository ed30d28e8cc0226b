/** Passphrases: from a file, a variable or a terminal, where they are not shown. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, test } from 'vitest';
import { readPassphrase } from '../../cli/passphrase.ts';
import { askUnseen } from '../../cli/terminal.ts';
import { failure } from '../protocol/mesh-fixture.ts';
import { tempDir } from './temp-dir.ts';

/** A terminal that somebody types at. */
class Terminal extends PassThrough {
  readonly isTTY = true;
  readonly modes: boolean[] = [];
  shown = '';
  readonly screen = {
    write: (text: string): void => {
      this.shown += text;
    },
  };
  setRawMode(raw: boolean): void {
    this.modes.push(raw);
  }
  ask(): Promise<string | undefined> {
    return askUnseen(this, this.screen, 'Passphrase: ');
  }
}

describe('a question at the terminal', () => {
  test.each([
    ['secret\r', 'secret'],
    ['Größe\n', 'Größe'],
    ['ab\u007f\u007f\u007fcd😀\u0008e\r', 'cde'],
    ['\r', ''],
    ['half\u0004', 'half'],
    ['\u0004', undefined],
  ])('reads %j as %j, and shows nothing of it', async (typed, expected) => {
    const terminal = new Terminal();
    const answer = terminal.ask();
    for (const byte of Buffer.from(typed)) terminal.write(Buffer.from([byte]));
    if ((await answer) !== expected) throw new Error(`read ${await answer}`);
    if (terminal.shown !== 'Passphrase: \n') throw new Error(`showed ${terminal.shown}`);
    if (terminal.modes.join() !== 'true,false') throw new Error('the terminal is left raw');
  });

  test('is not asked where there is no terminal, and a hang-up is no answer', async ({ expect }) => {
    expect(await askUnseen(new PassThrough(), { write: () => {} }, '?')).toBeUndefined();
    const terminal = new Terminal();
    const answer = terminal.ask();
    terminal.end('half');
    expect(await answer).toBeUndefined();
  });
});

describe('a passphrase', () => {
  const use = { of: 'root key', env: 'HELIXFLOW_ROOT_PASSPHRASE', isNew: true };
  const typing = (...lines: (string | undefined)[]) => ({ readSecret: () => Promise.resolve(lines.shift()) });
  const nothing = { passphrase: undefined, passphraseFile: undefined };

  test('comes from the file, then the variable, then the terminal', async ({ expect }) => {
    await using dir = await tempDir();
    const passphraseFile = join(dir.path, 'p');
    await writeFile(passphraseFile, ' from the file \r\nsecond line');
    const both = { passphrase: 'variable', passphraseFile };
    expect(await readPassphrase(both, typing(), use)).toBe(' from the file ');
    expect(await readPassphrase({ ...both, passphraseFile: undefined }, typing(), use)).toBe('variable');
    expect(await readPassphrase(nothing, typing('typed', 'typed'), use)).toBe('typed');
    expect(await readPassphrase(nothing, typing('typed'), { ...use, isNew: false })).toBe('typed');
  });

  test('that is missing, empty, mistyped or in no file is refused', async ({ expect }) => {
    await using dir = await tempDir();
    const path = join(dir.path, 'empty');
    await writeFile(path, '\nsecond line');
    const attempts = [
      () => readPassphrase(nothing, typing(undefined), use),
      () => readPassphrase(nothing, typing(''), use),
      () => readPassphrase(nothing, typing('one', 'other'), use),
      () => readPassphrase({ ...nothing, passphraseFile: path }, typing(), use),
      () => readPassphrase({ ...nothing, passphraseFile: join(dir.path, 'none') }, typing(), use),
    ];
    for (const attempt of attempts) expect(await failure(attempt)).toMatchObject({ code: 'CONFIG_INVALID' });
  });
});
