/** The operators' door behind TLS: on any address, with the certificate of the clients' door. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch as undiciFetch } from 'undici';
import { test } from 'vitest';
import { startAdminServer } from '../../../gateway/http/admin.ts';
import { openTls } from '../../../gateway/http/tls.ts';
import { selfSigned } from '../../support/certificate.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { bearing, openAdmin } from './admin-door.ts';
import { recordingLog } from './fakes.ts';
import { Wire } from './sockets.ts';

const dayMs = 86_400_000;
const fresh = () => selfSigned({ fromMs: new ManualClock().wallMs() - dayMs });

/** An operators' door on every address of this machine, and the files of its certificate. */
async function openTlsDoor() {
  await using opened = new AsyncDisposableStack();
  const path = await mkdtemp(join(tmpdir(), 'hx-admin-tls-'));
  opened.defer(() => rm(path, { recursive: true, force: true }));
  const [certFile, keyFile] = [join(path, 'door.crt'), join(path, 'door.key')];
  const put = async ({ cert, key }: { cert: string; key: string }): Promise<void> => {
    await writeFile(keyFile, key, { mode: 0o600 });
    await writeFile(certFile, cert);
  };
  const first = fresh();
  await put(first);
  const clock = new ManualClock();
  const options = { certFile, keyFile, minVersion: 'TLSv1.3' } as const;
  const tls = opened.use(await openTls({ clock, log: recordingLog([]) }, options));
  const door = opened.use(openAdmin({}, { tls }));
  const listen = { host: '0.0.0.0', port: 0, option: '--admin-listen' };
  const server = opened.use(await startAdminServer(door.deps, listen));
  /** Status and answer of a GET by a client that trusts `ca` alone; the error's code when the handshake fails. */
  const ask = async (ca: string, connect: object = {}): Promise<unknown> => {
    const dispatcher = new Agent({ connect: { ca, ...connect } });
    try {
      const headers = bearing('sk-hx-admin');
      const answer = await undiciFetch(`${server.url}/status`, { headers, dispatcher });
      return [answer.status, await answer.json()];
    } catch (error) {
      return ((error as Error).cause as NodeJS.ErrnoException).code;
    } finally {
      await dispatcher.destroy();
    }
  };
  const parts = opened.move();
  return { door, server, tls, first, put, ask, [Symbol.asyncDispose]: () => parts.disposeAsync() };
}

test('listens anywhere, for TLS 1.3 alone', async ({ expect }) => {
  await using stage = await openTlsDoor();
  expect(stage.server.url).toBe(`https://127.0.0.1:${stage.server.port}/admin/v1`);
  expect(await stage.ask(stage.first.cert)).toEqual([200, { schemaVersion: 1 }]);
  expect(await stage.ask(fresh().cert)).toBe('DEPTH_ZERO_SELF_SIGNED_CERT');
  expect(await stage.ask(stage.first.cert, { maxVersion: 'TLSv1.2' })).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
});

test('gives no answer in the clear, and notes nothing of whoever asks so', async ({ expect }) => {
  await using stage = await openTlsDoor();
  using wire = await Wire.open(stage.server.port);
  wire.socket.write('GET /admin/v1/status HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-hx-admin\r\n\r\n');
  expect(await wire.closed()).not.toContain('HTTP/1.1');
  expect(stage.door.noted).toEqual([]);
});

test('takes a new certificate without a restart', async ({ expect }) => {
  await using stage = await openTlsDoor();
  const second = fresh();
  await stage.put(second);
  await stage.tls.check();
  expect(await stage.ask(second.cert)).toEqual([200, { schemaVersion: 1 }]);
  expect(await stage.ask(stage.first.cert)).toBe('DEPTH_ZERO_SELF_SIGNED_CERT');
});
