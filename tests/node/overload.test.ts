/** A node that is asked for ten times what it can do: what it serves stays what it can do, and everybody has a share. */

import { describe, test } from 'vitest';
import { createNodeServer } from '../../node/serve.ts';
import { nothingCounted } from '../../protocol/counting.ts';
import type { Tag } from '../../protocol/ids.ts';
import { encodeChatRequest } from '../../protocol/messages/chat.ts';
import type { Engine } from '../../protocol/ports.ts';
import type { Session } from '../../protocol/session/session.ts';
import { ms } from '../../protocol/units.ts';
import { SimRandom } from '../../sim/random.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { quietLog } from '../support/pair-of-sessions.ts';
import { scriptedModel } from '../support/scripted-engine.ts';
import { requestOf } from '../support/sessions.ts';
import { tag } from './stage.ts';

const slots = 4;
const answerMs = 1_000;
const warmUpMs = 10_000;
const measuredMs = 40_000;

interface Demand {
  readonly deadlineMs: number;
  /** Answers take between 1 ∓ this and 1 ± this of `answerMs`. */
  readonly spread: number;
  /** Whose request comes at this moment. */
  readonly account: (atMs: number) => string;
}

/** Ten times as many requests as fit, for a while. @returns answers per account that were whole, after the beginning. */
async function serve({ deadlineMs, spread, account }: Demand): Promise<ReadonlyMap<string, number>> {
  const clock = new ManualClock();
  const random = new SimRandom('7');
  const engine: Engine = {
    kind: 'simulated',
    slots,
    models: () => [scriptedModel()],
    stats: () => ({ active: 0, slots, tokensPerSecond: 0 }),
    onChange: () => () => {},
    close: () => Promise.resolve(),
    generate: async (_request, _emit, signal) => {
      const tookMs = answerMs * (1 - spread + 2 * spread * random.float());
      await clock.sleep(ms(tookMs), signal);
      const [prefillMs, decodeMs] = [ms(tookMs / 10), ms((tookMs * 9) / 10)];
      return { finish: 'stop', promptTokens: 1, cachedTokens: 0, completionTokens: 10, prefillMs, decodeMs };
    },
  };
  const server = createNodeServer(
    { clock, log: quietLog, tabs: { refusal: () => undefined, begin: () => ({ end: () => {} }) } },
    { engines: [engine], queueMax: 64, owner: 'owner', hardware: 'test' },
  );
  const session = { peer: 'gateway', peerProcess: '22'.repeat(16) } as unknown as Session;
  const { body: _, ...asked } = requestOf(new Uint8Array());
  const body = encodeChatRequest({ messages: [{ role: 'user', content: 'hi' }] });
  const shared = { ...asked, deadlineMs: ms(deadlineMs), bodyBytes: body.length, piece: body, resumeBytes: 0 };
  const done = new Map<string, number>();
  const stepMs = answerMs / slots / 10;
  for (let atMs = 0; atMs < warmUpMs + measuredMs; atMs += stepMs) {
    const name = account(atMs);
    server.opened(session, {
      open: { type: 'open', operation: 'chat', attempt: 1, ...shared, account: tag(name) as Tag },
      body,
      signal: new AbortController().signal,
      emit: () => undefined,
      done: () => {
        if (clock.nowMs() > warmUpMs) done.set(name, (done.get(name) ?? 0) + 1);
      },
      fail: () => {},
      cancelled: () => {},
      sent: () => nothingCounted,
      acknowledgedTokens: () => 0,
    });
    await clock.advance(stepMs);
  }
  return done;
}

const capacity = (measuredMs / answerMs) * slots;

describe('at ten times its capacity', () => {
  test.for([
    [3_000, 0],
    [5_000, 0.5],
    [5_000, 0.9],
    [60_000, 0.5],
  ])(
    'with %d ms for each, a node serves nine tenths of what it can, spread %d',
    async ([deadlineMs = 0, spread = 0], { expect }) => {
      const done = await serve({ deadlineMs, spread, account: (atMs) => ['a', 'b', 'c'][atMs % 3] ?? 'a' });
      const sum = [...done.values()].reduce((total, count) => total + count, 0);
      expect(sum / capacity).toBeGreaterThan(0.9);
    },
  );

  test.for([5_000, 60_000])(
    'one account that asks for less than its share has nearly all of it: %d ms',
    async (deadlineMs, { expect }) => {
      const light = (atMs: number): boolean => atMs % answerMs === 0;
      const done = await serve({ deadlineMs, spread: 0.5, account: (atMs) => (light(atMs) ? 'light' : 'flood') });
      expect((done.get('light') ?? 0) / (measuredMs / answerMs)).toBeGreaterThan(0.9);
      expect(((done.get('light') ?? 0) + (done.get('flood') ?? 0)) / capacity).toBeGreaterThan(0.9);
    },
  );
});
