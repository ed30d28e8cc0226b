/** The ledger of real processes: read while a daemon writes it, and as it lies there once that was killed. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { type Daemon, Daemons, errorCode, until } from '../support/daemons.ts';
import { entry } from './run-cli.ts';

let daemons: Daemons;
let gateway: Daemon;
let key: string;

const at = (...words: string[]): Promise<Record<string, unknown>> =>
  daemons.json([...words, '--data-dir', gateway.dir]);

async function ask(count: number): Promise<void> {
  for (let left = count; left > 0; left -= 1) {
    const response = await fetch(`${String(gateway.ready['baseUrl'])}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'synthetic', max_tokens: 5, messages: [{ role: 'user', content: 'hello' }] }),
    });
    if (response.status !== 200) throw new Error(`${response.status}: ${await response.text()}`);
    await response.arrayBuffer();
  }
}

/** Waits until the gateway has stated this many lines, and its node has signed them. */
const isTold = (lines: number): Promise<Record<string, unknown>> =>
  until(async () => {
    const status = await at('ledger', 'status');
    return status['lines'] === lines && status['statements'] === status['countersigned'] ? status : undefined;
  }, 20_000);

beforeAll(async () => {
  daemons = new Daemons();
  await daemons.json(['mesh', 'create', '--data-dir', daemons.path('gateway')]);
  gateway = await daemons.start('gateway', ['gateway', '--port', '0']);
  const { token } = await at('mesh', 'invite', '--role', 'node');
  await daemons.start('node', ['node', '--join', '-', '--engine', 'synthetic'], String(token));
  key = String((await at('keys', 'create'))['key']);
}, 60_000);

afterAll(() => daemons[Symbol.asyncDispose]());

describe('beside the daemon', () => {
  test('what was asked is told, checked and counted alike; the end of the feed can be followed', async ({ expect }) => {
    const tail = spawn(process.execPath, [entry, 'ledger', 'tail', '--follow', '--json', '--data-dir', gateway.dir], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let told = '';
    tail.stdout.setEncoding('utf8').on('data', (text: string) => {
      told += text;
    });
    await ask(3);
    await isTold(3);
    expect(await at('ledger', 'verify')).toMatchObject({ ok: true, lines: 3, requests: 3, problems: [] });
    expect(await at('ledger', 'reconcile')).toEqual({ ok: true, compared: ['counters'], differences: [] });
    await ask(1);
    await until(() => (told.trim().split('\n').length >= 4 ? true : undefined), 20_000);
    tail.kill('SIGINT');
    const [code] = (await once(tail, 'exit')) as [number];
    const lines = told
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as Record<string, unknown>);
    expect([code, lines.map(({ serial, outcome }) => [serial, outcome])]).toEqual([
      0,
      [1, 2, 3, 4].map((serial) => [serial, 'done']),
    ]);
  });

  test('a backup is made of what is there, and is checked alone; nothing is put back under it', async ({ expect }) => {
    const file = join(daemons.dir, 'live.backup');
    await at('ledger', 'backup', file);
    expect(await at('ledger', 'verify', '--from', file)).toMatchObject({ ok: true, problems: [] });
    const held = await daemons.run(['ledger', 'restore', file, '--data-dir', gateway.dir, '--json']);
    expect([held.code, errorCode(held)]).toEqual([5, 'DATA_DIR_HELD']);
  });
});

test('killed in the middle of its work, it leaves a ledger in which nothing is wrong', async ({ expect }) => {
  const before = Number((await at('ledger', 'status'))['lines']);
  await ask(5);
  gateway.kill('SIGKILL');
  await gateway.exited();
  const verdict = await at('ledger', 'verify');
  expect(verdict).toMatchObject({ ok: true, problems: [] });
  expect(Number(verdict['lines'])).toBeGreaterThanOrEqual(before);
  // The lines that were answered and not stated yet are stated by the next process.
  gateway = await daemons.start('gateway', ['gateway', '--port', '0']);
  await isTold(before + 5);
  expect(await at('ledger', 'verify')).toMatchObject({ ok: true, lines: before + 5, requests: before + 5 });
  expect(await at('ledger', 'reconcile')).toMatchObject({ ok: true });
});
