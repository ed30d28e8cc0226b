/** Answers that several requests share: who hears what, how fast a node may send, and what is kept. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { answerMaxBytes, runBytes } from '../../gateway/idempotency-run.ts';
import { end, gone, Stage } from './idempotency-stage.ts';

test('a node may send on as fast as whoever reads fastest', async ({ expect }) => {
  const stage = new Stage();
  const first = await stage.ask();
  const second = await stage.ask();
  first.work?.say('0123456789');
  first.ear.answer?.consumed(4);
  second.ear.answer?.consumed(3);
  second.ear.answer?.consumed(3);
  first.ear.answer?.consumed(1);
  expect(first.work?.consumedBytes).toBe(6);
});

describe('an answer that begins again', () => {
  test('is heard from there on, also by whoever joins later or in the same turn', async ({ expect }) => {
    const stage = new Stage();
    const { work, ear, run } = await stage.ask();
    work?.say('void');
    const joining = stage.join(run);
    work?.events.restarted?.();
    work?.events.delta('good');
    await stage.clock.turn();
    const late = await stage.ask();
    work?.events.done(end);
    expect(ear.heard).toEqual(['committed', 'void', 'restarted', 'good', 'done']);
    expect(joining.heard).toEqual(['committed', 'good', 'done']);
    expect(late.ear.heard).toEqual(['committed', 'good', 'done']);
  });

  test('is waited for by nobody for what is void', async ({ expect }) => {
    const stage = new Stage();
    const { work, ear } = await stage.ask();
    work?.say('0123456789');
    ear.answer?.consumed(10);
    work?.events.restarted?.();
    const late = await stage.ask();
    ear.answer?.cancel();
    work?.events.delta('abcd');
    late.ear.answer?.consumed(4);
    expect(work?.consumedBytes).toBe(14);
  });
});

describe('of answers', () => {
  test('one that is too long is not kept, but heard by all who joined in time', async ({ expect }) => {
    const stage = new Stage();
    const { work, ear } = await stage.ask();
    work?.say('é'.repeat(answerMaxBytes / 2));
    const second = await stage.ask();
    work?.events.delta('!');
    expect(await stage.refusal()).toMatchObject({ isFirst: false });
    await expect(stage.ask()).rejects.toMatchObject({ code: 'IDEMPOTENCY_GONE' });
    work?.events.done(end);
    expect([ear.heard.at(-1), second.ear.heard.slice(2)]).toEqual(['done', ['!', 'done']]);
    expect(await stage.refusal()).toEqual(gone(1));
  });

  test('the oldest is forgotten when there are too many', async ({ expect }) => {
    const stage = new Stage();
    for (let key = 0; key < 70; key += 1) {
      const { work } = await stage.ask({ key: `${key}` });
      work?.say('x'.repeat(answerMaxBytes));
      work?.events.done(end);
    }
    const held: unknown[] = [];
    for (let key = 0; key < 70; key += 1) held.push(await stage.refusal({ key: `${key}` }));
    expect(held.filter((one) => Array.isArray(one))).toHaveLength(7);
    expect(held.slice(0, 7)).toEqual([1, 2, 3, 4, 5, 6, 7].map(gone));
  });

  test('short ones are counted with the memory that each takes besides', async ({ expect }) => {
    const stage = new Stage();
    const most = 67_108_864 / (runBytes + 2);
    for (let key = 0; key < most + 100; key += 1) {
      const { work } = await stage.ask({ key: `${key}` });
      work?.say('ok');
      work?.events.done(end);
    }
    expect(await stage.refusal({ key: '0' })).toEqual(gone(1));
    await expect(stage.ask({ key: '200' })).resolves.toMatchObject({ work: undefined });
  });

  test('none holds its request any longer than the work goes on', async ({ expect }) => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const stage = new Stage();
    const ask = async () => {
      const { work, run, ear } = await stage.ask();
      work?.say('ok');
      work?.events.done(end);
      return { run, ear, held: new WeakRef(stage.works.splice(0)[0] as object) };
    };
    const { run, ear, held } = await ask();
    expect([run.isKept, ear.answer?.isBilled]).toEqual([true, true]);
    await new Promise((resolve) => setImmediate(resolve));
    collect();
    expect(held.deref()).toBeUndefined();
  });

  test('none is forgotten while it runs: a new one is not kept instead', async ({ expect }) => {
    const stage = new Stage();
    for (let key = 0; key < 66; key += 1) {
      const { work } = await stage.ask({ key: `${key}` });
      work?.say('x'.repeat(answerMaxBytes));
    }
    await expect(stage.ask({ key: '0' })).resolves.toMatchObject({ work: undefined });
    await expect(stage.ask({ key: '65' })).rejects.toMatchObject({ code: 'IDEMPOTENCY_GONE' });
  });

  test('each is told as it was, whatever its characters and pieces', async ({ expect }) => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.string({ unit: 'grapheme', maxLength: 300 }), { maxLength: 40 }), async (pieces) => {
        const stage = new Stage();
        const { work } = await stage.ask();
        work?.say(...pieces);
        work?.events.done(end);
        const { ear } = await stage.ask();
        const text = pieces.join('');
        expect(ear.heard).toEqual(['committed', ...(text === '' ? [] : [text]), 'done']);
      }),
    );
  });
});
