/** The entry: which Node runs the CLI, and that nothing is lost on the way to it. */

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { describe, test } from 'vitest';
import { nodeCandidates, planLaunch } from '../../cli/launch.mjs';
import { jsonLine, runCli, startCli } from './run-cli.ts';
import { tempDir } from './temp-dir.ts';

describe('the decision', () => {
  const near = '/repo/node_modules/.bin/node';

  test.each(['24.12.0', '24.21.0', '25.0.0', '30.1.2'])('Node %s runs it', (version) => {
    const plan = planLaunch({ version, candidates: [near], isRelaunched: false });
    if (plan.kind !== 'run') throw new Error(plan.kind);
  });

  test.each(['14.21.3', '20.20.2', '22.22.0', '24.11.9'])(
    'Node %s gives way to the one that was installed',
    (version) => {
      const plan = planLaunch({ version, candidates: [near, '/far'], isRelaunched: false });
      if (plan.kind !== 'relaunch' || plan.node !== near) throw new Error(plan.kind);
    },
  );

  test('where none was installed, or the installed one is too old as well, one line says so', ({ expect }) => {
    for (const [candidates, isRelaunched] of [
      [[], false],
      [[near], true],
    ] as const) {
      const plan = planLaunch({ version: '20.0.0', candidates: [...candidates], isRelaunched });
      expect(plan).toEqual({
        kind: 'missing',
        message: expect.stringMatching(/^helixflow needs Node 24\.12 .*20\.0\.0.*$/),
      });
    }
  });

  test('the search goes from the entry up to the root', ({ expect }) => {
    expect(nodeCandidates(new URL('file:///a/b/cli/'), 'linux')).toEqual([
      '/a/b/cli/node_modules/.bin/node',
      '/a/b/node_modules/.bin/node',
      '/a/node_modules/.bin/node',
      '/node_modules/.bin/node',
    ]);
    expect(nodeCandidates(new URL('file:///a/'), 'win32')[0]).toMatch(/node\.exe$/);
  });
});

const systemNode = '/usr/bin/node';
const isOld = (): boolean => {
  const version = existsSync(systemNode) ? spawnSync(systemNode, ['--version'], { encoding: 'utf8' }).stdout : 'v99';
  return Number(version.slice(1).split('.')[0]) < 24;
};

// Runs only where the system brings a Node that is too old.
describe.runIf(isOld())('an old Node', () => {
  test('runs the command on the installed one', async ({ expect }) => {
    const { code, stdout, stderr } = await runCli(['version', '--json'], { node: systemNode });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(jsonLine(stdout)).toMatchObject({ nodeVersion: process.version });
  });

  test('passes exit codes and stdin through', async ({ expect }) => {
    await using dir = await tempDir();
    const options = { node: systemNode, stdin: 'garbage\n' };
    const { code, stderr } = await runCli(['node', '--join', '-', '--json', '--data-dir', dir.path], options);
    expect([code, jsonLine(stderr)['code']]).toEqual([4, 'INVITE_INVALID']);
  });

  test('passes signals through once, and its death as well', async ({ expect }) => {
    await using dir = await tempDir();
    const args = ['up', '--engine', 'synthetic', '--port', '0', '--json', '--data-dir', dir.path];
    await using first = startCli(args, { node: systemNode });
    await first.ready();
    first.child.kill('SIGTERM');
    expect((await first.ended).code).toBe(0);
    await using second = startCli(args, { node: systemNode });
    await second.ready();
    second.child.kill('SIGKILL');
    // The streams end only when the process behind has gone, too.
    await second.ended;
    await using third = startCli(args, { node: systemNode });
    expect(await third.ready()).toMatchObject({ event: 'ready' });
  });
});
