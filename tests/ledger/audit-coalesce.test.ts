/** Floods in the audit log: what others can repeat at will is counted, what was granted or changed never is. */

import { describe, test } from 'vitest';
import type { AuditRecord } from '../../ledger/audit.ts';
import { coalesceDefaults, createCoalescer } from '../../ledger/audit-coalesce.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { deed, peer, refusal } from './audit-stage.ts';

function stage(rowsMax = coalesceDefaults.rowsMax) {
  const clock = new ManualClock();
  const lines: AuditRecord[] = [];
  const coalescer = createCoalescer(clock, (record) => void lines.push(record), { ...coalesceDefaults, rowsMax });
  return { clock, lines, coalescer };
}

const keyOf = (index: number): string => `key:${index.toString(16).padStart(16, '0')}`;

describe('refusals', () => {
  test('the first is told at once, the others of its minute as one line with their count', async ({ expect }) => {
    const { clock, lines, coalescer } = stage();
    for (let index = 0; index < 1_000; index += 1) coalescer.note(refusal());
    expect(lines).toEqual([refusal()]);
    await clock.advance(59_999);
    expect(lines).toHaveLength(1);
    await clock.advance(1);
    expect(lines).toEqual([refusal(), refusal({ count: 999 })]);
  });

  test('the next minute begins anew', async ({ expect }) => {
    const { clock, lines, coalescer } = stage();
    coalescer.note(refusal());
    await clock.advance(60_000);
    coalescer.note(refusal());
    coalescer.note(refusal());
    await clock.advance(60_000);
    expect(lines).toEqual([refusal(), refusal(), refusal()]);
    expect(clock.timers).toBe(0);
  });

  test('one that differs in action, actor, object, outcome or reason has a line of its own', ({ expect }) => {
    const { lines, coalescer } = stage();
    const all = [
      refusal(),
      refusal({ action: 'admin.request' }),
      refusal({ actor: 'none' }),
      refusal({ object: 'none' }),
      refusal({ outcome: 'failed' }),
      refusal({ reason: 'KEY_REVOKED' }),
    ];
    for (const record of [...all, ...all]) coalescer.note(record);
    expect(lines).toEqual(all);
    coalescer.flush();
    expect(lines).toEqual([...all, ...all]);
  });

  test('more kinds than there are rows are counted together, per action and reason, and none is lost', async ({
    expect,
  }) => {
    const { clock, lines, coalescer } = stage(4);
    for (let index = 0; index < 10_000; index += 1) coalescer.note(refusal({ actor: keyOf(index) }));
    expect(lines).toHaveLength(4);
    await clock.advance(60_000);
    expect(lines).toHaveLength(5);
    expect(lines.at(-1)).toEqual(refusal({ actor: 'many', object: 'many', count: 9_996 }));
  });

  test('a flood of any make writes about a hundred lines a minute at most', async ({ expect }) => {
    const { clock, lines, coalescer } = stage();
    const sent = 20_000;
    for (let index = 0; index < sent; index += 1) {
      const more = { actor: keyOf(index % 997), reason: `R${index % 89}`, outcome: index % 2 ? 'failed' : 'refused' };
      coalescer.note(refusal(more as Partial<AuditRecord>));
    }
    await clock.advance(60_000);
    expect(lines.length).toBeLessThan(110);
    expect(lines.reduce((sum, { count = 1 }) => sum + count, 0)).toBe(sent);
  });
});

describe('what was done', () => {
  test('by whoever may use the directory, or with a key, is told each time', ({ expect }) => {
    const { lines, coalescer } = stage();
    const all = Array.from({ length: 500 }, () => deed());
    for (const record of all) coalescer.note(record);
    expect(lines).toEqual(all);
  });

  test('for one peer that asks again and again is counted', async ({ expect }) => {
    const { clock, lines, coalescer } = stage();
    const renewal = deed({ action: 'membership.renew', actor: `peer:${peer}`, object: `peer:${peer}` });
    for (let index = 0; index < 300; index += 1) coalescer.note(renewal);
    await clock.advance(60_000);
    expect(lines).toEqual([renewal, { ...renewal, count: 299 }]);
  });

  test('for different peers is told of each, however many they are, and whatever is refused meanwhile', async ({
    expect,
  }) => {
    const { clock, lines, coalescer } = stage(4);
    for (let index = 0; index < 10; index += 1) coalescer.note(refusal({ actor: keyOf(index) }));
    const joined = Array.from({ length: 1_500 }, (_, index) =>
      deed({ action: 'membership.issue', actor: `peer:${peer}${index}`, object: `peer:${peer}${index}` }),
    );
    for (const record of joined) coalescer.note(record);
    expect(lines.filter(({ outcome }) => outcome === 'done')).toEqual(joined);
    await clock.advance(60_000);
    expect(lines.filter(({ outcome }) => outcome === 'done')).toEqual(joined);
  });
});
