/** The real log: what its lines hold, what they never hold, and that none is lost when the process ends. */

import { spawnSync } from 'node:child_process';
import { test } from 'vitest';

interface Line {
  readonly [field: string]: unknown;
}

const url = (path: string): string => JSON.stringify(new URL(`../../${path}`, import.meta.url).href);

/** Runs `body` with a log named `log` in a process of its own; what it wrote to stderr, and to stdout. */
function run(body: string, level = 'info'): { lines: Line[]; stdout: string } {
  const source = `
    import { createLog } from ${url('protocol/adapters/log.ts')};
    import { HelixFlowError } from ${url('protocol/errors.ts')};
    const log = createLog({ level: '${level}', destination: 'stderr', fields: { area: 'test' } });
    ${body}`;
  const { stderr, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' });
  const lines = stderr.split('\n').filter((line) => line !== '');
  return { lines: lines.map((line) => JSON.parse(line) as Line), stdout };
}

test('a line has a time, a level, an event and its fields, on stderr only', ({ expect }) => {
  const { lines, stdout } = run(`log.info('session.ready', { peer: 'p', ours: true, tokens: 3, none: undefined });`);
  expect(stdout).toBe('');
  expect(lines).toEqual([
    {
      level: 'info',
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      area: 'test',
      event: 'session.ready',
      peer: 'p',
      ours: true,
      tokens: 3,
    },
  ]);
});

test('lines below the level are not written, and a silent log writes nothing', ({ expect }) => {
  const body = `log.debug('a'); log.info('b'); log.warn('c'); log.error('d');`;
  expect(run(body, 'warn').lines.map(({ event }) => event)).toEqual(['c', 'd']);
  expect(run(body, 'silent').lines).toEqual([]);
});

test('a log with fields of its own writes them on every line', ({ expect }) => {
  const { lines } = run(`const own = log.with({ request: 'r' }); own.info('a', { x: 1 }); log.info('b');`);
  expect(lines).toMatchObject([{ event: 'a', request: 'r', x: 1 }, { event: 'b' }]);
  expect(lines[1]).not.toHaveProperty('request');
});

test('nothing secret gets through, by name or by look', ({ expect }) => {
  const key = 'sk-hx-eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlc2lnbmF0dXJl';
  const { lines } = run(`
    log.info('named', { apiKey: 'abc', token: 'abc', authorization: 'abc', join: 'abc', prompt: 'my diary' });
    log.with({ cookie: 'abc' }).warn('looked', { a: 'used ${key} here', b: 'Authorization: Bearer abc.def' });
    log.error('error', {}, new HelixFlowError('CONFIG_INVALID', { reason: 'not a key: ${key}' }));
    log.error('thrown', {}, new Error('with ${key}'));`);
  const written = JSON.stringify(lines);
  for (const secret of ['abc', 'my diary', 'eyJzdWIiOiJ4In0', 'c2lnbmF0dXJl']) expect(written).not.toContain(secret);
  expect(lines.map(({ event }) => event)).toEqual(['named', 'looked', 'error', 'thrown']);
});

test('an operating error is told by code and details, an unexpected one by its stack', ({ expect }) => {
  const { lines } = run(`
    const cause = Object.assign(new Error('IO error'), { code: 'LEVEL_IO_ERROR' });
    log.error('store', { path: 'x' }, new HelixFlowError('STORE_FAILED', { reason: 'LEVEL_IO_ERROR' }, { cause }));
    log.error('surprise', {}, new TypeError('x is not a function'));
    log.error('odd', {}, 'a text');
    try { JSON.parse('my secret diary'); } catch (error) { log.error('parsed', {}, error); }`);
  expect(lines).toMatchObject([
    { error: 'STORE_FAILED', details: { reason: 'LEVEL_IO_ERROR' }, causes: ['Error LEVEL_IO_ERROR'] },
    { error: 'TypeError', stack: expect.stringContaining('x is not a function') },
    { error: 'a text' },
    { error: 'SyntaxError' },
  ]);
  expect(lines[0]).not.toHaveProperty('stack');
  expect(JSON.stringify(lines[3])).not.toContain('diary');
});

test('the last lines are written, however the process ends', ({ expect }) => {
  const many = `for (let at = 0; at < 5000; at += 1) log.info('line', { at });`;
  expect(run(`${many} process.exit(3);`).lines.at(-1)).toMatchObject({ at: 4_999 });
  expect(run(`${many} process.kill(process.pid, 'SIGKILL');`).lines.at(-1)).toMatchObject({ at: 4_999 });
});
