/** Answers on their way through: what hides beside the text, and how soon a server hears that nobody wants more. */

import { describe, type ExpectStatic, test } from 'vitest';
import { openUpstreamEngine, type UpstreamOptions } from '../../../../node/engines/openai/engine.ts';
import { systemClock } from '../../../../protocol/adapters/clock.ts';
import { createLog } from '../../../../protocol/adapters/log.ts';
import type { Engine, EngineDelta, Resume } from '../../../../protocol/ports.ts';
import { startKind } from '../../../support/upstream-kinds.ts';
import { chunk, event, type Handler, startUpstream, type UpstreamServer } from '../../../support/upstream-server.ts';

const deps = { clock: systemClock(), log: createLog({ level: 'silent', destination: 'stderr' }) };

type Opened = Engine & AsyncDisposable;

async function open({ url }: UpstreamServer, options: Partial<UpstreamOptions> = {}): Promise<Opened> {
  const engine = await openUpstreamEngine(deps, { url, owner: 'tests', ...options });
  return Object.assign(engine, { [Symbol.asyncDispose]: () => engine.close() });
}

const chat = { messages: [{ role: 'user' as const, content: 'hi' }] };

async function until(condition: () => boolean): Promise<void> {
  const endMs = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error('it did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const delta = (fields: object): string => event({ choices: [{ index: 0, delta: fields, finish_reason: null }] });
const sends = (...events: string[]): Handler => {
  return (_, response) => void response.writeHead(200).end(events.join('') + chunk('', 'stop'));
};

describe('an answer that depends on something beside its text', () => {
  async function pieces(handler: Handler, options: Partial<UpstreamOptions> = {}): Promise<EngineDelta[]> {
    await using upstream = await startUpstream();
    await using engine = await open(upstream, options);
    upstream.chat = handler;
    const deltas: EngineDelta[] = [];
    const request = { model: 'words-1', chat };
    await engine.generate(request, (piece) => void deltas.push(piece), new AbortController().signal);
    return deltas;
  }
  const plain = (text: string): EngineDelta => ({ text, tokenIds: [] });
  const opaque = (text: string): EngineDelta => ({ ...plain(text), isOpaque: true });

  test('is marked with its first text after that, once', async ({ expect }) => {
    for (const name of ['reasoning_content', 'reasoning']) {
      const thinking = [delta({ [name]: 'so' }), delta({ [name]: ' be it' })];
      expect(await pieces(sends(...thinking, chunk('a'), delta({ [name]: 'hm' }), chunk('b')))).toEqual([
        opaque('a'),
        plain('b'),
      ]);
    }
    expect(await pieces(sends(delta({ reasoning: 'so', content: 'a' }), chunk('b')))).toEqual([
      opaque('a'),
      plain('b'),
    ]);
  });

  test('is marked at once where text was shown before', async ({ expect }) => {
    const call = { index: 0, id: '1', function: { name: 'f', arguments: '' } };
    expect(await pieces(sends(chunk('a'), delta({ tool_calls: [call] })))).toEqual([plain('a'), opaque('')]);
    expect(await pieces(sends(chunk('a'), delta({ function_call: { name: 'f' } })))).toEqual([plain('a'), opaque('')]);
  });

  test('is not marked for fields that say nothing', async ({ expect }) => {
    const nothing = { reasoning_content: null, reasoning: '', tool_calls: [], function_call: {} };
    expect(await pieces(sends(delta({ ...nothing, content: 'a' }), chunk('b')))).toEqual([plain('a'), plain('b')]);
  });

  test('is marked when the model thinks aloud and only its words could be gone on from', async ({ expect }) => {
    const aloud = sends(chunk('\n<thi'), chunk('nk>so'), chunk('</think>'));
    const texts = { continuation: 'text' } as const;
    expect(await pieces(aloud, texts)).toEqual([plain('\n<thi'), opaque('nk>so'), plain('</think>')]);
    expect((await pieces(aloud)).some(({ isOpaque }) => isOpaque === true)).toBe(false);
    expect(await pieces(sends(chunk('a <think>')), texts)).toEqual([plain('a <think>')]);
  });
});

describe('the server hears at once that nobody wants more', () => {
  /** Aborts once the server has begun and `isReady`; expects the server to see its connection closed. */
  async function expectClosed(
    expect: ExpectStatic,
    [upstream, engine]: readonly [UpstreamServer, Engine],
    { emit, isReady, resume }: { emit?: () => Promise<void>; isReady?: () => boolean; resume?: Resume },
  ): Promise<void> {
    const abort = new AbortController();
    const reason = new Error('gone');
    const request = { model: 'words-1', chat, ...(resume === undefined ? {} : { resume }) };
    const answer = engine.generate(request, () => emit?.(), abort.signal);
    await until(() => upstream.open === 1 && (isReady?.() ?? true));
    abort.abort(reason);
    await expect(answer).rejects.toBe(reason);
    await until(() => upstream.open === 0);
    expect(engine.stats().active).toBe(0);
  }

  test('before its headers, and between its chunks', async ({ expect }) => {
    await using upstream = await startUpstream();
    await using engine = await open(upstream);
    upstream.chat = () => {};
    await expectClosed(expect, [upstream, engine], {});
    let emitted = 0;
    upstream.chat = (_, response) => void response.writeHead(200).write(chunk('one'));
    const emit = async (): Promise<void> => {
      emitted += 1;
    };
    await expectClosed(expect, [upstream, engine], { emit, isReady: () => emitted === 1 });
  });

  test('while the consumer takes nothing, for ever', async ({ expect }) => {
    await using upstream = await startUpstream();
    await using engine = await open(upstream);
    let isFull = false;
    upstream.chat = (_, response) => {
      response.writeHead(200);
      const more = (): void => {
        while (!response.destroyed && response.write(chunk('x'.repeat(10_000))));
        isFull = true;
        if (!response.destroyed) response.once('drain', more);
      };
      more();
    };
    let isStuck = false;
    const emit = (): Promise<void> => {
      isStuck = true;
      return new Promise(() => {});
    };
    await expectClosed(expect, [upstream, engine], { emit, isReady: () => isFull && isStuck });
  });

  test('in each step of going on with an answer', async ({ expect }) => {
    const resume = { tokenIds: [256, 257], text: ' a mesh', tokens: 2 };
    await using upstream = await startKind('vllm');
    await using engine = await open(upstream);
    const { chat: answers } = upstream;
    upstream.chat = () => {};
    await expectClosed(expect, [upstream, engine], { resume });
    upstream.chat = answers;
    upstream.routes.set('/v1/completions', () => {});
    await expectClosed(expect, [upstream, engine], { resume, isReady: () => upstream.chats.length > 2 });
    await using other = await startKind('sglang');
    await using byText = await open(other);
    other.chat = () => {};
    await expectClosed(expect, [other, byText], { resume });
  });

  test('when a stop text is complete', async ({ expect }) => {
    await using upstream = await startUpstream();
    await using engine = await open(upstream);
    upstream.chat = (_, response) => void response.writeHead(200).write(chunk('a st') + chunk('op b'));
    const texts: string[] = [];
    const request = { model: 'words-1', chat: { ...chat, stop: ['stop'] } };
    const signal = new AbortController().signal;
    const done = await engine.generate(request, ({ text }) => void texts.push(text), signal);
    expect({ texts, finish: done.finish }).toEqual({ texts: ['a '], finish: 'stop' });
    await until(() => upstream.open === 0);
  });
});
