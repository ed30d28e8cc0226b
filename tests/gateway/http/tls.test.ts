/** TLS at the door: what is spoken, which files are taken, and what happens when they change. */

import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import OpenAI from 'openai';
import { Agent, fetch as undiciFetch } from 'undici';
import { describe, test, vi } from 'vitest';
import { startListening } from '../../../gateway/http/listen.ts';
import { openTls, type TlsOptions } from '../../../gateway/http/tls.ts';
import { unixMs } from '../../../protocol/units.ts';
import { selfSigned } from '../../support/certificate.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { chatBody, end, goodKey, type Logged, openApp, recordingLog, served, silent } from './fakes.ts';
import { Wire } from './sockets.ts';

interface Pem {
  readonly cert: string;
  readonly key: string;
}

const dayMs = 86_400_000;
/** Good by the clock of the tests and by that of the clients. */
const fresh = (): Pem => selfSigned({ fromMs: new ManualClock().wallMs() - dayMs });

/** Two files that tests write, and what reads them. */
async function pemFiles(pair: Partial<Pem>) {
  const path = await mkdtemp(join(tmpdir(), 'hx-tls-'));
  const certFile = join(path, 'door.crt');
  const keyFile = join(path, 'door.key');
  const put = async ({ cert, key }: Partial<Pem>): Promise<void> => {
    if (key !== undefined) await writeFile(keyFile, key, { mode: 0o600 });
    if (cert !== undefined) await writeFile(certFile, cert);
  };
  await put(pair);
  const clock = new ManualClock();
  const lines: Logged[] = [];
  const open = (minVersion: TlsOptions['minVersion'] = 'TLSv1.3') =>
    openTls({ clock, log: recordingLog(lines) }, { certFile, keyFile, minVersion });
  const events = (): string[] => lines.map(({ event }) => event);
  const remove = () => rm(path, { recursive: true, force: true });
  return { certFile, keyFile, put, clock, events, open, [Symbol.asyncDispose]: remove };
}

/** An app that listens with the certificate in the files. */
async function openDoor(minVersion?: TlsOptions['minVersion'], host = '127.0.0.1') {
  await using opened = new AsyncDisposableStack();
  const first = fresh();
  const files = opened.use(await pemFiles(first));
  const tls = opened.use(await files.open(minVersion));
  const fixture = opened.use(openApp({}, { tls }));
  const { port, baseUrl } = await startListening(fixture.app, fixture.clock, { host, port: 0, option: '--port' });
  const parts = opened.move();
  return { ...fixture, first, files, tls, port, baseUrl, [Symbol.asyncDispose]: () => parts.disposeAsync() };
}

/** Shakes hands as a client that trusts `ca` alone; the error's code when that fails. */
async function shake(
  port: number,
  options: ConnectionOptions,
  watch: (socket: TLSSocket) => void = () => {},
): Promise<TLSSocket | string> {
  const socket = connect({ port, host: '127.0.0.1', ...options });
  watch(socket);
  const refused = once(socket, 'error').then(([error]) => (error as NodeJS.ErrnoException).code ?? 'unknown');
  return await Promise.race([once(socket, 'secureConnect').then(() => socket), refused]);
}

/** What a handshake comes to. */
async function spoken(port: number, options: ConnectionOptions): Promise<string> {
  const result = await shake(port, options);
  if (typeof result === 'string') return result;
  const version = result.getProtocol() ?? 'none';
  result.destroy();
  return version;
}

describe('clients', () => {
  test('of the official SDK need nothing but to trust the certificate', async ({ expect }) => {
    await using door = await openDoor();
    expect(door.baseUrl).toBe(`https://127.0.0.1:${door.port}/v1`);
    const dispatcher = new Agent({ connect: { ca: door.first.cert } });
    const fetch = ((url: string, init: object) =>
      undiciFetch(url, { ...init, dispatcher })) as unknown as typeof globalThis.fetch;
    const client = new OpenAI({ apiKey: goodKey, baseURL: door.baseUrl, maxRetries: 0, fetch });
    const stream = await client.chat.completions.create({
      model: 'helix-tiny',
      messages: [{ role: 'user', content: 'Hi' }],
      stream: true,
    });
    const texts: string[] = [];
    for await (const chunk of stream) texts.push(chunk.choices[0]?.delta.content ?? '');
    expect(texts.join('')).toBe('Hello world');
    await dispatcher.destroy();
  });

  test('that do not trust it refuse', async ({ expect }) => {
    await using door = await openDoor();
    expect(await spoken(door.port, { ca: selfSigned().cert })).toBe('DEPTH_ZERO_SELF_SIGNED_CERT');
  });

  test('that speak TLS 1.2 at most are refused, unless it is allowed', async ({ expect }) => {
    await using strict = await openDoor();
    expect(await spoken(strict.port, { ca: strict.first.cert })).toBe('TLSv1.3');
    expect(await spoken(strict.port, { ca: strict.first.cert, maxVersion: 'TLSv1.2' })).toBe(
      'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
    );
    await using loose = await openDoor('TLSv1.2');
    expect(await spoken(loose.port, { ca: loose.first.cert, maxVersion: 'TLSv1.2' })).toBe('TLSv1.2');
    expect(await spoken(loose.port, { ca: loose.first.cert })).toBe('TLSv1.3');
  });

  test('of TLS 1.2 get forward secrecy and authenticated encryption, or nothing', async ({ expect }) => {
    await using door = await openDoor('TLSv1.2');
    const old = { ca: door.first.cert, maxVersion: 'TLSv1.2' } as const;
    expect(await spoken(door.port, { ...old, ciphers: 'ECDHE-ECDSA-AES128-SHA' })).toBe(
      'ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE',
    );
    expect(await spoken(door.port, { ...old, ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256' })).toBe('TLSv1.2');
  });

  test('that speak plain HTTP, or nothing known, are cut without an answer', async ({ expect }) => {
    await using door = await openDoor();
    for (const text of ['GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n', 'nothing known\r\n\r\n']) {
      using wire = await Wire.open(door.port);
      wire.socket.write(text);
      expect(await wire.closed()).not.toContain('HTTP/1.1');
    }
    expect(await spoken(door.port, { ca: door.first.cert })).toBe('TLSv1.3');
  });

  test('resume their sessions, until the keys of the tickets are an hour old', async ({ expect }) => {
    await using door = await openDoor();
    const { promise: ticket, resolve } = Promise.withResolvers<Buffer>();
    const isReused = async (options: ConnectionOptions): Promise<boolean> => {
      const socket = await shake(door.port, { ca: door.first.cert, ...options }, (made) => {
        made.once('session', resolve).resume();
      });
      if (typeof socket === 'string') throw new Error(socket);
      const answer = socket.isSessionReused();
      // Node tells of no further ticket in a session that was resumed.
      if (!answer) await ticket;
      socket.destroy();
      return answer;
    };
    expect(await isReused({})).toBe(false);
    const session = await ticket;
    expect(await isReused({ session })).toBe(true);
    await door.files.clock.advance(3_600_000);
    await door.tls.check();
    expect(await isReused({ session })).toBe(false);
  });
});

describe('files that change', () => {
  test('are served to whoever comes next, while a stream that is under way goes on', async ({ expect }) => {
    await using door = await openDoor();
    door.service.script = silent;
    const socket = await shake(door.port, { ca: door.first.cert });
    if (typeof socket === 'string') throw new Error(socket);
    using wire = new Wire(socket);
    wire.ask(chatBody({ stream: true }));
    await vi.waitUntil(() => door.service.calls.length === 1);
    const [call] = door.service.calls;
    call?.events.committed(served);
    call?.events.delta('one ');
    await vi.waitFor(() => expect(wire.text).toContain('one '));

    const second = fresh();
    await door.files.put(second);
    await door.files.clock.advance(5_000);
    await vi.waitUntil(() => door.files.events().includes('tls.taken'));
    expect(await spoken(door.port, { ca: second.cert })).toBe('TLSv1.3');
    expect(await spoken(door.port, { ca: door.first.cert })).toBe('DEPTH_ZERO_SELF_SIGNED_CERT');

    call?.events.delta('two');
    call?.events.done(end);
    await vi.waitFor(() => expect(wire.text).toContain('[DONE]'));
    expect(wire.text).toContain('two');
  });

  test('one after the other are taken together, and served as before until then', async ({ expect }) => {
    await using door = await openDoor();
    const second = fresh();
    const before = door.tls.status().fingerprint;
    await door.files.put({ key: second.key });
    await door.tls.check();
    await door.tls.check();
    expect(door.tls.status()).toMatchObject({ fingerprint: before, fault: expect.stringContaining('--tls-key') });
    expect(await spoken(door.port, { ca: door.first.cert })).toBe('TLSv1.3');
    await door.files.put({ cert: second.cert });
    await door.tls.check();
    expect(door.tls.status()).not.toHaveProperty('fault');
    expect(await spoken(door.port, { ca: second.cert })).toBe('TLSv1.3');
    expect(door.files.events()).toEqual(['tls.refused', 'tls.taken']);
  });

  test('that are cut short, garbage or gone are not taken', async ({ expect }) => {
    await using door = await openDoor();
    const before = door.tls.status().fingerprint;
    const { cert } = fresh();
    for (const broken of [cert.slice(0, 200), '', 'garbage', cert]) {
      await door.files.put({ cert: broken });
      await door.tls.check();
      expect(door.tls.status()).toMatchObject({ fingerprint: before, fault: expect.any(String) });
    }
    await rm(door.files.certFile);
    await door.tls.check();
    expect(door.tls.status().fault).toContain('does not exist');
    expect(await spoken(door.port, { ca: door.first.cert })).toBe('TLSv1.3');
    await door.files.put(door.first);
    await door.tls.check();
    expect(door.tls.status()).not.toHaveProperty('fault');
  });

  test('without a new content are not taken', async ({ expect }) => {
    await using door = await openDoor();
    await door.files.put(door.first);
    await door.tls.check();
    expect(door.files.events()).toEqual([]);
  });

  test('are no longer looked at when the door is closed', async ({ expect }) => {
    await using files = await pemFiles(fresh());
    const tls = await files.open();
    expect(files.clock.timers).toBe(1);
    const checking = tls.check();
    tls[Symbol.dispose]();
    await checking;
    expect(files.clock.timers).toBe(0);
  });
});

describe('a start is refused with CONFIG_INVALID', () => {
  const reasonOf = async (pair: Partial<Pem>): Promise<string> => {
    await using files = await pemFiles(pair);
    const opening = files.open();
    const error = await opening.then(
      () => undefined,
      (cause: { code: string; details: { reason: string } }) => cause,
    );
    return `${error?.code}: ${error?.details.reason}`;
  };
  const good = selfSigned();

  test('that names both files when both are at fault', async ({ expect }) => {
    const reason = await reasonOf({});
    expect(reason).toMatch(/^CONFIG_INVALID: --tls-cert \S+door\.crt: .*\n--tls-key \S+door\.key: /);
  });

  test('when the two do not belong together, or were swapped, or stand in the wrong order', async ({ expect }) => {
    expect(await reasonOf({ ...good, key: selfSigned().key })).toContain('not the key of the certificate');
    expect(await reasonOf({ cert: good.key, key: good.cert })).toContain('holds a key, not a certificate');
    expect(await reasonOf({ ...good, cert: selfSigned().cert + good.cert })).toContain('must come first');
  });

  test('when the key is encrypted, or either is no PEM', async ({ expect }) => {
    const cipher = { cipher: 'aes-256-cbc', passphrase: 'x', format: 'pem', type: 'pkcs8' } as const;
    const encrypted = createPrivateKey(good.key).export(cipher).toString();
    expect(await reasonOf({ ...good, key: encrypted })).toContain('it is encrypted');
    expect(await reasonOf({ ...good, key: 'garbage' })).toContain('no private key that can be read');
    expect(await reasonOf({ ...good, cert: 'garbage' })).toContain('no certificate in PEM form');
    const broken = good.cert.replace(/\n.{8}/, '\nAAAAAAAA');
    expect(await reasonOf({ ...good, cert: broken })).toContain('cannot be read');
  });

  test('when a file is too large, or a directory', async ({ expect }) => {
    expect(await reasonOf({ ...good, cert: 'x'.repeat(1_048_577) })).toContain('larger than');
    await using files = await pemFiles(good);
    const options = { certFile: tmpdir(), keyFile: files.keyFile, minVersion: 'TLSv1.3' } as const;
    const opening = openTls({ clock: files.clock, log: recordingLog([]) }, options);
    await expect(opening).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });
});

describe('the status', () => {
  const nowMs = new ManualClock().wallMs();
  const valid = (fromDays: number, toDays: number): Pem =>
    selfSigned({ fromMs: nowMs + fromDays * dayMs, toMs: nowMs + toDays * dayMs + 60_000 });

  test('tells names, fingerprint and the days that are left', async ({ expect }) => {
    await using files = await pemFiles(
      selfSigned({ names: ['gpu.example', 'localhost'], fromMs: nowMs - dayMs, toMs: nowMs + 30.5 * dayMs }),
    );
    using tls = await files.open();
    const { fingerprint, expiresMs, ...rest } = tls.status();
    expect(rest).toEqual({
      names: ['gpu.example', 'localhost', '127.0.0.1'],
      minVersion: 'TLSv1.3',
      daysLeft: 30,
      state: 'valid',
      takenMs: unixMs(nowMs),
    });
    expect(fingerprint).toMatch(/^[0-9a-f]{64}$/);
    expect(expiresMs - nowMs).toBeGreaterThan(30 * dayMs);
    expect(files.events()).toEqual([]);
  });

  test('warns from 14 days before the end, once a day, and after it', async ({ expect }) => {
    await using files = await pemFiles(valid(-1, 14));
    using tls = await files.open();
    const passDays = async (days: number): Promise<string> => {
      await files.clock.advance(days * dayMs);
      await tls.check();
      await tls.check();
      return tls.status().state;
    };
    expect([tls.status().state, files.events()]).toEqual(['valid', []]);
    expect(await passDays(1)).toBe('expiring');
    expect(files.events()).toEqual(['tls.expiring']);
    expect(await passDays(12)).toBe('expiring');
    expect(await passDays(2)).toBe('expired');
    expect(files.events().at(-1)).toBe('tls.expired');
    expect(tls.status().daysLeft).toBeLessThan(0);
  });

  test('says that a certificate is not good yet, or no more; both are served', async ({ expect }) => {
    await using early = await pemFiles(valid(1, 30));
    using first = await early.open();
    expect([first.status().state, early.events()]).toEqual(['early', ['tls.early']]);
    await using late = await pemFiles(valid(-30, -1));
    using second = await late.open();
    expect([second.status().state, late.events()]).toEqual(['expired', ['tls.expired']]);
  });
});

test('localhost with TLS is 127.0.0.1, which hears of every later certificate', async ({ expect }) => {
  await using door = await openDoor('TLSv1.3', 'localhost');
  expect(door.baseUrl).toBe(`https://localhost:${door.port}/v1`);
  expect(door.app.addresses()).toEqual([expect.objectContaining({ address: '127.0.0.1' })]);
});
