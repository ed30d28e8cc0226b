/** The pure rules of routing, as tables. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { candidatesOf, refusalsOf } from '../../../gateway/route/candidates.ts';
import { chooseGroup, groupHoldMs } from '../../../gateway/route/groups.ts';
import { attemptsMax, chooseLiveliest, chooseNode, mayRetry } from '../../../gateway/route/plan.ts';
import { better, expectedFirstContentMs, type RoutedNode } from '../../../gateway/route/score.ts';
import { type ErrorDetails, errorCodes, errorRow, HelixFlowError } from '../../../protocol/errors.ts';
import type { ModelDigest, PeerId } from '../../../protocol/ids.ts';
import { parseModelReference } from '../../../protocol/model-reference.ts';
import type { Random } from '../../../protocol/ports.ts';
import { ms } from '../../../protocol/units.ts';

const node = (peer: string, change: Partial<RoutedNode> = {}): RoutedNode => ({
  peer: peer as PeerId,
  slots: 4,
  active: 0,
  queued: 0,
  roundTripMs: 10,
  firstContentMeanMs: 100,
  answerMeanMs: 1_000,
  lastHeardMs: 0,
  bodyMaxBytes: 1_000,
  isDraining: false,
  isResponsive: true,
  ...change,
});

const nothing = { tried: new Set<PeerId>(), bodyBytes: 10 };

describe('candidates', () => {
  test('leave out nodes that drain, are silent, have no slots, were tried or cannot take the body, each with its reason', ({
    expect,
  }) => {
    const group = [
      node('a'),
      node('b', { isDraining: true }),
      node('c', { isResponsive: false }),
      node('d', { slots: 0 }),
      node('e'),
      node('f', { bodyMaxBytes: 9 }),
    ];
    const needs = { tried: new Set(['e' as PeerId]), bodyBytes: 10 };
    expect(candidatesOf(group, needs).map(({ peer }) => peer)).toEqual(['a']);
    expect(refusalsOf(group, needs)).toEqual([
      { peer: 'b', reason: 'draining' },
      { peer: 'c', reason: 'silent' },
      { peer: 'd', reason: 'no-slots' },
      { peer: 'e', reason: 'tried' },
      { peer: 'f', reason: 'body-too-large' },
    ]);
  });
});

describe('score', () => {
  test.for<[string, Partial<RoutedNode>, number]>([
    ['round trip and usual first content when a slot is free', {}, 110],
    ['nothing for slots in use while one is free', { active: 3 }, 110],
    ['the answers ahead when none is free', { active: 4 }, 110 + 250],
    ['the queue as well', { active: 4, queued: 3 }, 110 + 1_000],
    ['a guess where no answer has been seen', { active: 4, answerMeanMs: 0 }, 110 + 250],
  ])('counts %s', ([, change, expected], { expect }) => {
    expect(expectedFirstContentMs(node('a', change))).toBe(expected);
  });

  test('prefers the sooner one, and of equals the less used', ({ expect }) => {
    expect(better(node('a', { firstContentMeanMs: 300 }), node('b')).peer).toBe('b');
    expect(better(node('a', { active: 2 }), node('b', { active: 1 })).peer).toBe('b');
  });
});

describe('plan', () => {
  const draws = (...values: number[]): Random => {
    const random: Random = {
      int: (max) => (values.shift() ?? 0) % max,
      float: () => 0,
      bytes: (count) => new Uint8Array(count),
      fork: () => random,
    };
    return random;
  };

  test('takes the better of two different candidates, whichever are drawn', ({ expect }) => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 9 }), fc.nat(99), fc.nat(99), (count, one, two) => {
        const group = Array.from({ length: count }, (_, index) =>
          node(`n${index}`, { firstContentMeanMs: 100 * index }),
        );
        const first = one % count;
        const second = (first + 1 + (two % (count - 1))) % count;
        expect(second).not.toBe(first);
        expect(chooseNode(group, draws(one, two))?.peer).toBe(`n${Math.min(first, second)}`);
      }),
    );
    expect(chooseNode([], draws())).toBeUndefined();
    expect(chooseNode(candidatesOf([node('only')], nothing), draws())?.peer).toBe('only');
  });

  test('after a loss takes the one heard last, however it scores', ({ expect }) => {
    const group = [
      node('a', { lastHeardMs: 5 }),
      node('b', { lastHeardMs: 9, firstContentMeanMs: 9_999 }),
      node('c', { lastHeardMs: 7 }),
    ];
    expect(chooseLiveliest(group)?.peer).toBe('b');
    expect(chooseLiveliest([])).toBeUndefined();
  });

  test('retries exactly what the error table calls retryable, before first content, up to the limit', ({ expect }) => {
    for (const code of errorCodes) {
      const error = new HelixFlowError(code, {} as ErrorDetails[typeof code]);
      const isRetryable = errorRow(code).retry !== 'never';
      expect([code, mayRetry(error, 1, false)]).toEqual([code, isRetryable]);
      expect([code, mayRetry(error, attemptsMax, false)]).toEqual([code, false]);
      expect([code, mayRetry(error, 1, true)]).toEqual([code, false]);
    }
  });
});

describe('groups', () => {
  const digest = (letter: string): ModelDigest => letter.repeat(64) as ModelDigest;
  const size = (letter: string, owners: number, nodes: number) => ({ digest: digest(letter), owners, nodes });

  test.for<[string, { name: string; digestPrefix: string | undefined }]>([
    ['qwen', { name: 'qwen', digestPrefix: undefined }],
    ['org/qwen:7b', { name: 'org/qwen:7b', digestPrefix: undefined }],
    ['qwen@0123abcd', { name: 'qwen', digestPrefix: '0123abcd' }],
    ['q@home', { name: 'q@home', digestPrefix: undefined }],
    ['q@home@0123abcd', { name: 'q@home', digestPrefix: '0123abcd' }],
  ])('reads %s', ([text, expected], { expect }) => {
    expect(parseModelReference(text)).toEqual(expected);
  });

  test('a name goes to the digest of most owners, not of most nodes', ({ expect }) => {
    expect(chooseGroup([size('a', 1, 9), size('b', 2, 2)], undefined, ms(0))?.digest).toBe(digest('b'));
  });

  test('a held group stays until it has been empty for a minute, whatever else is offered', ({ expect }) => {
    const held = { digest: digest('a'), emptySinceMs: undefined };
    expect(chooseGroup([size('a', 1, 1), size('b', 9, 9)], held, ms(0))).toEqual(held);
    const empty = chooseGroup([size('b', 9, 9)], held, ms(1_000));
    expect(empty).toEqual({ digest: digest('a'), emptySinceMs: 1_000 });
    expect(chooseGroup([size('b', 9, 9)], empty, ms(999 + groupHoldMs))?.digest).toBe(digest('a'));
    expect(chooseGroup([size('b', 9, 9)], empty, ms(1_000 + groupHoldMs))?.digest).toBe(digest('b'));
    expect(chooseGroup([], empty, ms(1_000 + groupHoldMs))).toBeUndefined();
  });
});
