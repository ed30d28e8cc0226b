/** Answers that are cut at one upstream and gone on with at another of the same kind. */

import '../../../support/seed.ts';
import fc from 'fast-check';
import { describe, type ExpectStatic, test } from 'vitest';
import { openUpstreamEngine, type UpstreamOptions } from '../../../../node/engines/openai/engine.ts';
import { systemClock } from '../../../../protocol/adapters/clock.ts';
import { createLog } from '../../../../protocol/adapters/log.ts';
import { isHelixFlowError } from '../../../../protocol/errors.ts';
import type { ChatRequest } from '../../../../protocol/messages/chat.ts';
import type { Engine, EngineDelta, EngineDone, Resume } from '../../../../protocol/ports.ts';
import { type Kind, type KindOptions, startKind } from '../../../support/upstream-kinds.ts';
import { encodeText } from '../../../support/upstream-model.ts';
import { chunk, event, type UpstreamServer } from '../../../support/upstream-server.ts';

const deps = { clock: systemClock(), log: createLog({ level: 'silent', destination: 'stderr' }) };
const never: AbortSignal = new AbortController().signal;

interface Pair extends AsyncDisposable {
  readonly first: Engine;
  readonly second: Engine;
  /** Behind the second. */
  readonly upstream: UpstreamServer;
}

async function startPair(kind: Kind, options: KindOptions = {}, more: Partial<UpstreamOptions> = {}): Promise<Pair> {
  await using started = new AsyncDisposableStack();
  const servers = [started.use(await startKind(kind, options)), started.use(await startKind(kind, options))] as const;
  const open = async ({ url }: UpstreamServer): Promise<Engine> => {
    const engine = await openUpstreamEngine(deps, { url, owner: 'tests', ...more });
    started.defer(() => engine.close());
    return engine;
  };
  const [first, second] = [await open(servers[0]), await open(servers[1])];
  const all = started.move();
  return { first, second, upstream: servers[1], [Symbol.asyncDispose]: () => all.disposeAsync() };
}

interface Answer {
  readonly deltas: readonly EngineDelta[];
  readonly done: EngineDone;
}

async function ask(engine: Engine, chat: ChatRequest, resume?: Resume, signal = never): Promise<Answer> {
  const deltas: EngineDelta[] = [];
  const request = { model: 'words-1', chat, ...(resume === undefined ? {} : { resume }) };
  const done = await engine.generate(request, (delta) => void deltas.push(delta), signal);
  return { deltas, done };
}

const textOf = (deltas: readonly EngineDelta[]): string => deltas.map(({ text }) => text).join('');
const idsOf = (deltas: readonly EngineDelta[]): number[] => deltas.flatMap(({ tokenIds }) => tokenIds);

function resumeOf(deltas: readonly EngineDelta[]): Resume {
  const text = textOf(deltas);
  const tokenIds = idsOf(deltas);
  return { tokenIds, text, tokens: tokenIds.length > 0 ? tokenIds.length : encodeText(text).length };
}

const chatOf = (content: string, more: Partial<ChatRequest> = {}): ChatRequest => ({
  messages: [{ role: 'user', content }],
  temperature: 0,
  ...more,
});

async function refusalOf(work: Promise<unknown>): Promise<unknown> {
  try {
    return { resolved: await work };
  } catch (error) {
    return isHelixFlowError(error) ? error.code : error;
  }
}

/** Cuts one answer behind each of its pieces and expects what nobody cut. */
async function expectWhole(expect: ExpectStatic, { first, second }: Pair, chat: ChatRequest, slack = 0): Promise<void> {
  const whole = await ask(first, chat);
  for (let cut = 0; cut <= whole.deltas.length; cut += 1) {
    const before = whole.deltas.slice(0, cut);
    const resume = resumeOf(before);
    const after = await ask(second, chat, resume);
    expect({ cut, text: resume.text + textOf(after.deltas), finish: after.done.finish }).toEqual({
      cut,
      text: textOf(whole.deltas),
      finish: whole.done.finish,
    });
    const ids = [...resume.tokenIds, ...idsOf(after.deltas)];
    // White space that the server did not get to see was counted before the cut, and what is cut within a word anew.
    const left = (chat.maxTokens ?? 1_000) - resume.tokens;
    const space = encodeText(resume.text.slice(resume.text.trimEnd().length)).length;
    const off = Math.abs(after.done.promptTokens - whole.done.promptTokens);
    if (left > 0) expect(off).toBeLessThanOrEqual(slack === 0 ? 0 : slack + space);
    // Of an answer by ids: where they end within a character, the rest of it goes by text.
    if (ids.length > resume.tokenIds.length || cut === whole.deltas.length) expect(ids).toEqual(idsOf(whole.deltas));
    // Text counts for its ids, but never for more than its bytes and an end token.
    const bytes = Buffer.byteLength(textOf(after.deltas));
    const rest = idsOf(whole.deltas).length - resume.tokens;
    const [least, most] = [rest, rest + 1].map((tokens) => Math.min(tokens, bytes + 1));
    if (ids.length > 0 && slack === 0) {
      expect(after.done.completionTokens).toBeGreaterThanOrEqual(least ?? 0);
      expect(after.done.completionTokens).toBeLessThanOrEqual(most ?? 0);
    }
  }
}

const prompts = fc.string({ minLength: 1, maxLength: 6 });

const byText = { continuation: 'text' } as const;
const kinds: readonly [name: string, Kind, slack: number, KindOptions, Partial<UpstreamOptions>][] = [
  ['vLLM, by ids', 'vllm', 0, {}, {}],
  ['vLLM, by ids, several in a chunk', 'vllm', 3, { interval: 3 }, {}],
  ['vLLM, by text', 'vllm', 3, {}, byText],
  ['vLLM, by text, with a template that trims', 'vllm', 3, { trims: true }, byText],
  ['SGLang', 'sglang', 3, {}, {}],
  ['llama-server', 'llamacpp', 3, {}, {}],
  ['llama-server that shows text again', 'llamacpp', 3, { echoes: true }, {}],
  ['Ollama, by the operator’s word', 'ollama', 3, {}, byText],
];

describe.each(kinds)('an answer of %s, cut behind any piece,', (...[, kind, slack, options, more]) => {
  const runs = { numRuns: 4, endOnFailure: true };

  test('comes out as if nothing had happened', async ({ expect }) => {
    await using pair = await startPair(kind, options, more);
    await fc.assert(
      fc.asyncProperty(prompts, async (content) => await expectWhole(expect, pair, chatOf(content), slack)),
      runs,
    );
  });

  test('ends at the same stop text', async ({ expect }) => {
    await using pair = await startPair(kind, options, more);
    const stops = fc.subarray([' stop', '. the', '\n\n ', 'Grüße of', ' many nodes'], { minLength: 1 });
    await fc.assert(
      fc.asyncProperty(prompts, stops, async (content, stop) => {
        await expectWhole(expect, pair, chatOf(content, { stop }), slack);
      }),
      runs,
    );
  });
});

test('an answer whose ids end within a character, or before its text, goes on from the text', async ({ expect }) => {
  await using pair = await startPair('vllm');
  for (const tokenIds of [[256, 270], [256, 257, 270], [256], []]) {
    await ask(pair.second, chatOf('x', { maxTokens: 5 }), { tokenIds, text: ' a mesh', tokens: 2 });
    const last = { role: 'assistant', content: ' a mesh' };
    expect(pair.upstream.chats.at(-1)).toMatchObject({ messages: [{}, last], continue_final_message: true });
  }
});

describe('an answer of a server that takes ids or text as they are', () => {
  test('ends at the same maxTokens', async ({ expect }) => {
    for (const kind of ['vllm', 'sglang', 'llamacpp'] as const) {
      await using pair = await startPair(kind);
      for (const maxTokens of [1, 2, 9]) await expectWhole(expect, pair, chatOf('count', { maxTokens }));
    }
  });

  test('ends at the same maxTokens while text is held back for a stop text', async ({ expect }) => {
    await using pair = await startPair('vllm');
    const stop = ['stop or', 'mesh or', 'nodes or', 'many or', 'of or', 'the or'];
    for (let maxTokens = 1; maxTokens < 12; maxTokens += 1) {
      await expectWhole(expect, pair, chatOf('count', { maxTokens, stop }));
    }
  });

  test('has its stop texts looked for by the node where ids are told, so that text and ids end together', async ({
    expect,
  }) => {
    await using pair = await startPair('vllm');
    await ask(pair.second, chatOf('x', { stop: ['y'] }));
    expect(pair.upstream.chats.at(-1)).toMatchObject({ return_token_ids: true });
    expect(pair.upstream.chats.at(-1)).not.toHaveProperty('stop');
  });

  test('goes on from white space where the server keeps it', async ({ expect }) => {
    for (const [kind, more, content] of [
      ['llamacpp', {}, ' a\n'],
      ['vllm', byText, ' a'],
    ] as const) {
      await using pair = await startPair(kind, {}, more);
      await ask(pair.second, chatOf('x', { maxTokens: 9 }), { tokenIds: [], text: ' a\n', tokens: 2 });
      expect(pair.upstream.chats.at(-1)?.messages.at(-1)).toEqual({ role: 'assistant', content });
    }
  });

  test('asks the server for what is left, with another seed', async ({ expect }) => {
    await using pair = await startPair('sglang');
    const chat = chatOf('x', { maxTokens: 9, seed: 7, stop: ['never'], topP: 0.5 });
    await ask(pair.second, chat, { tokenIds: [], text: ' a mesh', tokens: 2 });
    expect(pair.upstream.chats.at(-1)).toMatchObject({
      messages: [...chat.messages, { role: 'assistant', content: ' a mesh' }],
      continue_final_message: true,
      add_generation_prompt: false,
      max_tokens: 7,
      seed: 9,
      stop: ['never'],
      top_p: 0.5,
    });
  });

  test('is over at once when nothing is left', async ({ expect }) => {
    for (const kind of ['vllm', 'sglang'] as const) {
      await using pair = await startPair(kind);
      const before = pair.upstream.chats.length;
      const resume = { tokenIds: [256], text: ' a', tokens: 1 };
      const { deltas, done } = await ask(pair.second, chatOf('x', { maxTokens: 1 }), resume);
      expect({ deltas, done }).toMatchObject({ deltas: [], done: { finish: 'length', completionTokens: 0 } });
      expect(pair.upstream.chats.length).toBe(before);
    }
  });
});

describe('a resume is refused', () => {
  const whatever: Resume = { tokenIds: [], text: ' a mesh', tokens: 2 };

  test('where the server goes on from nothing', async ({ expect }) => {
    for (const [kind, options] of [
      ['ollama', {}],
      ['vllm', { tellsIds: false }],
    ] as const) {
      await using pair = await startPair(kind, options);
      expect(await refusalOf(ask(pair.second, chatOf('x'), whatever))).toBe('RESUME_REFUSED');
    }
  });

  test('where the ids stand for another text, or for none', async ({ expect }) => {
    await using pair = await startPair('vllm');
    for (const [tokenIds, text] of [
      [[256, 257], ' a mosh'],
      [[256, 999_999], ' a'],
    ] as const) {
      const resume = { tokenIds, text, tokens: tokenIds.length };
      expect(await refusalOf(ask(pair.second, chatOf('x'), resume))).toBe('RESUME_REFUSED');
    }
  });

  test('where the server does not take the text, or shows another one', async ({ expect }) => {
    await using pair = await startPair('llamacpp', { echoes: true });
    pair.upstream.chat = (_, response) => void response.writeHead(400).end('{}');
    expect(await refusalOf(ask(pair.second, chatOf('x'), whatever))).toBe('RESUME_REFUSED');
    pair.upstream.chat = (_, response) => void response.writeHead(200).end(chunk(' a moose') + chunk('', 'stop'));
    expect(await refusalOf(ask(pair.second, chatOf('x'), whatever))).toBe('RESUME_REFUSED');
  });

  test('where the model thinks: aloud before the cut, or hidden after it', async ({ expect }) => {
    await using pair = await startPair('sglang');
    for (const text of ['<think>\nso', ' <thi', '<|channel|>analysis']) {
      expect(await refusalOf(ask(pair.second, chatOf('x'), { ...whatever, text }))).toBe('RESUME_REFUSED');
    }
    pair.upstream.chat = (_, response) => {
      const thinking = event({ choices: [{ index: 0, delta: { reasoning_content: 'hm' }, finish_reason: null }] });
      response.writeHead(200).end(thinking + chunk('so') + chunk('', 'stop'));
    };
    expect(await refusalOf(ask(pair.second, chatOf('x'), whatever))).toBe('RESUME_REFUSED');
  });
});
