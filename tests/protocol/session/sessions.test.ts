/** One session per pair, whatever order dials, frames and losses come in. */

import fc from 'fast-check';
import { describe, test, vi } from 'vitest';
import { limits } from '../../../protocol/limits.ts';
import { PairOfSessions } from '../../support/pair-of-sessions.ts';
import { requestOf } from '../../support/sessions.ts';

type Step =
  | { readonly do: 'dial'; readonly from: 'gateway' | 'node' }
  | { readonly do: 'deliver'; readonly link: number; readonly end: 'a' | 'b'; readonly count: number }
  | { readonly do: 'lose'; readonly link: number; readonly end: 'a' | 'b' };

const side = fc.constantFrom('gateway' as const, 'node' as const);
const end = fc.constantFrom('a' as const, 'b' as const);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant('dial' as const), from: side }),
  fc.record({ do: fc.constant('deliver' as const), link: fc.nat(5), end, count: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ do: fc.constant('lose' as const), link: fc.nat(5), end }),
);

async function play(pair: PairOfSessions, steps: readonly Step[]): Promise<void> {
  for (const act of steps) {
    if (act.do === 'dial') {
      if (pair.links.length < 6) await pair.dial(act.from);
      continue;
    }
    const link = pair.links[act.link];
    if (link === undefined) continue;
    if (act.do === 'deliver') link[act.end].deliver(act.count);
    // One side loses its end; the other side does not notice.
    else link[act.end].close(undefined);
  }
}

/** The one session both hold, told by the link it runs on. */
const isSame = (pair: PairOfSessions): boolean => {
  const ours = pair.gateway.current()?.connection;
  const theirs = pair.node.current()?.connection;
  return pair.links.some(({ a, b }) =>
    (a.connection === ours || a.connection.id === ours?.id) && b.connection === theirs
      ? true
      : b.connection === ours && (a.connection === theirs || a.connection.id === theirs?.id),
  );
};

describe('sessions of one pair', () => {
  test('two sides that dial at once end with one session, the same one', async ({ expect }) => {
    const pair = new PairOfSessions();
    await pair.dial('gateway');
    await pair.dial('node');
    pair.settle();
    expect(isSame(pair)).toBe(true);
    expect(pair.links.filter(({ a }) => !a.isClosed)).toHaveLength(1);
  });

  test('whatever happened before, a fresh dial after a half-dead session gives one that both use', async ({
    expect,
  }) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), side, async (steps, from) => {
        const pair = new PairOfSessions();
        await play(pair, steps);
        // What is left on its way arrives; frames to a lost end vanish, as on a half-open connection.
        pair.settle();
        for (let tries = 0; tries < 3 && !isSame(pair); tries += 1) {
          // Whoever has no session dials, as discovery would.
          const lacking =
            pair.node.current() === undefined ? 'node' : pair.gateway.current() === undefined ? 'gateway' : from;
          await pair.dial(lacking);
          pair.settle();
        }
        expect(isSame(pair)).toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });

  test('a half-dead session never beats its replacement, whoever dialled either', async ({ expect }) => {
    for (const first of ['gateway', 'node'] as const) {
      for (const loser of ['gateway', 'node'] as const) {
        const pair = new PairOfSessions();
        await pair.dial(first);
        pair.settle();
        const old = pair[loser === 'gateway' ? 'node' : 'gateway'].current();
        // The loser's end breaks unseen by the other side; then the loser dials again.
        pair.links[0]?.[first === loser ? 'a' : 'b'].close(undefined);
        await pair.dial(loser);
        pair.settle();
        expect(isSame(pair)).toBe(true);
        expect(pair[loser === 'gateway' ? 'node' : 'gateway'].current()).not.toBe(old);
      }
    }
  });

  test('attempts on the losing session finish there', async ({ expect }) => {
    const pair = new PairOfSessions();
    await pair.dial('node');
    pair.settle();
    const losing = pair.gateway.current();
    const ends: unknown[] = [];
    const events = {
      delta: () => {},
      done: (done: unknown) => ends.push(done),
      failed: (error: unknown) => ends.push(error),
    };
    losing?.open(requestOf(new Uint8Array(1)), events);
    await pair.dial('node');
    pair.settle();
    expect(pair.gateway.current()).not.toBe(losing);
    expect([ends, losing?.isClosed, losing?.attempts]).toEqual([[], false, 1]);
  });

  test('a loser that has been silent is aborted, since no goodbye would reach its end', async ({ expect }) => {
    const pair = new PairOfSessions();
    await pair.dial('node');
    pair.settle();
    const ends: unknown[] = [];
    pair.gateway.current()?.open(requestOf(new Uint8Array(1)), {
      delta: () => {},
      done: (done) => ends.push(done),
      failed: (error) => ends.push(error.code),
    });
    const [silent] = pair.links;
    silent?.a.close(undefined);
    await pair.clock.advance(limits.sessionStaleMs + 2 * limits.heartbeatActiveMs);
    expect(silent?.b.isClosed).toBe(false);
    await pair.dial('node');
    pair.settle();
    expect(silent?.b.closedWith?.code).toBe('SESSION_REPLACED');
    expect([ends, isSame(pair)]).toEqual([['NODE_LOST'], true]);
  });

  test('the connection of the loser is closed once its session has ended, that of the winner is not', async ({
    expect,
  }) => {
    const pair = new PairOfSessions();
    await pair.dial('gateway');
    await pair.dial('node');
    const closes = pair.links.map(({ a, b }) => [a, b].map(({ connection }) => vi.spyOn(connection, 'close')));
    pair.settle();
    const counts = closes.map((ends) => ends.map((close) => close.mock.calls.length));
    expect(counts).toEqual(pair.links.map(({ a }) => (a.isClosed ? [1, 1] : [0, 0])));
    expect(pair.links.map(({ a }) => a.isClosed).toSorted()).toEqual([false, true]);
  });

  test('a session that ends without a successor leaves its connection to others', async ({ expect }) => {
    const pair = new PairOfSessions();
    await pair.dial('node');
    const [link] = pair.links;
    const closes = [link?.a, link?.b].map((end) => end && vi.spyOn(end.connection, 'close'));
    pair.settle();
    pair.node.current()?.leave('NODE_DRAINING');
    pair.settle();
    expect([link?.a.isClosed, link?.b.isClosed]).toEqual([true, true]);
    for (const close of closes) expect(close).not.toHaveBeenCalled();
  });

  test('leaving is over when the last session has ended, and not before', async ({ expect }) => {
    const pair = new PairOfSessions();
    await pair.dial('node');
    pair.settle();
    pair.gateway.current()?.open(requestOf(new Uint8Array(1)), { delta: () => {}, done: () => {}, failed: () => {} });
    // The first session stays for its attempt, the second has nothing to wait for.
    await pair.dial('node');
    pair.settle();
    let hasLeft = false;
    const left = pair.gateway.sessions.leave('SESSION_REPLACED').then(() => {
      hasLeft = true;
    });
    pair.settle();
    await pair.clock.turn();
    expect([pair.links.map(({ a }) => a.isClosed), hasLeft]).toEqual([[false, true], false]);
    pair.links[0]?.cut();
    await left;
    await pair.gateway.sessions.leave('SESSION_REPLACED');
  });
});
