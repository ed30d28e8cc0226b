/** Daemons as child processes: how they start, what they say of themselves, and how they end. */

import { readdir, readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { localAddress } from '../../cli/run-gateway.ts';
import { jsonLine, type RunningCli, runCli, startCli } from './run-cli.ts';
import { tempDir } from './temp-dir.ts';

const local = ['--p2p-host', '127.0.0.1', '--json'];
const gatewayAt = (path: string, ...more: string[]): string[] => [
  'gateway',
  '--port',
  '0',
  '--data-dir',
  path,
  ...local,
  ...more,
];
const syntheticAt = (path: string, ...more: string[]): string[] => [
  'node',
  '--engine',
  'synthetic',
  '--data-dir',
  path,
  ...local,
  ...more,
];
const upAt = (path: string, ...more: string[]): string[] => [
  'up',
  '--engine',
  'synthetic',
  '--port',
  '0',
  '--json',
  '--data-dir',
  path,
  ...more,
];

interface Ready {
  readonly baseUrl: string;
  readonly apiKey: string;
  readonly peerId: string;
  readonly p2pPort: number;
  readonly metricsUrl: string;
  readonly models: readonly string[];
}

const readyOf = async (cli: RunningCli): Promise<Ready> => (await cli.ready()) as never;

const chat = (baseUrl: string, key: string, body: object): Promise<Response> =>
  fetch(`${baseUrl}/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'synthetic', messages: [{ role: 'user', content: 'hi' }], ...body }),
  });

const invite = async (path: string, role: string): Promise<string> =>
  String(jsonLine((await runCli(['mesh', 'invite', '--role', role, '--data-dir', path, '--json'])).stdout)['token']);

const statusOf = async (path: string): Promise<Record<string, never>> =>
  jsonLine((await runCli(['status', '--data-dir', path, '--json'])).stdout) as never;

/** What the daemon's metrics port says. */
const metricsOf = async (cli: RunningCli): Promise<string> =>
  await (await fetch((await readyOf(cli)).metricsUrl)).text();

const killed = async (cli: RunningCli, signal: NodeJS.Signals): Promise<number | null> => {
  cli.child.kill(signal);
  return (await cli.ended).code;
};

describe('up', () => {
  test('says one line, serves, keeps its key, and ends with 0', async ({ expect }) => {
    await using dir = await tempDir();
    await using first = startCli(upAt(dir.path));
    const { baseUrl, apiKey, models } = await readyOf(first);
    expect(models).toEqual(['synthetic']);
    const answer = await chat(baseUrl, apiKey, { max_tokens: 3 });
    expect(answer.status).toBe(200);
    await answer.json();
    expect((await stat(join(dir.path, 'gateway/local-key.json'))).mode & 0o777).toBe(0o600);
    expect(await killed(first, 'SIGINT')).toBe(0);
    expect(jsonLine(first.stdout())).toEqual({ event: 'ready', baseUrl, apiKey, models });
    expect(first.stderr()).not.toContain(apiKey);
    await using second = startCli(upAt(dir.path));
    expect((await readyOf(second)).apiKey).toBe(apiKey);
  });

  test('is one mesh whatever address its peers listen on', async ({ expect }) => {
    expect(['0.0.0.0', '127.0.0.2', '::', '::1', 'fd00::7'].map((host) => localAddress(host, 7))).toEqual([
      '/ip4/127.0.0.1/tcp/7',
      '/ip4/127.0.0.2/tcp/7',
      '/ip6/::1/tcp/7',
      '/ip6/::1/tcp/7',
      '/ip6/fd00::7/tcp/7',
    ]);
    await using dir = await tempDir();
    await using up = startCli(upAt(dir.path, '--p2p-host', '127.0.0.2'));
    expect((await readyOf(up)).models).toEqual(['synthetic']);
  });

  test('serves the embedded model to people who gave no option', async ({ expect }) => {
    await using dir = await tempDir();
    await using up = startCli(['up', '--port', '0', '--data-dir', dir.path]);
    await expect.poll(() => up.stdout(), { timeout: 20_000 }).toContain('Requests:');
    const key = /API key\s+(\S+)/.exec(up.stdout())?.[1] ?? '';
    const baseUrl = /Base URL\s+(\S+)/.exec(up.stdout())?.[1] ?? '';
    expect(up.stdout()).toMatch(/curl -N [\s\S]*import OpenAI[\s\S]*from openai import/);
    const answer = await chat(baseUrl, key, { model: 'helix-tiny', max_tokens: 4 });
    expect(await answer.json()).toMatchObject({ usage: { completion_tokens: expect.any(Number) } });
    await expect.poll(() => up.stderr()).toMatch(/POST \/v1\/chat\/completions 200 helix-tiny \d+\+\d+ tokens \d+ ms/);
    expect(await killed(up, 'SIGTERM')).toBe(0);
  });

  test('a second one on the same directory says who holds it', async ({ expect }) => {
    await using dir = await tempDir();
    await using first = startCli(upAt(dir.path));
    await first.ready();
    const { code, stdout, stderr } = await runCli(upAt(dir.path));
    expect({ code, stdout }).toEqual({ code: 5, stdout: '' });
    const { details } = jsonLine(stderr) as { details: { holder: string } };
    expect(details.holder).toMatch(new RegExp(`^helixflow up \\(pid ${first.child.pid}, since 20`));
  });

  test('a port in use, and a model file that is none, end it with one line', async ({ expect }) => {
    await using dir = await tempDir();
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const taken = await runCli([
      'up',
      '--port',
      String(port),
      '--json',
      '--log-level',
      'silent',
      '--data-dir',
      dir.path,
    ]);
    await new Promise((resolve) => server.close(resolve));
    expect([taken.code, jsonLine(taken.stderr)['code']]).toEqual([5, 'PORT_IN_USE']);
    const model = await runCli([
      'up',
      '--model',
      import.meta.filename,
      '--port',
      '0',
      '--json',
      '--log-level',
      'silent',
      '--data-dir',
      dir.path,
    ]);
    expect([model.code, jsonLine(model.stderr)['code']]).toEqual([1, 'MODEL_FILE_INVALID']);
  });

  test('finishes the stream under way, and stops at once when asked twice', async ({ expect }) => {
    await using dir = await tempDir();
    await using up = startCli(upAt(dir.path, '--tokens-per-second', '20'));
    const { baseUrl, apiKey } = await readyOf(up);
    const answer = await chat(baseUrl, apiKey, { stream: true, max_tokens: 20 });
    up.child.kill('SIGINT');
    expect(await answer.text()).toMatch(/data: \[DONE\]\n\n$/);
    expect((await up.ended).code).toBe(0);

    await using again = startCli(upAt(dir.path, '--tokens-per-second', '20'));
    const ready = await readyOf(again);
    const cut = await chat(ready.baseUrl, ready.apiKey, { stream: true, max_tokens: 100_000 });
    again.child.kill('SIGINT');
    const readyz = new URL('/readyz', ready.baseUrl);
    await expect.poll(async () => (await fetch(readyz)).status).toBe(503);
    // What comes sooner is taken for an echo of the first one.
    const askAgain = (): number | null => {
      again.child.kill('SIGINT');
      return again.child.exitCode;
    };
    await expect.poll(askAgain, { interval: 150 }).toBe(130);
    await expect(cut.text()).rejects.toThrow();
  });
});

describe('separate processes', () => {
  test('a gateway, a node and a second gateway find each other by invites', async ({ expect }) => {
    await using dir = await tempDir();
    const at = (name: string): string => join(dir.path, name);
    const create = ['mesh', 'create', '--open', '--name', 'lab', '--data-dir', at('g1'), '--json'];
    expect((await runCli(create)).code).toBe(0);
    await using first = startCli(gatewayAt(at('g1'), '--metrics-listen', '127.0.0.1:0'));
    const { baseUrl, p2pPort, peerId } = await readyOf(first);

    const metrics = ['--metrics-listen', '127.0.0.1:0'];
    await using node = startCli(syntheticAt(at('n'), '--join', '-', ...metrics), {
      stdin: `${await invite(at('g1'), 'node')}\n`,
    });
    const env = { HELIXFLOW_JOIN: await invite(at('g1'), 'gateway') };
    await using second = startCli(gatewayAt(at('g2')), { env });
    expect(await readyOf(node)).toMatchObject({ event: 'ready', models: ['synthetic'] });
    const other = await readyOf(second);
    for (const name of ['g1', 'n', 'g2']) {
      const { stdout } = await runCli(['mesh', 'show', '--data-dir', at(name), '--json']);
      expect(jsonLine(stdout)).toMatchObject({ name: 'lab', open: true });
    }

    const { key } = jsonLine((await runCli(['keys', 'create', '--data-dir', at('g1'), '--json'])).stdout);
    expect((await chat(baseUrl, String(key), { max_tokens: 2 })).status).toBe(200);
    await expect
      .poll(async () => (await chat(other.baseUrl, String(key), { max_tokens: 2 })).status, { timeout: 10_000 })
      .toBe(200);

    const status = await statusOf(at('g2'));
    expect(status).toMatchObject({
      schemaVersion: 1,
      command: 'gateway',
      pid: second.child.pid,
      mesh: { network: 'lan' },
      gateway: {
        baseUrl: other.baseUrl,
        membership: { state: 'valid' },
        models: [{ name: 'synthetic', nodes: 1 }],
        nodes: [{ peer: (await readyOf(node)).peerId }],
      },
    });
    expect(await metricsOf(first)).toMatch(/^helixflow_gateway_providers\{model="synthetic"\} 1$/m);
    expect(await metricsOf(node)).toMatch(/^helixflow_node_attempts_total\{outcome="done"\} [1-9]/m);
    expect((await statusOf(at('n')))['node']).toMatchObject({ offeredTo: expect.arrayContaining([peerId]) });

    expect(await killed(first, 'SIGTERM')).toBe(0);
    await using restarted = startCli(gatewayAt(at('g1')));
    expect(await readyOf(restarted)).toMatchObject({ peerId, p2pPort });
    await expect
      .poll(async () => (await chat((await readyOf(restarted)).baseUrl, String(key), { max_tokens: 2 })).status, {
        timeout: 15_000,
      })
      .toBe(200);

    for (const cli of [node, second, restarted]) {
      expect(await killed(cli, 'SIGTERM')).toBe(0);
      expect(cli.stderr()).not.toContain(String(key));
      expect(cli.stderr()).not.toContain('hx-invite-');
    }
    // The membership is kept: neither the invite nor any other word is needed again.
    const membership = await readFile(join(at('n'), 'node/membership.json'), 'utf8');
    expect(JSON.parse(membership)).toMatchObject({ format: 1 });
  });

  test('a gateway that cannot reach its mesh answers HTTP and keeps trying', async ({ expect }) => {
    await using dir = await tempDir();
    const at = (name: string): string => join(dir.path, name);
    await runCli(['mesh', 'create', '--data-dir', at('g1'), '--json']);
    await using first = startCli(gatewayAt(at('g1')));
    await first.ready();
    const token = await invite(at('g1'), 'gateway');
    expect(await killed(first, 'SIGTERM')).toBe(0);

    await using lonely = startCli(gatewayAt(at('g2'), '--join', token));
    const { baseUrl } = await readyOf(lonely);
    expect((await fetch(new URL('/livez', baseUrl))).status).toBe(200);
    await expect.poll(() => lonely.stderr(), { timeout: 15_000 }).toContain('join.waiting');
    expect((await statusOf(at('g2')))['gateway']).toMatchObject({ membership: { state: 'joining' } });

    await using back = startCli(gatewayAt(at('g1')));
    await back.ready();
    await expect.poll(() => lonely.stderr(), { timeout: 20_000 }).toContain('join.done');
    expect((await statusOf(at('g2')))['gateway']).toMatchObject({ membership: { state: 'valid' } });
  });

  test('an archive is a gateway that no client reaches', async ({ expect }) => {
    await using dir = await tempDir();
    const at = join(dir.path, 'g');
    await runCli(['mesh', 'create', '--data-dir', at, '--json']);
    await using archive = startCli(gatewayAt(at, '--no-http', '--host', '192.0.2.1'));
    expect(await readyOf(archive)).toMatchObject({ event: 'ready', peerId: expect.any(String) });
    const { gateway } = await statusOf(at);
    expect(gateway).toMatchObject({ ready: true });
    expect(gateway).not.toHaveProperty('baseUrl');
  });

  test('a gateway notes for commands what they did with keys beside it', async ({ expect }) => {
    await using dir = await tempDir();
    await runCli(['mesh', 'create', '--data-dir', dir.path]);
    await using gateway = startCli(gatewayAt(dir.path));
    await readyOf(gateway);
    const at = async (...words: string[]): Promise<Record<string, unknown>> =>
      jsonLine((await runCli([...words, '--data-dir', dir.path, '--json'])).stdout);
    const { meshId } = await at('mesh', 'backup', '--plain', '--out', join(dir.path, 'backup.json'));
    const { issuer } = await at('mesh', 'handover', '--prepare');
    await at('mesh', 'handover', '--prepare');
    expect(await killed(gateway, 'SIGTERM')).toBe(0);
    const { stdout } = await runCli(['audit', 'tail', '--data-dir', dir.path, '--json']);
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const noted = lines.map(({ action, actor, object }) => [action, actor, object]);
    expect(noted.filter(([action]) => action === 'mesh.backup' || action === 'handover.prepare')).toEqual([
      ['mesh.backup', 'local', `mesh:${meshId}`],
      ['handover.prepare', 'local', `issuer:${issuer}`],
    ]);
  });

  test('a gateway and a node without mesh or invite name what is missing', async ({ expect }) => {
    await using dir = await tempDir();
    const results = await Promise.all([
      runCli(gatewayAt(join(dir.path, 'g'))),
      runCli(syntheticAt(join(dir.path, 'n'))),
    ]);
    expect(results.map(({ code, stderr }) => [code, jsonLine(stderr)['code']])).toEqual([
      [2, 'MESH_MISSING'],
      [2, 'MESH_MISSING'],
    ]);
    expect(await readdir(dir.path, { recursive: true })).toEqual(['g', 'n']);
  });
});
