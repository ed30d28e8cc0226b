/** What the gateway is measured against: a bare Fastify JSON echo, and bare SSE writes. Prints its port, serves until killed. */

import http from 'node:http';
import type { AddressInfo } from 'node:net';
import Fastify from 'fastify';

const token = (text: string): string =>
  `data: ${JSON.stringify({ id: 'chatcmpl-baseline', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta: { content: text }, logprobs: null, finish_reason: null }] })}\n\n`;

/** One write per token, at the asked pace, nothing else. */
function sse(request: http.IncomingMessage, response: http.ServerResponse): void {
  const url = new URL(request.url ?? '/', 'http://localhost');
  const tokens = Number(url.searchParams.get('tokens'));
  const everyMs = 1_000 / Number(url.searchParams.get('rate'));
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const startMs = performance.now();
  let sent = 0;
  const next = (): void => {
    response.write(token(' word'));
    sent += 1;
    if (sent < tokens) setTimeout(next, Math.max(0, startMs + (sent + 1) * everyMs - performance.now()));
    else response.end('data: [DONE]\n\n');
  };
  setTimeout(next, everyMs);
}

async function echo(): Promise<number> {
  const app = Fastify();
  app.post('/v1/chat/completions', (request) => request.body);
  await app.listen({ host: '127.0.0.1', port: 0 });
  return (app.server.address() as AddressInfo).port;
}

async function bareSse(): Promise<number> {
  const server = http.createServer((request, response) => {
    request.resume();
    request.on('end', () => sse(request, response));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

const port = process.argv[2] === 'echo' ? await echo() : await bareSse();
process.stdout.write(`${port}\n`);
