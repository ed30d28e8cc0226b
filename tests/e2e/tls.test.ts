/** The door behind TLS: a real client that checks the certificate, and a certificate that is replaced while it runs. */

import { writeFileSync } from 'node:fs';
import https from 'node:https';
import { test } from 'vitest';
import { selfSigned } from '../support/certificate.ts';
import { Daemons, until } from '../support/daemons.ts';

/** Status of a GET by a client that trusts `ca` alone; the error's code when the handshake fails. */
const get = (url: string, options: https.RequestOptions): Promise<number | string> =>
  new Promise((resolve) => {
    https
      .get(url, { ...options, agent: false }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      })
      .once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });

test('the door speaks TLS 1.3 alone, and takes a new certificate without a restart', async ({ expect }) => {
  await using daemons = new Daemons();
  const [certFile, keyFile] = [daemons.path('door.crt'), daemons.path('door.key')];
  const [first, second] = [selfSigned(), selfSigned()];
  const put = ({ cert, key }: { cert: string; key: string }): void => {
    writeFileSync(keyFile, key, { mode: 0o600 });
    writeFileSync(certFile, cert);
  };
  put(first);
  await daemons.json(['mesh', 'create', '--data-dir', daemons.path('gateway')]);
  const tls = ['--tls-cert', certFile, '--tls-key', keyFile, '--admin-listen', '127.0.0.1:0'];
  const gateway = await daemons.start('gateway', ['gateway', '--port', '0', ...tls]);
  const baseUrl = String(gateway.ready['baseUrl']);
  expect([new URL(baseUrl).protocol, new URL(String(gateway.ready['adminUrl'])).protocol]).toEqual([
    'https:',
    'https:',
  ]);
  const { key } = await daemons.json(['keys', 'create', '--data-dir', gateway.dir]);
  const headers = { authorization: `Bearer ${String(key)}` };
  const models = `${baseUrl}/models`;
  expect(await get(models, { ca: first.cert, headers })).toBe(200);
  expect(await get(models, { ca: second.cert, headers })).not.toBe(200);
  expect(await get(models, { ca: first.cert, headers, maxVersion: 'TLSv1.2' })).not.toBe(200);
  const shown = (await gateway.status())['gateway'] as { tls: Record<string, unknown> };
  expect(shown.tls).toMatchObject({ state: 'valid', minVersion: 'TLSv1.3', names: ['localhost', '127.0.0.1'] });
  put(second);
  await until(async () => ((await get(models, { ca: second.cert, headers })) === 200 ? true : undefined), 20_000);
});

test('half a pair, and a pair that is none, stop the start', async ({ expect }) => {
  await using daemons = new Daemons();
  const dir = daemons.path('gateway');
  await daemons.json(['mesh', 'create', '--data-dir', dir]);
  const file = daemons.path('garbage');
  writeFileSync(file, 'garbage');
  for (const tls of [
    ['--tls-cert', file],
    ['--tls-cert', file, '--tls-key', file],
  ]) {
    const { code } = await daemons.run(['gateway', '--port', '0', '--data-dir', dir, ...tls, '--json']);
    expect(code).toBe(2);
  }
});

test('a door that others reach in the clear is warned of, an operators’ door is refused', async ({ expect }) => {
  await using daemons = new Daemons();
  await daemons.json(['mesh', 'create', '--data-dir', daemons.path('gateway')]);
  const open = ['gateway', '--port', '0', '--host', '0.0.0.0'];
  const gateway = await daemons.start('gateway', open);
  expect(gateway.output.stderr).toContain('"event":"door.plain"');
  gateway.kill('SIGTERM');
  expect(await gateway.exited()).toBe(0);
  const admin = ['--admin-listen', '0.0.0.0:0', '--data-dir', daemons.path('gateway'), '--json'];
  expect(await daemons.run([...open, ...admin])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('--tls-cert'),
  });
});
