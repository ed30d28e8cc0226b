/** Who holds the beginning of a request, against a naive memory of whole bodies. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { bodyMinBytes, createPrefixMemory, type PrefixMemory } from '../../../gateway/route/prefix.ts';
import { blockEnd, hashBlocks } from '../../../gateway/route/prefix-blocks.ts';
import { peersPerBlock } from '../../../gateway/route/prefix-table.ts';
import type { PeerId } from '../../../protocol/ids.ts';
import { encodeChatRequest } from '../../../protocol/messages/chat.ts';
import { SimRandom } from '../../../sim/random.ts';
import { digestOf, peerId } from './routed-node.ts';

const model = digestOf('a');
const [a, b, c] = [peerId('a'), peerId('b'), peerId('c')];

const memoryOf = (entriesMax?: number): PrefixMemory =>
  createPrefixMemory({ random: new SimRandom('salt') }, entriesMax === undefined ? {} : { entriesMax });
/** Bytes that follow from a seed; the same seed gives the same beginning. */
const bytesOf = (seed: string, count: number): Uint8Array => new SimRandom(seed).bytes(count);
const join = (...parts: Uint8Array[]): Uint8Array => {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
};
const heldOf = (memory: PrefixMemory, body: Uint8Array, scope = 'acct'): Record<string, number> =>
  Object.fromEntries(memory.held(memory.chainOf(scope, model, body)));
const note = (memory: PrefixMemory, body: Uint8Array, peer: PeerId, scope = 'acct'): void =>
  memory.note(memory.chainOf(scope, model, body), peer);

describe('blocks', () => {
  test('have 256 bytes at first, and up to 4,096 later', ({ expect }) => {
    const ends = Array.from({ length: 25 }, (_, index) => blockEnd(index));
    const sizes = ends.map((end, index) => end - (ends[index - 1] ?? 0));
    expect(sizes.slice(0, 16)).toEqual(Array.from({ length: 16 }, () => 256));
    expect(sizes.slice(16)).toEqual([384, 576, 864, 1_296, 1_944, 2_916, 4_096, 4_096, 4_096]);
  });

  test('are few, and end before a body does', ({ expect }) => {
    const blocks = (bytes: number): number => hashBlocks([1, 2], new Uint8Array(bytes)).length / 2;
    expect([255, 256, 4_096, 12_075, 12_076, 1_048_576].map(blocks)).toEqual([0, 1, 16, 21, 22, 275]);
    // A longer body is known by its beginning.
    expect(blocks(8_000_000)).toBe(1_024);
  });

  test('have hashes that depend on every byte before their end, and on none after', ({ expect }) => {
    const body = bytesOf('body', 1_536);
    const before = hashBlocks([1, 2], body);
    fc.assert(
      fc.property(fc.nat(1_535), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const other = body.slice();
        other[at] = (other[at] ?? 0) ^ change;
        const after = hashBlocks([1, 2], other);
        const same = Array.from({ length: 6 }, (_, block) =>
          [0, 1].map((n) => after[2 * block + n] === before[2 * block + n]),
        );
        expect(same).toEqual(same.map((_, block) => (at < 256 * (block + 1) ? [false, false] : [true, true])));
      }),
    );
  });

  test('have hashes that differ, also where bodies hardly do', ({ expect }) => {
    const seen = [new Set<number>(), new Set<number>()];
    for (let at = 0; at < 256; at += 1) {
      for (const value of [1, 2, 128, 255]) {
        const body = new Uint8Array(256);
        body[at] = value;
        const [first = 0, second = 0] = hashBlocks([3, 4], body);
        seen[0]?.add(first);
        seen[1]?.add(second);
      }
    }
    expect(seen.map(({ size }) => size)).toEqual([1_024, 1_024]);
  });

  test('have the same hashes wherever the body lies in memory', ({ expect }) => {
    const body = bytesOf('body', 2_048);
    for (const offset of [1, 2, 3, 4]) {
      const moved = new Uint8Array(3_000);
      moved.set(body, offset);
      expect(hashBlocks([1, 2], moved.subarray(offset, offset + 2_048))).toEqual(hashBlocks([1, 2], body));
    }
  });
});

describe('a memory', () => {
  test('knows who has worked on the beginning of a request, and how far', ({ expect }) => {
    const memory = memoryOf();
    const start = bytesOf('start', 3_000);
    note(memory, join(start, bytesOf('one', 2_000)), a);
    note(memory, start, b);
    expect(heldOf(memory, join(start, bytesOf('two', 2_000)))).toEqual({ a: 2_816, b: 2_816 });
    expect(heldOf(memory, join(start, bytesOf('one', 5_000)))).toEqual({ a: 4_480, b: 2_816 });
    expect(heldOf(memory, bytesOf('other', 3_000))).toEqual({});
  });

  test('follows a conversation from turn to turn', ({ expect }) => {
    const memory = memoryOf();
    const turns = (count: number) =>
      encodeChatRequest({
        messages: Array.from({ length: count }, (_, at) => ({
          role: at % 2 === 0 ? ('user' as const) : ('assistant' as const),
          content: `turn ${at} `.repeat(60),
        })),
        maxTokens: 100 + count,
      });
    note(memory, turns(3), a);
    expect(heldOf(memory, turns(5))['a']).toBeGreaterThan(turns(3).length - 300);
    expect(heldOf(memory, turns(5))['a']).toBeLessThanOrEqual(turns(3).length);
  });

  test('knows nothing of short requests, and keeps nothing of them', ({ expect }) => {
    const memory = memoryOf();
    const short = bytesOf('short', bodyMinBytes - 1);
    expect(memory.chainOf('acct', model, short).bytes).toBe(0);
    expect(memory.chainOf('acct', model, short)).toBe(memory.chainOf('other', model, bytesOf('x', 3)));
    note(memory, short, a);
    expect(heldOf(memory, short)).toEqual({});
    expect(memory.chainOf('acct', model, bytesOf('short', bodyMinBytes)).bytes).toBe(512);
  });

  test('shows nothing of one account to another, nor of one model to another', ({ expect }) => {
    const memory = memoryOf();
    const body = bytesOf('body', 8_000);
    note(memory, body, a, 'one');
    expect(heldOf(memory, body, 'one')).toEqual({ a: 7_216 });
    expect(heldOf(memory, body, 'two')).toEqual({});
    expect(memory.held(memory.chainOf('one', digestOf('b'), body)).size).toBe(0);
    // The border between the two names counts.
    const shifted = memory.chainOf(`one${model[0]}`, `${model.slice(1)}` as typeof model, body);
    expect(memory.held(shifted).size).toBe(0);
  });

  test('of another process has other hashes', ({ expect }) => {
    const body = bytesOf('body', 600);
    const chains = ['salt', 'pepper'].map((seed) =>
      createPrefixMemory({ random: new SimRandom(seed) }).chainOf('a', model, body),
    );
    expect(chains[0]).not.toEqual(chains[1]);
    expect(chains[0]).toEqual(memoryOf().chainOf('a', model, body));
  });

  test('forgets a node, and knows it again when it works again', ({ expect }) => {
    const memory = memoryOf();
    const body = bytesOf('body', 1_000);
    note(memory, body, a);
    note(memory, body, b);
    memory.forget(a);
    memory.forget(c);
    expect(heldOf(memory, body)).toEqual({ b: 768 });
    note(memory, body.subarray(0, 600), a);
    expect(heldOf(memory, body)).toEqual({ a: 512, b: 768 });
  });

  test('forgets what a node turns out not to hold, and nothing else', ({ expect }) => {
    const memory = memoryOf();
    const start = bytesOf('start', 1_024);
    const long = join(start, bytesOf('long', 1_024));
    note(memory, long, a);
    note(memory, long, b);
    memory.missed(memory.chainOf('acct', model, start), a);
    memory.missed(memory.chainOf('acct', model, start), c);
    expect(heldOf(memory, start)).toEqual({ b: 1_024 });
    memory.missed(memory.chainOf('acct', model, long), a);
    expect(heldOf(memory, long)).toEqual({ b: 2_048 });
  });

  test('forgets so of each node of a block in turn', ({ expect }) => {
    const memory = memoryOf();
    const body = bytesOf('body', 512);
    const peers = ['p0', 'p1', 'p2', 'p3'];
    for (const peer of peers) note(memory, body, peerId(peer));
    for (const [at, peer] of peers.toReversed().entries()) {
      memory.missed(memory.chainOf('acct', model, body), peerId(peer));
      expect(Object.keys(heldOf(memory, body)).sort()).toEqual(peers.slice(0, 3 - at));
    }
  });

  test('takes no block for another one, however many come and go', ({ expect }) => {
    const memory = memoryOf(64);
    for (let at = 0; at < 400; at += 1) {
      const body = bytesOf(`body${at}`, 512);
      expect(heldOf(memory, body)).toEqual({});
      note(memory, body, peerId(`p${at}`));
      expect(heldOf(memory, body)).toEqual({ [`p${at}`]: 512 });
    }
  });

  test('remembers the four newest nodes of a block', ({ expect }) => {
    const memory = memoryOf();
    const body = bytesOf('body', 512);
    const peers = ['p0', 'p1', 'p2', 'p3', 'p4', 'p5'];
    for (const peer of peers) note(memory, body, peerId(peer));
    note(memory, body, peerId('p2'));
    note(memory, body, peerId('p6'));
    expect(Object.keys(heldOf(memory, body)).sort()).toEqual(['p2', 'p4', 'p5', 'p6']);
    expect(peersPerBlock).toBe(4);
  });

  test('keeps the newest half at least, and what is in use', ({ expect }) => {
    const memory = memoryOf(64);
    const body = (at: number): Uint8Array => bytesOf(`body${at}`, 512);
    const kept = body(-1);
    note(memory, kept, a);
    for (let at = 0; at < 200; at += 1) {
      note(memory, body(at), b);
      if (at % 10 === 0) note(memory, kept, c);
    }
    const known = Array.from({ length: 200 }, (_, at) => heldOf(memory, body(at))['b'] === 512);
    const count = known.filter(Boolean).length;
    expect(known.slice(-16)).toEqual(Array.from({ length: 16 }, () => true));
    expect(count).toBeLessThanOrEqual(32);
    // What it knew of a block comes along when the block is used again.
    expect(heldOf(memory, kept)).toEqual({ a: 512, c: 512 });
  });

  test('is bounded by nodes as well', ({ expect }) => {
    const memory = memoryOf();
    const body = (at: number): Uint8Array => bytesOf(`body${at}`, 512);
    for (let at = 0; at <= 4_096; at += 1) note(memory, body(at), peerId(`p${at}`));
    expect([heldOf(memory, body(0)), heldOf(memory, body(1))]).toEqual([{}, { p1: 512 }]);
  });

  test('agrees with one that keeps whole bodies', ({ expect }) => {
    const parts = Array.from({ length: 4 }, (_, at) => bytesOf(`part${at}`, 700));
    const list = fc.array(fc.nat(3), { maxLength: 4 });
    const bodyOf = (numbers: readonly number[]): Uint8Array =>
      join(...numbers.map((at) => parts[at] ?? new Uint8Array()));
    const scope = fc.constantFrom('one', 'two');
    const step = fc.record({
      kind: fc.constantFrom('note', 'note', 'note', 'forget', 'missed'),
      scope,
      list,
      peer: fc.constantFrom(a, b, c),
    });
    /** All beginnings of a body that end with a block, by their length. */
    const beginnings = (peer: PeerId, name: string, whole: Uint8Array): [end: number, key: string][] => {
      const found: [number, string][] = [];
      for (let index = 0; whole.length >= bodyMinBytes && blockEnd(index) <= whole.length; index += 1) {
        const end = blockEnd(index);
        found.push([end, `${peer}/${name}/${Buffer.from(whole.subarray(0, end)).toString('base64')}`]);
      }
      return found;
    };
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), scope, list, (steps, asked, last) => {
        const memory = memoryOf();
        const naive = new Set<string>();
        for (const one of steps) {
          const chain = memory.chainOf(one.scope, model, bodyOf(one.list));
          const keys = beginnings(one.peer, one.scope, bodyOf(one.list)).map(([, key]) => key);
          if (one.kind === 'note') {
            memory.note(chain, one.peer);
            for (const key of keys) naive.add(key);
          } else if (one.kind === 'missed') {
            memory.missed(chain, one.peer);
            for (const key of keys) naive.delete(key);
          } else {
            memory.forget(one.peer);
            for (const key of [...naive]) if (key.startsWith(`${one.peer}/`)) naive.delete(key);
          }
        }
        const expected: Record<string, number> = {};
        for (const peer of [a, b, c]) {
          for (const [end, key] of beginnings(peer, asked, bodyOf(last))) if (naive.has(key)) expected[peer] = end;
        }
        expect(heldOf(memory, bodyOf(last), asked)).toEqual(expected);
      }),
    );
  });
});
