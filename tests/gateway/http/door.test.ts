/** What strangers and broken clients send to the port: each gets one clear answer, and nothing hangs. */

import { describe, test, vi } from 'vitest';
import { chatBody, eventsOf, goodKey, served } from './fakes.ts';
import { clientOf, openDoor, Wire } from './sockets.ts';

const head = (lines: readonly string[]): string =>
  ['POST /v1/chat/completions HTTP/1.1', 'host: x', 'content-type: application/json', ...lines, '', ''].join('\r\n');
const withKey = `authorization: Bearer ${goodKey}`;

const statusOf = (text: string): string => text.split('\r\n', 1)[0] ?? '';
const errorOf = (text: string): { code: string | null; type: string } =>
  JSON.parse(text.slice(text.indexOf('\r\n\r\n'))).error;

describe('a body of 30 MB', () => {
  const thirtyMb = 'x'.repeat(30_000_000);

  test('is a clean 413 for the official client, tried once', async ({ expect }) => {
    await using door = await openDoor();
    const messages = [{ role: 'user' as const, content: thirtyMb }];
    const failure = clientOf(door).chat.completions.create({ model: 'm', messages });
    await expect(failure).rejects.toMatchObject({ status: 413, code: 'request_too_large' });
    await vi.waitFor(() => expect(door.records).toHaveLength(1));
    expect(door.service.calls).toEqual([]);
  });

  test('is a clean 413 when its length is not told', async ({ expect }) => {
    await using door = await openDoor();
    const response = await fetch(`${door.baseUrl}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${goodKey}`, 'content-type': 'application/json' },
      body: new Blob([thirtyMb]).stream(),
      duplex: 'half',
    } as RequestInit);
    expect([response.status, ((await response.json()) as { error: { code: string } }).error.code]).toEqual([
      413,
      'request_too_large',
    ]);
  });

  test('is a clean 401 without a key', async ({ expect }) => {
    await using door = await openDoor();
    const response = await fetch(`${door.baseUrl}/chat/completions`, { method: 'POST', body: thirtyMb });
    expect([response.status, ((await response.json()) as { error: { code: string } }).error.code]).toEqual([
      401,
      'invalid_api_key',
    ]);
  });

  test('that never ends is read no further than a bound', async ({ expect }) => {
    await using door = await openDoor();
    using wire = await Wire.open(door.port);
    wire.socket.write(head([withKey, 'transfer-encoding: chunked']));
    const piece = `100000\r\n${'x'.repeat(0x100000)}\r\n`;
    const closed = wire.closed();
    while (!wire.isClosed) {
      const drained = new Promise((resolve) => wire.socket.once('drain', resolve));
      if (!wire.socket.write(piece)) await Promise.race([drained, closed]);
    }
    expect(statusOf(wire.text)).toBe('HTTP/1.1 413 Payload Too Large');
    expect(wire.socket.bytesWritten).toBeLessThan(150_000_000);
  });
});

test('a body just below the limit is read', async ({ expect }) => {
  await using door = await openDoor();
  const content = 'x'.repeat(20_000_000);
  const answer = await clientOf(door).chat.completions.create({ model: 'm', messages: [{ role: 'user', content }] });
  expect(answer.choices[0]?.message.content).toBe('Hello world');
  expect(door.service.calls[0]?.call.chat.messages[0]?.content.length).toBe(content.length);
});

test('a body in a hundred thousand pieces is cut', async ({ expect }) => {
  await using door = await openDoor();
  using wire = await Wire.open(door.port);
  wire.socket.write(head([withKey, 'transfer-encoding: chunked']) + '1\r\nx\r\n'.repeat(100_000));
  expect(statusOf(await wire.closed())).toBe('HTTP/1.1 400 Bad Request');
  expect(door.service.calls).toEqual([]);
});

test('a body that stops half-way is a 408', async ({ expect }) => {
  await using door = await openDoor({ requestTimeoutMs: 300 as never, headersTimeoutMs: 200 as never });
  using wire = await Wire.open(door.port);
  wire.socket.write(`${head([withKey, 'content-length: 100'])}{"model":`);
  const text = await wire.closed();
  expect([statusOf(text), errorOf(text).code]).toEqual(['HTTP/1.1 408 Request Timeout', 'request_timeout']);
});

test('headers that never end are a 408', async ({ expect }) => {
  await using door = await openDoor({ requestTimeoutMs: 300 as never, headersTimeoutMs: 200 as never });
  using wire = await Wire.open(door.port);
  wire.socket.write('POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n');
  expect(errorOf(await wire.closed()).code).toBe('request_timeout');
});

test('headers that are too large are a 431', async ({ expect }) => {
  await using door = await openDoor();
  using wire = await Wire.open(door.port);
  wire.socket.write(head([`x-long: ${'y'.repeat(20_000)}`]));
  const text = await wire.closed();
  expect([statusOf(text), errorOf(text).code]).toEqual([
    'HTTP/1.1 431 Request Header Fields Too Large',
    'headers_too_large',
  ]);
});

test.for([
  ['a TLS hello', '\x16\x03\x01\x02\x00\x01\x00'],
  ['another protocol', 'SSH-2.0-x\r\n\r\n'],
  ['two lengths', head(['content-length: 1', 'content-length: 2'])],
  ['a length beside chunks', head(['content-length: 1', 'transfer-encoding: chunked'])],
  ['no host', 'GET /v1/models HTTP/1.1\r\n\r\n'],
] as const)('%s is a 400 and the end of the connection', async ([, bytes], { expect }) => {
  await using door = await openDoor();
  using wire = await Wire.open(door.port);
  wire.socket.write(bytes);
  wire.socket.on('data', () => {});
  const text = await wire.closed();
  expect(statusOf(text)).toBe('HTTP/1.1 400 Bad Request');
});

test('garbage behind a request does not break into the answer under way', async ({ expect }) => {
  await using door = await openDoor();
  door.service.script = ({ events }) => events.committed(served);
  using wire = await Wire.open(door.port);
  wire.ask(chatBody({ stream: true }));
  await vi.waitFor(() => expect(wire.text).toContain('"role":"assistant"'));
  wire.socket.write('garbage\r\n\r\n');
  expect(await wire.closed()).not.toContain('HTTP/1.1 400');
  await vi.waitFor(() => expect(door.service.calls[0]?.isCancelled).toBe(true));
});

test('two requests on one connection are answered in order', async ({ expect }) => {
  await using door = await openDoor();
  using wire = await Wire.open(door.port);
  wire.ask(chatBody({ stream: true }));
  wire.ask(chatBody());
  await vi.waitFor(() => expect(wire.text).toContain('"chat.completion"'));
  expect(wire.text.indexOf('[DONE]')).toBeLessThan(wire.text.indexOf('"chat.completion"'));
  expect(wire.text.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(2);
  expect(eventsOf(wire.text).filter((event) => event === '[DONE]')).toHaveLength(1);
});
