/** The synthetic engine beyond the contract. */

import { describe, test } from 'vitest';
import { createSyntheticEngine } from '../../../node/engines/synthetic.ts';
import { systemClock } from '../../../protocol/adapters/clock.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import type { Engine, EngineDelta } from '../../../protocol/ports.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const never = new AbortController().signal;
const chat = (content: string, maxTokens?: number) => ({
  messages: [{ role: 'user' as const, content }],
  ...(maxTokens === undefined ? {} : { maxTokens }),
});

async function textOf(engine: Engine, content: string, maxTokens: number): Promise<string> {
  let text = '';
  await engine.generate(
    { model: 'synthetic', chat: chat(content, maxTokens) },
    (delta) => {
      text += delta.text;
      return undefined;
    },
    never,
  );
  return text;
}

describe('the synthetic engine', () => {
  test('gives one delta a token, exactly as many as asked for', async ({ expect }) => {
    const engine = createSyntheticEngine({ clock: systemClock() });
    const deltas: EngineDelta[] = [];
    const take = (delta: EngineDelta) => void deltas.push(delta);
    const done = await engine.generate({ model: 'synthetic', chat: chat('hi', 1_000) }, take, never);
    expect(deltas.length).toBe(1_000);
    expect(deltas.every((delta) => delta.tokenIds.length === 1 && delta.text.length > 1)).toBe(true);
    expect(done).toMatchObject({ finish: 'length', completionTokens: 1_000 });
    expect(deltas.slice(0, 2).map(({ promptTokens }) => promptTokens)).toEqual([done.promptTokens, undefined]);
    const short = await engine.generate({ model: 'synthetic', chat: chat('hi') }, take, never);
    expect(short.completionTokens).toBe(16);
  });

  test('says the same as another one, and a longer answer begins with the shorter', async ({ expect }) => {
    const one = createSyntheticEngine({ clock: systemClock() });
    const other = createSyntheticEngine({ clock: systemClock() }, { slots: 3 });
    expect(other.models()[0]?.digest).toBe(one.models()[0]?.digest);
    const long = await textOf(one, 'a prompt', 50);
    expect(long.startsWith(await textOf(other, 'a prompt', 20))).toBe(true);
    expect(await textOf(one, 'another prompt', 50)).not.toBe(long);
  });

  test('lets a cancel through while it works at full speed', async ({ expect }) => {
    const engine = createSyntheticEngine({ clock: systemClock() });
    const abort = new AbortController();
    const reason = new Error('stop');
    const answer = engine.generate({ model: 'synthetic', chat: chat('hi', 100_000) }, () => undefined, abort.signal);
    setImmediate(() => abort.abort(reason));
    await expect(answer).rejects.toBe(reason);
  });

  test('paces each answer by itself', async ({ expect }) => {
    const clock = new ManualClock();
    const engine = createSyntheticEngine({ clock }, { tokensPerSecond: 10 });
    let tokens = 0;
    const count = (): undefined => {
      tokens += 1;
      return undefined;
    };
    const request = { model: 'synthetic', chat: chat('hi', 5) };
    const answers = Promise.all([engine.generate(request, count, never), engine.generate(request, count, never)]);
    for (let step = 1; step <= 5; step += 1) {
      await clock.advance(100);
      expect(tokens).toBe(step * 2);
    }
    expect((await answers).map(({ decodeMs }) => decodeMs)).toEqual([500, 500]);
  });

  test('never passes for a model', ({ expect }) => {
    const create = (): unknown => createSyntheticEngine({ clock: systemClock() }, { name: 'llama-70b' });
    let code: string | undefined;
    try {
      create();
    } catch (error) {
      if (isHelixFlowError(error)) code = error.code;
    }
    expect(code).toBe('CONFIG_INVALID');
    const engine = createSyntheticEngine({ clock: systemClock() }, { name: 'my-synthetic' });
    expect(engine.models()[0]).toMatchObject({ name: 'my-synthetic', digestKind: 'synthetic' });
  });
});
