/** The openai engine in front of servers that come and go, refuse, break off and mean harm. */

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import { describe, type ExpectStatic, test } from 'vitest';
import { openUpstreamEngine, type UpstreamOptions } from '../../../../node/engines/openai/engine.ts';
import { systemClock } from '../../../../protocol/adapters/clock.ts';
import { createLog } from '../../../../protocol/adapters/log.ts';
import { isHelixFlowError } from '../../../../protocol/errors.ts';
import type { ModelDigest } from '../../../../protocol/ids.ts';
import type { ChatRequest } from '../../../../protocol/messages/chat.ts';
import type { Clock, Engine, EngineDelta } from '../../../../protocol/ports.ts';
import { ms } from '../../../../protocol/units.ts';
import {
  answerWell,
  chunk,
  type Handler,
  startUpstream,
  type UpstreamServer,
} from '../../../support/upstream-server.ts';

const deps = { clock: systemClock(), log: createLog({ level: 'silent', destination: 'stderr' }) };
const never: AbortSignal = new AbortController().signal;

async function open(
  url: string,
  options: Partial<UpstreamOptions> = {},
  clock = deps.clock,
): Promise<Engine & AsyncDisposable> {
  const engine = await openUpstreamEngine({ ...deps, clock }, { url, owner: 'tests', ...options });
  return Object.assign(engine, { [Symbol.asyncDispose]: () => engine.close() });
}

async function ask(engine: Engine, options: Partial<ChatRequest> = {}, signal: AbortSignal = never) {
  const deltas: EngineDelta[] = [];
  const chat: ChatRequest = { messages: [{ role: 'user', content: 'hi' }], ...options };
  const done = await engine.generate({ model: 'words-1', chat }, (delta) => void deltas.push(delta), signal);
  return { done, deltas, text: deltas.map(({ text }) => text).join('') };
}

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  try {
    return { resolved: await work };
  } catch (error) {
    return isHelixFlowError(error) ? error.code : error;
  }
}

async function until(condition: () => boolean): Promise<void> {
  const endMs = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error('it did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const startStream = (response: Parameters<Handler>[1]) =>
  response.writeHead(200, { 'content-type': 'text/event-stream' });

describe('a chat', () => {
  test('reaches the server in its own words, with what was left open left open', async ({ expect }) => {
    await using upstream = await startUpstream();
    await using engine = await open(`${upstream.url}/v1/`, { apiKey: 'sk-secret' });
    const messages: ChatRequest['messages'] = [
      { role: 'system', content: 'be brief' },
      { role: 'user', content: 'hi' },
    ];
    await ask(engine, { messages, maxTokens: 3, stop: ['\n'], temperature: 0.5, topP: 0.9, seed: 7 });
    await ask(engine);
    const stream = { stream: true, stream_options: { include_usage: true } };
    expect(upstream.chats).toEqual([
      { model: 'words-1', messages, max_tokens: 3, stop: ['\n'], temperature: 0.5, top_p: 0.9, seed: 7, ...stream },
      { model: 'words-1', messages: [{ role: 'user', content: 'hi' }], ...stream },
    ]);
    expect(upstream.headers[0]).toMatchObject({ authorization: 'Bearer sk-secret' });
  });

  test('is closed at the server when it is cancelled, before and after its first text', async ({ expect }) => {
    await using upstream = await startUpstream();
    await using engine = await open(upstream.url);
    for (const begin of ['', chunk('one')]) {
      upstream.chat = (_, response) => {
        startStream(response).write(begin || ': busy\n\n');
      };
      const abort = new AbortController();
      const reason = new Error('gone');
      const answer = ask(engine, {}, abort.signal);
      await until(() => upstream.open === 1);
      abort.abort(reason);
      await expect(answer).rejects.toBe(reason);
      await until(() => upstream.open === 0);
      expect(engine.stats().active).toBe(0);
    }
  });

  test('is whole without usage and without an end of the stream', async ({ expect }) => {
    await using upstream = await startUpstream();
    await using engine = await open(upstream.url);
    upstream.chat = (_, response) => {
      startStream(response).end(chunk('one') + chunk(' two') + chunk('', 'stop'));
    };
    const { done, text } = await ask(engine);
    expect(text).toBe('one two');
    expect(done).toMatchObject({ finish: 'stop', completionTokens: 2 });
  });

  const failing: readonly [why: string, handler: Handler, code: string][] = [
    [
      'breaks off',
      (_, response) => void startStream(response).write(chunk('one'), () => response.destroy()),
      'ENGINE_FAILED',
    ],
    ['ends without a finish reason', (_, response) => void startStream(response).end(chunk('one')), 'ENGINE_FAILED'],
    ['hangs up at once', (_, response) => void response.destroy(), 'ENGINE_FAILED'],
    ['sends an endless line', (_, response) => flood(startStream(response), 'x'.repeat(65_536)), 'ENGINE_FAILED'],
    ['is overloaded', (_, response) => void response.writeHead(503).end('busy'), 'NODE_OVERLOADED'],
    ['does not like it', (_, response) => void response.writeHead(422).end('{}'), 'ENGINE_REFUSED'],
    ['refuses without end', (_, response) => flood(response.writeHead(400), 'x'.repeat(65_536)), 'ENGINE_FAILED'],
    [
      'redirects',
      (_, response) => void response.writeHead(302, { location: 'http://10.0.0.1/' }).end(),
      'ENGINE_FAILED',
    ],
  ];
  for (const [why, handler, code] of failing) {
    test(`ends with ${code} when the server ${why}`, async ({ expect }) => {
      await using upstream = await startUpstream();
      await using engine = await open(upstream.url);
      upstream.chat = handler;
      expect(await codeOf(ask(engine))).toBe(code);
      expect(engine.stats().active).toBe(0);
      upstream.chat = answerWell;
      expect((await ask(engine)).text).not.toBe('');
    });
  }

  test('ends with ENGINE_FAILED when the server falls silent, before and within its answer', async ({ expect }) => {
    await using upstream = await startUpstream();
    await using engine = await open(upstream.url, { idleTimeoutMs: ms(100) });
    upstream.chat = () => {};
    expect(await codeOf(ask(engine))).toBe('ENGINE_FAILED');
    upstream.chat = (_, response) => void startStream(response).write(chunk('one'));
    expect(await codeOf(ask(engine))).toBe('ENGINE_FAILED');
    await until(() => upstream.open === 0);
  });

  test('ends when the engine is closed', async ({ expect }) => {
    await using upstream = await startUpstream();
    const engine = await open(upstream.url);
    upstream.chat = (_, response) => void startStream(response).write(chunk('one'));
    const answer = codeOf(ask(engine));
    await until(() => upstream.open === 1);
    await engine.close();
    expect(await answer).toBe('ENGINE_FAILED');
  });
});

function flood(response: Parameters<Handler>[1], piece: string): void {
  const more = (): void => {
    while (!response.destroyed && response.write(piece));
    if (!response.destroyed) response.once('drain', more);
  };
  more();
}

describe('the list of models', () => {
  const serve = (upstream: UpstreamServer, ...ids: string[]): void => {
    upstream.models = (response) => void response.end(JSON.stringify({ data: ids.map((id) => ({ id })) }));
  };
  const names = (engine: Engine): string[] => engine.models().map(({ name }) => name);

  test('is followed: models come and go, and so does the server', async ({ expect }) => {
    await using upstream = await startUpstream();
    await using engine = await open(upstream.url, { pollMs: ms(10) });
    let changes = 0;
    engine.onChange(() => {
      changes += 1;
    });
    expect(names(engine)).toEqual(['words-1']);
    serve(upstream, 'a', 'b');
    await until(() => changes === 1);
    expect(names(engine)).toEqual(['a', 'b']);
    upstream.models = (response) => void response.destroy();
    await until(() => changes === 2);
    expect(names(engine)).toEqual([]);
    expect(await codeOf(ask(engine))).toBe('NODE_MODEL_MISSING');
    serve(upstream, 'a', 'b');
    await until(() => changes === 3);
    expect(names(engine)).toEqual(['a', 'b']);
  });

  test('takes the operator’s digest for one model, and refuses it for several', async ({ expect }) => {
    await using upstream = await startUpstream();
    const digest = 'ab'.repeat(32) as ModelDigest;
    await using engine = await open(upstream.url, { digest });
    expect(engine.models()).toMatchObject([{ digest, digestKind: 'declared' }]);
    serve(upstream, 'a', 'b');
    expect(await codeOf(open(upstream.url, { digest }))).toBe('CONFIG_INVALID');
  });

  test('must be there at the start', async ({ expect }) => {
    await using upstream = await startUpstream();
    const unreachable = async (): Promise<unknown> => {
      const failure = await open(upstream.url).catch((error: unknown) => error);
      return isHelixFlowError(failure, 'UPSTREAM_UNREACHABLE') && failure.details.reason;
    };
    upstream.models = (response) => void response.writeHead(404).end('not here');
    expect(await unreachable()).toMatch(/status 404/);
    upstream.models = (response) => void response.writeHead(401).end();
    expect(await unreachable()).toMatch(/API key/);
    upstream.models = (response) => void response.end('<html>');
    expect(await unreachable()).toMatch(/JSON/);
    upstream.models = (response) => flood(response, 'x'.repeat(65_536));
    expect(await unreachable()).toMatch(/more than/);
  });
});

describe('a server that is none', () => {
  /** Deadlines of seconds pass in a tenth. */
  const hasty: Clock = {
    ...deps.clock,
    timer: (delay, fire) => deps.clock.timer(ms(delay / 10), fire),
    deadline: (delay, parent) => deps.clock.deadline(ms(delay / 10), parent),
  };
  const against = async (expect: ExpectStatic, behave: (socket: Socket) => void): Promise<void> => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      sockets.push(socket);
      socket.on('error', () => {});
      behave(socket);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    expect(await codeOf(open(url, {}, hasty))).toBe('UPSTREAM_UNREACHABLE');
    for (const socket of sockets) socket.destroy();
    server.close();
  };

  test('is refused when it sends headers without end', async ({ expect }) => {
    await against(expect, (socket) => {
      socket.write('HTTP/1.1 200 OK\r\n');
      const more = (): void => {
        while (!socket.destroyed && socket.write(`x-more: ${'y'.repeat(4_096)}\r\n`));
        if (!socket.destroyed) socket.once('drain', more);
      };
      more();
    });
  });

  test('is refused when it does not speak HTTP', async ({ expect }) => {
    await against(expect, (socket) => void socket.end('SSH-2.0-OpenSSH_9.9\r\n'));
  });

  test('is refused when nothing listens', async ({ expect }) => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    expect(await codeOf(open(`http://127.0.0.1:${port}`))).toBe('UPSTREAM_UNREACHABLE');
  });

  test('is refused when it never answers', async ({ expect }) => {
    await against(expect, () => {});
  });
});
