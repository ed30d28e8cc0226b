/** Idempotency keys without HTTP: who runs, who joins, what is remembered, and for how long. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { createIdempotency } from '../../gateway/idempotency.ts';
import { lingerMs } from '../../gateway/idempotency-run.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { KeyId, RequestId } from '../../protocol/ids.ts';
import type { StoreOp } from '../../protocol/ports.ts';
import { accessOf } from '../support/access.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { quietLog } from '../support/pair-of-sessions.ts';
import { type Ear, end, gone, Stage, type Work } from './idempotency-stage.ts';

const dayMs = 86_400_000;

describe('a request that comes again', () => {
  test('while the first runs hears all of it, and nothing runs twice', async ({ expect }) => {
    const stage = new Stage();
    const first = await stage.ask();
    first.work?.say('one ', 'two ');
    const second = await stage.ask();
    first.work?.events.delta('three');
    const third = await stage.ask();
    first.work?.events.done(end);
    expect([first, second, third].map(({ ear }) => ear.heard)).toEqual([
      ['committed', 'one ', 'two ', 'three', 'done'],
      ['committed', 'one two ', 'three', 'done'],
      ['committed', 'one two three', 'done'],
    ]);
    expect([stage.works.length, second.run, third.run]).toEqual([1, first.run, first.run]);
  });

  test('at the same moment waits for the first', async ({ expect }) => {
    const stage = new Stage();
    const all = await Promise.all([stage.claim(), stage.claim(), stage.claim()]);
    expect(all.map(({ isFirst }) => isFirst)).toEqual([true, false, false]);
    expect(new Set(all.map(({ run }) => run)).size).toBe(1);
  });

  test('after the first ended is told the same answer', async ({ expect }) => {
    const stage = new Stage();
    const first = await stage.ask();
    first.work?.say('whole');
    first.work?.events.done(end);
    const again = await stage.ask();
    expect([again.work, again.ear.heard, again.run.request]).toEqual([
      undefined,
      ['committed', 'whole', 'done'],
      first.run.request,
    ]);
  });

  test.for([
    ['another key', { key: 'other' }],
    ['another API key', { caller: accessOf({ keyId: 'ffffffffffffffff' as KeyId }) }],
    ['another account', { caller: accessOf({ account: 'other' as never }) }],
    ['another issuer', { caller: accessOf({ issuer: '34'.repeat(16) as never }) }],
  ] as const)('under %s is another request', async ([, more], { expect }) => {
    const stage = new Stage();
    await stage.claim();
    await expect(stage.claim(more)).resolves.toMatchObject({ isFirst: true });
  });

  test('with another body is refused, also after a restart', async ({ expect }) => {
    const stage = new Stage();
    const { work } = await stage.ask();
    const refused = ['IDEMPOTENCY_MISMATCH', {}];
    expect(await stage.refusal({ body: 'other' })).toEqual(refused);
    work?.events.done(end);
    expect(await stage.refusal({ body: 'other' })).toEqual(refused);
    await stage.keys.close();
    expect(await new Stage(stage.store).refusal({ body: 'other' })).toEqual(refused);
  });

  test('after a restart is told that its answer is gone, and which request it was', async ({ expect }) => {
    const stage = new Stage();
    const { work } = await stage.ask();
    work?.events.done(end);
    await stage.keys.close();
    expect(await new Stage(stage.store).refusal()).toEqual(gone(1));
  });

  test('a day later is a new one', async ({ expect }) => {
    const stage = new Stage();
    const { work } = await stage.ask();
    work?.events.done(end);
    await stage.clock.advance(dayMs - 1);
    await expect(stage.claim()).resolves.toMatchObject({ isFirst: false });
    await stage.clock.advance(1);
    await expect(stage.claim()).resolves.toMatchObject({ isFirst: true });
  });

  test('a day later is a new one after a restart, too, and its old row goes by itself', async ({ expect }) => {
    const stage = new Stage();
    await stage.ask();
    await stage.ask({ key: 'other' });
    await stage.keys.close();
    const later = new Stage(stage.store);
    await later.clock.advance(dayMs);
    await expect(later.claim()).resolves.toMatchObject({ isFirst: true });
    await later.clock.advance(3_600_000);
    await later.clock.turn();
    expect(later.store.size).toBe(1);
  });
});

describe('a run that failed', () => {
  test('before anything was billed frees its key', async ({ expect }) => {
    const stage = new Stage();
    const first = await stage.ask();
    const second = await stage.ask();
    first.work?.events.failed(new HelixFlowError('NODE_LOST', {}));
    expect([first.ear.heard, second.ear.heard]).toEqual([['NODE_LOST'], ['NODE_LOST']]);
    const again = await stage.ask();
    expect(again.work).toBeDefined();
    again.work?.say('ok');
    expect([again.ear.heard, again.run.request === first.run.request]).toEqual([['committed', 'ok'], false]);
  });

  test('after something was billed keeps its key, and is never run again', async ({ expect }) => {
    const stage = new Stage();
    const { work, ear } = await stage.ask();
    work?.say('half');
    work?.events.failed(new HelixFlowError('STREAM_INTERRUPTED', {}));
    expect([ear.heard, await stage.refusal()]).toEqual([['committed', 'half', 'STREAM_INTERRUPTED'], gone(1)]);
  });

  test('that was never begun frees its key', async ({ expect }) => {
    const stage = new Stage();
    const { run } = await stage.claim();
    run.abandon();
    await expect(stage.claim()).resolves.toMatchObject({ isFirst: true });
  });
});

describe('a client that leaves', () => {
  test('while another listens ends nothing', async ({ expect }) => {
    const stage = new Stage();
    const first = await stage.ask();
    const second = await stage.ask();
    first.ear.answer?.cancel();
    await stage.clock.advance(10 * lingerMs);
    first.work?.say('on');
    first.work?.events.done(end);
    expect([first.ear.heard, second.ear.heard, first.work?.isCancelled]).toEqual([
      [],
      ['committed', 'on', 'done'],
      false,
    ]);
  });

  test('and comes back soon finds its answer going on', async ({ expect }) => {
    const stage = new Stage();
    const first = await stage.ask();
    first.work?.say('a');
    first.ear.answer?.cancel();
    await stage.clock.advance(lingerMs - 1);
    first.work?.events.delta('b');
    const again = await stage.ask();
    await stage.clock.advance(10 * lingerMs);
    first.work?.events.done(end);
    expect([again.ear.heard, first.work?.isCancelled]).toEqual([['committed', 'ab', 'done'], false]);
  });

  test.for([
    [true, 'keeps the key of what was billed'],
    [false, 'frees the key of what was not'],
  ] as const)('for good ends the work, and (billed: %s) %s', async ([isBilled], { expect }) => {
    const stage = new Stage();
    const { work, ear } = await stage.ask();
    if (work === undefined) throw new Error('not the first');
    work.isBilled = isBilled;
    ear.answer?.cancel();
    await stage.clock.advance(lingerMs);
    expect([work.isCancelled, stage.clock.timers]).toEqual([true, 1]);
    expect(await stage.refusal()).toMatchObject(isBilled ? (gone(1) as unknown[]) : { isFirst: true });
  });

  test.for(['before', 'after'] as const)(
    '%s the process begins to end is waited for no longer',
    async (when, { expect }) => {
      const stage = new Stage();
      const { work, ear } = await stage.ask();
      const other = await stage.ask({ key: 'other' });
      if (when === 'before') ear.answer?.cancel();
      stage.keys.drain();
      if (when === 'after') ear.answer?.cancel();
      expect([work?.isCancelled, other.work?.isCancelled]).toEqual([true, false]);
    },
  );

  test('after the end leaves the answer to others', async ({ expect }) => {
    const stage = new Stage();
    const { work, ear } = await stage.ask();
    work?.say('x');
    work?.events.done(end);
    ear.answer?.cancel();
    await stage.clock.advance(lingerMs);
    expect([(await stage.ask()).ear.heard, work?.isCancelled]).toEqual([['committed', 'x', 'done'], false]);
  });

  test('with what it heard, before it heard the rest, hears nothing more', async ({ expect }) => {
    const stage = new Stage();
    const first = await stage.ask();
    first.work?.say('x');
    const { run } = await stage.claim();
    const ear = stage.join(run);
    ear.answer?.cancel();
    await stage.clock.turn();
    expect(ear.heard).toEqual([]);
  });
});

describe('the disk', () => {
  test('has the key before the work begins', async ({ expect }) => {
    const stage = new Stage();
    await stage.claim();
    expect(stage.store.size).toBe(1);
  });

  test('that fails refuses the request, and runs nothing', async ({ expect }) => {
    const store = new MemoryStore();
    const stage = new Stage(store);
    store.batch = () => Promise.reject(new HelixFlowError('STORE_FAILED', { reason: 'full' }));
    expect(await stage.refusal()).toEqual(['USAGE_UNRECORDED', {}]);
  });

  test('with a damaged row never runs it again', async ({ expect }) => {
    const stage = new Stage();
    await stage.claim();
    await stage.keys.close();
    for await (const [key, value] of stage.store.range({ gte: new Uint8Array(), lt: Uint8Array.of(255) })) {
      const damaged = value.slice();
      damaged[10] = (damaged[10] ?? 0) ^ 1;
      await stage.store.batch([{ type: 'put', key, value: damaged }]);
    }
    const later = new Stage(stage.store);
    expect(await later.refusal()).toEqual(['IDEMPOTENCY_GONE', { request: 'unknown' }]);
    await later.clock.advance(dayMs);
    await later.clock.turn();
    expect(await later.refusal({ key: 'new' })).toMatchObject({ isFirst: true });
  });

  test('holds nothing that names anybody, or shows what was asked', async ({ expect }) => {
    const stage = new Stage();
    await stage.claim({ key: 'my-secret-key', body: 'my secret prompt' });
    for await (const [key, value] of stage.store.range({ gte: new Uint8Array(), lt: Uint8Array.of(255) })) {
      const bytes = Buffer.concat([key, value]).toString('latin1');
      for (const secret of ['my', 'secret', 'local', '0123456789abcdef']) expect(bytes).not.toContain(secret);
    }
  });

  test('is not touched after the end', async ({ expect }) => {
    const stage = new Stage();
    const { work } = await stage.ask();
    await stage.keys.close();
    const ops: StoreOp[] = [];
    stage.store.batch = (more) => {
      ops.push(...more);
      return Promise.resolve();
    };
    work?.events.failed(new HelixFlowError('NODE_LOST', {}));
    await stage.clock.turn();
    expect([ops, await stage.refusal()]).toEqual([[], ['GATEWAY_DRAINING', { retryAfterMs: 1_000 }]]);
  });
});

describe('keys', () => {
  const other = accessOf({ keyId: 'ffffffffffffffff' as KeyId });
  const limited = (limit: number, scope: 'key' | 'gateway') => [
    'RATE_LIMITED',
    { limit, unit: 'idempotency keys a day', scope, retryAfterMs: 60_000 },
  ];
  const begin = async (stage: Stage, key: string, caller = accessOf()) => stage.claim({ key, caller });

  test('are so many for one API key, and for all', async ({ expect }) => {
    const stage = new Stage(undefined, { keysPerOwnerMax: 2, keysMax: 3 });
    await begin(stage, 'a');
    await begin(stage, 'b');
    expect(await stage.refusal({ key: 'c' })).toEqual(limited(2, 'key'));
    await begin(stage, 'a', other);
    expect(await stage.refusal({ key: 'b', caller: other })).toEqual(limited(3, 'gateway'));
    // What is known is answered all the same.
    expect(await stage.refusal({ key: 'b' })).toMatchObject({ isFirst: false });
  });

  test('count again after a restart, and no more once they are a day old', async ({ expect }) => {
    const bounds = { keysPerOwnerMax: 2, keysMax: 3 };
    const first = new Stage(undefined, bounds);
    await begin(first, 'a');
    await begin(first, 'b');
    await first.keys.close();
    const stage = new Stage(first.store, bounds);
    await stage.clock.turn();
    await stage.clock.turn();
    expect(await stage.refusal({ key: 'c' })).toEqual(limited(2, 'key'));
    await stage.clock.advance(dayMs + 3_600_000);
    await stage.clock.turn();
    expect(await stage.refusal({ key: 'c' })).toMatchObject({ isFirst: true });
  });

  test('that are taken up again after a day count once', async ({ expect }) => {
    const stage = new Stage(undefined, { keysPerOwnerMax: 2, keysMax: 2 });
    const { run } = await begin(stage, 'a');
    run.begin((events) => {
      queueMicrotask(() => events.done(end));
      return { rate: undefined, isBilled: true, cancel: () => {}, consumed: () => {} };
    });
    // Just before the sweep that would have removed it.
    await stage.clock.advance(dayMs);
    await begin(stage, 'a');
    await expect(begin(stage, 'b')).resolves.toMatchObject({ isFirst: true });
  });

  test('that are written while others are swept stay, and are counted', async ({ expect }) => {
    const before = new Stage();
    await begin(before, 'old');
    await before.keys.close();
    const { store } = before;
    const read = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    const range = store.range.bind(store);
    store.range = async function* (of) {
      const rows = [];
      for await (const row of range(of)) rows.push(row);
      read.resolve();
      await go.promise;
      yield* rows;
    };
    const clock = new ManualClock();
    await clock.advance(dayMs);
    const keys = createIdempotency({ store, clock, log: quietLog }, { keysPerOwnerMax: 1, keysMax: 2 });
    const claim = (key: string) =>
      keys.claim({ caller: accessOf(), key, body: 'b', request: '0f'.repeat(16) as RequestId });
    keys.open();
    await read.promise;
    // Its old row was seen by the sweep, which must not take the new one.
    await expect(claim('old')).resolves.toMatchObject({ isFirst: true });
    await expect(claim('new')).resolves.toMatchObject({ isFirst: true });
    go.resolve();
    for (let turn = 0; turn < 5; turn += 1) await clock.turn();
    expect(store.size).toBe(2);
    await expect(claim('more')).rejects.toMatchObject({ code: 'RATE_LIMITED' });
  });
});

test('claims wait until everything is open, and are refused when it never is', async ({ expect }) => {
  const clock = new ManualClock();
  const keys = createIdempotency({ store: new MemoryStore(), clock, log: quietLog });
  const ask = { caller: accessOf(), key: 'k', body: 'b', request: '01'.repeat(16) as RequestId };
  const claimed = keys.claim(ask).catch((error: HelixFlowError) => error.code);
  await keys.close();
  await expect(claimed).resolves.toBe('GATEWAY_DRAINING');
});

test('whatever comes in whatever order, one key is never billed twice', async ({ expect }) => {
  const step = fc.record({
    what: fc.constantFrom('ask', 'say', 'done', 'fail', 'leave', 'pass', 'restart'),
    key: fc.nat(1),
    of: fc.nat(5),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      let stage = new Stage();
      const works: { key: number; work: Work; isOver: boolean }[] = [];
      const ears: Ear[] = [];
      for (const { what, key, of } of steps) {
        const running = works.filter(({ isOver, work }) => !isOver && !work.isCancelled);
        const one = running[of % Math.max(1, running.length)];
        if (what === 'ask') {
          const asked = await stage.ask({ key: `${key}` }).catch(() => undefined);
          if (asked?.work !== undefined) works.push({ key, work: asked.work, isOver: false });
          if (asked !== undefined) ears.push(asked.ear);
        } else if (what === 'say') one?.work.say('x');
        else if (what === 'done' && one !== undefined) {
          one.isOver = true;
          one.work.isBilled = true;
          one.work.events.done(end);
        } else if (what === 'fail' && one !== undefined) {
          one.isOver = true;
          one.work.events.failed(new HelixFlowError('NODE_LOST', {}));
        } else if (what === 'leave') ears[of % Math.max(1, ears.length)]?.answer?.cancel();
        else if (what === 'pass') await stage.clock.advance(lingerMs);
        else if (what === 'restart') {
          await stage.keys.close();
          for (const running of works) running.isOver = true;
          stage = new Stage(stage.store);
        }
        await stage.clock.turn();
      }
      for (const key of [0, 1]) {
        expect(works.filter((one) => one.key === key && one.work.isBilled).length).toBeLessThanOrEqual(1);
      }
      for (const { heard } of ears) {
        expect(heard.filter((what) => what === 'done' || what === 'NODE_LOST').length).toBeLessThanOrEqual(1);
      }
    }),
    { numRuns: 200 },
  );
});
