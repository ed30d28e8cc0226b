/** The waiting room: whose turn it is, who has to leave when it is full, and what whoever is sent away is told. */

import fc from 'fast-check';
import { test } from 'vitest';
import {
  createWaitingRoom,
  type Waiter,
  type WaitingOptions,
  type WaitingRoom,
} from '../../../gateway/route/waiting.ts';
import type { HelixFlowError } from '../../../protocol/errors.ts';
import type { ModelDigest } from '../../../protocol/ids.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import '../../support/seed.ts';

const [model, other] = ['a'.repeat(64), 'b'.repeat(64)] as [ModelDigest, ModelDigest];

type End = 'went' | 'left' | 'GATEWAY_OVERLOADED' | 'ACCOUNT_OVERLOADED';

/** A request of a test, and what became of it. */
interface Guest {
  readonly name: string;
  readonly isUrgent: boolean;
  readonly account: string;
  readonly ends: End[];
  readonly leave: () => void;
}

/** A room, places at nodes, and everybody who ever came. */
class Stage {
  readonly clock = new ManualClock();
  readonly room: WaitingRoom;
  readonly guests: Guest[] = [];
  readonly went: string[] = [];
  readonly running = new Map<string, number>();
  free = 0;

  constructor(options: Partial<WaitingOptions> = {}) {
    this.room = createWaitingRoom({ clock: this.clock }, { placesMax: 8, accountShare: 1, ...options });
  }

  enter(account: string, changes: Partial<Waiter> = {}, digest = model): Guest {
    const name = `${account}${this.guests.filter((guest) => guest.account === account).length + 1}`;
    const ends: End[] = [];
    const entered = this.room.enter(digest, {
      account,
      running: () => this.running.get(account) ?? 0,
      go: () => {
        if (this.free === 0) return false;
        this.free -= 1;
        ends.push('went');
        this.went.push(name);
        return true;
      },
      refused: (error) => ends.push(error.code),
      ...changes,
    });
    const isIn = typeof entered === 'function';
    if (!isIn) ends.push(entered.code);
    const leave = (): void => {
      if (!isIn) return;
      entered();
      if (ends.length === 0) ends.push('left');
    };
    const guest = { name, isUrgent: changes.isUrgent === true, account, ends, leave };
    this.guests.push(guest);
    return guest;
  }

  /** So many places come free, one after the other. */
  places(count: number, digest = model): void {
    for (let index = 0; index < count; index += 1) {
      this.free += 1;
      this.room.changed(digest);
    }
  }
}

test('turns go round the accounts, first come first served within each', ({ expect }) => {
  const stage = new Stage();
  for (const account of ['a', 'a', 'a', 'b', 'b', 'c']) stage.enter(account);
  stage.places(6);
  expect(stage.went).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3']);
  expect(stage.room.size).toBe(0);
});

test('whoever has the fewest attempts under way is next', ({ expect }) => {
  const stage = new Stage();
  for (const account of ['a', 'a', 'b', 'b']) stage.enter(account);
  stage.running.set('a', 2).set('b', 1);
  stage.places(2);
  stage.running.set('b', 3);
  stage.places(1);
  expect(stage.went).toEqual(['b1', 'b2', 'a1']);
});

test('to leave and come again is no way to be first', ({ expect }) => {
  const stage = new Stage();
  stage.enter('a');
  stage.enter('b').leave();
  stage.enter('c');
  stage.enter('b');
  stage.places(3);
  expect(stage.went).toEqual(['a1', 'c1', 'b2']);
});

test('one who finds no place keeps its turn, and nobody behind it is asked', ({ expect }) => {
  const stage = new Stage();
  stage.enter('a');
  let asked = 0;
  stage.enter('b', {
    go: () => {
      asked += 1;
      return false;
    },
  });
  stage.room.changed(model);
  stage.places(1);
  expect([stage.went, asked, stage.room.size]).toEqual([['a1'], 1, 1]);
});

test('one for whom not every node will do holds up nobody else', ({ expect }) => {
  const stage = new Stage();
  stage.enter('a', { isPicky: true, go: () => false });
  stage.enter('a');
  stage.enter('b');
  stage.free = 2;
  stage.room.changed(model);
  expect([stage.went, stage.room.size]).toEqual([['a2', 'b1'], 1]);
});

test('of picky requests so many are asked at a change that it stays cheap', ({ expect }) => {
  const stage = new Stage({ placesMax: 1_000 });
  let asked = 0;
  const go = (): boolean => {
    asked += 1;
    return false;
  };
  for (let index = 0; index < 500; index += 1) stage.enter('a', { isPicky: true, go });
  stage.room.changed(model);
  expect(asked).toBe(32);
});

test('of picky requests of many accounts no more are asked together, and each account is', ({ expect }) => {
  const stage = new Stage({ placesMax: 1_024 });
  const asked = new Map<string, number>();
  for (let index = 0; index < 1_024; index += 1) {
    const account = `a${index % 60}`;
    const go = (): boolean => {
      asked.set(account, (asked.get(account) ?? 0) + 1);
      return false;
    };
    stage.enter(account, { isPicky: true, go });
  }
  stage.room.changed(model);
  expect([asked.size, new Set(asked.values())]).toEqual([60, new Set([2])]);
});

test('an answer that was begun goes before all that were not, and takes a place of whoever has the most', ({
  expect,
}) => {
  const stage = new Stage({ placesMax: 3, accountShare: 0.7 });
  const guests = ['a', 'a', 'b'].map((account) => stage.enter(account));
  for (let index = 0; index < 2; index += 1) guests.push(stage.enter('a', { isUrgent: true }));
  stage.running.set('a', 5);
  stage.places(2);
  expect(stage.went).toEqual(['a3', 'a4']);
  expect(guests.map(({ ends }) => ends[0])).toEqual([
    'ACCOUNT_OVERLOADED',
    'ACCOUNT_OVERLOADED',
    undefined,
    'went',
    'went',
  ]);
});

test('urgent ones do not push out each other', ({ expect }) => {
  const stage = new Stage({ placesMax: 2 });
  for (const account of ['a', 'a', 'b']) stage.enter(account, { isUrgent: true });
  expect(stage.guests.map(({ ends }) => ends)).toEqual([[], [], ['GATEWAY_OVERLOADED']]);
});

test('models wait apart, and share the places', ({ expect }) => {
  const stage = new Stage({ placesMax: 3 });
  stage.enter('a');
  stage.enter('a', {}, other);
  stage.enter('a', {}, other);
  expect([stage.room.sizeOf(model), stage.room.sizeOf(other), stage.room.size]).toEqual([1, 2, 3]);
  stage.enter('b');
  expect([stage.room.sizeOf(model), stage.room.sizeOf(other)]).toEqual([2, 1]);
  stage.places(1, other);
  expect(stage.went).toEqual(['a2']);
});

test('a full room takes in a newcomer for the newest of the account with the most, down to an equal share', ({
  expect,
}) => {
  const stage = new Stage({ placesMax: 4 });
  const flood = [1, 2, 3, 4, 5].map(() => stage.enter('a'));
  expect(flood.map(({ ends }) => ends[0])).toEqual([undefined, undefined, undefined, undefined, 'ACCOUNT_OVERLOADED']);
  stage.enter('b');
  expect(stage.enter('a').ends).toEqual(['ACCOUNT_OVERLOADED']);
  stage.enter('b');
  expect(stage.enter('b').ends).toEqual(['GATEWAY_OVERLOADED']);
  expect(flood.map(({ ends }) => ends[0])).toEqual([
    undefined,
    undefined,
    'ACCOUNT_OVERLOADED',
    'ACCOUNT_OVERLOADED',
    'ACCOUNT_OVERLOADED',
  ]);
});

test('places that do not share out evenly do not change hands for ever', ({ expect }) => {
  const stage = new Stage({ placesMax: 5 });
  for (const account of ['a', 'a', 'a', 'b', 'b']) stage.enter(account);
  expect([stage.enter('b').ends, stage.enter('a').ends]).toEqual([['GATEWAY_OVERLOADED'], ['ACCOUNT_OVERLOADED']]);
});

test('with more accounts than places, newcomers are sent away', ({ expect }) => {
  const stage = new Stage({ placesMax: 2 });
  expect(['a', 'b', 'c'].map((account) => stage.enter(account).ends)).toEqual([[], [], ['GATEWAY_OVERLOADED']]);
});

test('an account may be kept from taking all places that are free', ({ expect }) => {
  const stage = new Stage({ placesMax: 4, accountShare: 0.5 });
  expect(['a', 'a', 'a', 'b'].map((account) => stage.enter(account).ends)).toEqual([
    [],
    [],
    ['ACCOUNT_OVERLOADED'],
    [],
  ]);
});

test('who is just being asked keeps its place when another takes one', ({ expect }) => {
  const stage = new Stage({ placesMax: 2 });
  stage.enter('a', { isPicky: true, go: () => false });
  const asked = stage.enter('a', {
    go: () => {
      stage.enter('b');
      return true;
    },
  });
  stage.room.changed(model);
  expect([asked.ends, stage.guests[0]?.ends, stage.room.size]).toEqual([[], ['ACCOUNT_OVERLOADED'], 1]);
});

test('one that has ended when it is asked is no sign that there is no place', ({ expect }) => {
  const stage = new Stage();
  const gone = stage.enter('a', {
    go: () => {
      gone.leave();
      return false;
    },
  });
  stage.enter('a');
  stage.places(1);
  expect([stage.went, stage.room.size]).toEqual([['a2'], 0]);
});

test('a change told while turns are given is not lost, and one who cannot go ends it', ({ expect }) => {
  const stage = new Stage();
  stage.enter('a', {}, other);
  let asked = 0;
  stage.enter('b', {
    go: () => {
      asked += 1;
      stage.free = 1;
      stage.room.changed(model);
      stage.room.changed(other);
      return false;
    },
  });
  stage.room.changed(model);
  expect([asked, stage.went]).toEqual([1, ['a1']]);
});

test('a picky one is asked again when the turn of another has changed something', ({ expect }) => {
  const stage = new Stage();
  let isThere = false;
  const picky = stage.enter('a', { isPicky: true, go: () => isThere && picky.ends.push('went') > 0 });
  stage.enter('b', {
    go: () => {
      isThere = true;
      stage.room.changed(model);
      return true;
    },
  });
  stage.room.changed(model);
  expect([picky.ends, stage.room.size]).toEqual([['went'], 0]);
});

test('who is sent away hears when to come again: those ahead by how fast they went lately', async ({ expect }) => {
  const stage = new Stage({ placesMax: 20 });
  expect(stage.room.retryAfterMs(model)).toBe(1_000);
  for (let index = 0; index < 20; index += 1) stage.enter('a');
  for (let turn = 0; turn < 50; turn += 1) {
    await stage.clock.advance(100);
    stage.room.left(model);
  }
  // Ten a second, 21 of them.
  const toldMs = stage.room.retryAfterMs(model);
  expect(toldMs).toBeGreaterThan(1_900);
  expect(toldMs).toBeLessThan(2_300);
  const { guests } = stage;
  let error: HelixFlowError | undefined;
  const entered = stage.room.enter(model, {
    account: 'a',
    running: () => 0,
    go: () => true,
    refused: () => {},
  });
  if (typeof entered !== 'function') error = entered;
  expect(error?.details).toEqual({ retryAfterMs: toldMs });
  for (const { leave } of guests) leave();
  await stage.clock.advance(600_000);
  stage.room.left(model);
  // What was learnt under load still holds after an hour without any.
  expect(stage.room.retryAfterMs(model)).toBe(250);
});

test('where nobody goes, the time told grows to a minute and no further', async ({ expect }) => {
  const stage = new Stage();
  stage.enter('a');
  await stage.clock.advance(2_000);
  const soonMs = stage.room.retryAfterMs(model);
  for (let index = 0; index < 7; index += 1) stage.enter('a');
  await stage.clock.advance(60_000);
  expect([soonMs > 3_000 && soonMs < 4_000, stage.room.retryAfterMs(model)]).toEqual([true, 60_000]);
});

const accounts = ['a', 'b', 'c', 'd', 'e'];
const account = fc.constantFrom(...accounts);

test('every account that waits has a turn within as many turns as there are accounts', ({ expect }) => {
  fc.assert(
    fc.property(fc.array(account, { minLength: 1, maxLength: 40 }), (names) => {
      const stage = new Stage({ placesMax: 40 });
      for (const name of names) stage.enter(name);
      const left = new Map<string, number>();
      for (const name of names) left.set(name, (left.get(name) ?? 0) + 1);
      const since = new Map<string, number>();
      for (let turn = 0; turn < names.length; turn += 1) {
        const waiting = [...left].filter(([, count]) => count > 0).map(([name]) => name);
        stage.places(1);
        const name = stage.went.at(-1)?.[0] ?? '';
        left.set(name, (left.get(name) ?? 0) - 1);
        for (const one of waiting) since.set(one, one === name ? 0 : (since.get(one) ?? 0) + 1);
        expect(Math.max(...since.values())).toBeLessThan(accounts.length);
      }
      expect(stage.room.size).toBe(0);
    }),
  );
});

type Step =
  | { readonly kind: 'enter'; readonly account: string; readonly isPicky: boolean; readonly isUrgent: boolean }
  | { readonly kind: 'leave'; readonly index: number }
  | { readonly kind: 'places'; readonly count: number };

const steps = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constant('enter' as const),
      account,
      isPicky: fc.boolean(),
      isUrgent: fc.boolean(),
    }),
    fc.record({ kind: fc.constant('leave' as const), index: fc.nat(60) }),
    fc.record({ kind: fc.constant('places' as const), count: fc.integer({ min: 1, max: 4 }) }),
  ),
  { maxLength: 80 },
);

test('nobody is lost, nobody is called twice, no order is turned round, and the bound holds', ({ expect }) => {
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 12 }), (all: readonly Step[], placesMax) => {
      const stage = new Stage({ placesMax });
      for (const step of all) {
        if (step.kind === 'enter') stage.enter(step.account, { isPicky: step.isPicky, isUrgent: step.isUrgent });
        else if (step.kind === 'leave') stage.guests[step.index]?.leave();
        else stage.places(step.count);
        // What nobody took is gone.
        stage.free = 0;
        const waiting = stage.guests.filter(({ ends }) => ends.length === 0);
        expect(waiting.length).toBe(stage.room.size);
        expect(stage.room.size).toBeLessThanOrEqual(placesMax);
      }
      expect(stage.guests.filter(({ ends }) => ends.length > 1)).toEqual([]);
      const left = stage.room.size;
      stage.places(left);
      expect([stage.room.size, stage.free]).toEqual([0, 0]);
      expect(stage.guests.filter(({ ends }) => ends.length !== 1)).toEqual([]);
      for (const isUrgent of [true, false]) {
        const inOrder = stage.guests.filter((guest) => guest.isUrgent === isUrgent && guest.ends[0] === 'went');
        for (const name of accounts) {
          const ofAccount = inOrder.filter((guest) => guest.account === name).map((guest) => guest.name);
          expect(stage.went.filter((one) => ofAccount.includes(one))).toEqual(ofAccount);
        }
      }
    }),
  );
});
