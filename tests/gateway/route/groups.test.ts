/** Which digest a name stands for. */

import { describe, test } from 'vitest';
import { chooseGroup, groupHoldMs } from '../../../gateway/route/groups.ts';
import { parseModelReference } from '../../../protocol/model-reference.ts';
import { ms } from '../../../protocol/units.ts';
import { digestOf } from './routed-node.ts';

describe('groups', () => {
  const size = (letter: string, owners: number, nodes: number) => ({ digest: digestOf(letter), owners, nodes });

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
    expect(chooseGroup([size('a', 1, 9), size('b', 2, 2)], undefined, ms(0))?.digest).toBe(digestOf('b'));
  });

  test('a held group stays until it has been empty for a minute, whatever else is offered', ({ expect }) => {
    const held = { digest: digestOf('a'), emptySinceMs: undefined };
    expect(chooseGroup([size('a', 1, 1), size('b', 9, 9)], held, ms(0))).toEqual(held);
    const empty = chooseGroup([size('b', 9, 9)], held, ms(1_000));
    expect(empty).toEqual({ digest: digestOf('a'), emptySinceMs: 1_000 });
    expect(chooseGroup([size('b', 9, 9)], empty, ms(999 + groupHoldMs))?.digest).toBe(digestOf('a'));
    expect(chooseGroup([size('b', 9, 9)], empty, ms(1_000 + groupHoldMs))?.digest).toBe(digestOf('b'));
    expect(chooseGroup([], empty, ms(1_000 + groupHoldMs))).toBeUndefined();
  });
});
