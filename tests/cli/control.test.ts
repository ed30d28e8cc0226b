/** The control socket's server: what clients that behave badly make of it. */

import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'vitest';
import { serveControl } from '../../cli/control.ts';
import { callDaemon } from '../../cli/control-client.ts';
import { tempDir } from './temp-dir.ts';

test('a client that leaves in the middle of its request harms nobody', async ({ expect, onTestFinished }) => {
  await using temp = await tempDir();
  const path = join(temp.path, 'control.sock');
  const faults: unknown[] = [];
  const note = (fault: unknown): void => void faults.push(fault);
  process.on('uncaughtException', note);
  onTestFinished(() => void process.off('uncaughtException', note));
  const holder = { command: 'test', pid: 1, since: '' };
  const server = createServer(serveControl(() => ({ 'GET /holder': () => holder })));
  await once(server.listen(path), 'listening');
  onTestFinished(() => void server.close());
  const client = connect(path);
  client.write('POST /roots HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n[{"kind"');
  const [message] = await once(server, 'request');
  const gone = new Promise((resolve) => message.once('close', resolve));
  client.destroy();
  await gone;
  expect(await callDaemon(path, 'GET /holder')).toEqual(holder);
  expect(faults).toEqual([]);
});
