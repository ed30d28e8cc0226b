/** Keys of tags: every gateway names callers alike, nobody else can, and after their time nobody at all. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { createTags, dayOf, daysFrom, type TagKeys } from '../../ledger/tag-keys.ts';
import type { AccountId, IssuerId, KeyId } from '../../protocol/ids.ts';
import type { Store } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';
import { SimRandom } from '../../sim/random.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { silentLog } from './feed-stage.ts';
import { LeaseMesh } from './lease-stage.ts';

const issuer = '12'.repeat(16) as IssuerId;
const owner = { issuer, account: 'acct-one' as AccountId, key: '00000000000000aa' as KeyId };
const dayMs = 86_400_000;

class LateClock extends ManualClock {
  aheadMs = 0;
  override wallMs() {
    return unixMs(super.wallMs() + this.aheadMs);
  }
}

let drawn = 0;
async function open(
  store: Store = new MemoryStore(),
  clock = new LateClock(),
): Promise<{ tags: TagKeys; clock: LateClock; store: Store }> {
  drawn += 1;
  const tags = createTags({ store, clock, random: new SimRandom(`tags ${drawn}`), log: silentLog });
  await tags.open();
  return { tags, clock, store };
}

describe('a caller', () => {
  test('is named by the key of the day, else by the newest before it, else by this gateway’s own', async ({
    expect,
  }) => {
    const { tags, clock } = await open();
    const today = dayOf(clock.wallMs());
    const own = tags.callerOf(owner, clock.wallMs());
    expect([own.day, own.account]).toEqual([0, tags.accountTag(issuer, owner.account, 0)]);
    await tags.draw(issuer, [today]);
    const named = tags.callerOf(owner, clock.wallMs());
    expect(named).toEqual({
      day: today,
      account: tags.accountTag(issuer, owner.account, today),
      key: tags.keyTag(issuer, owner.key, today),
    });
    expect(named.account).not.toBe(own.account);
    expect(tags.callerOf(owner, unixMs(clock.wallMs() + 3 * dayMs)).day).toBe(today);
    expect(tags.callerOf(owner, unixMs(clock.wallMs() - 3 * dayMs)).day).toBe(0);
  });

  test('is not taken for another one whose key has the same id', async ({ expect }) => {
    const { tags, clock } = await open();
    const others = [
      { ...owner, issuer: '34'.repeat(16) as IssuerId },
      { ...owner, account: 'acct-two' as AccountId },
    ];
    const named = [owner, ...others, owner].map((one) => tags.callerOf(one, clock.wallMs()).account);
    expect([new Set(named).size, named[3]]).toEqual([3, named[0]]);
  });

  test('has other tags each day, at each issuer, and as key and as account', async ({ expect }) => {
    const { tags, clock } = await open();
    const today = dayOf(clock.wallMs());
    const other = '34'.repeat(16) as IssuerId;
    const same = 'acct-same' as AccountId;
    await tags.draw(issuer, daysFrom(today));
    await tags.draw(other, [today]);
    const all = [
      tags.accountTag(issuer, same, today),
      tags.accountTag(issuer, same, today + 1),
      tags.accountTag(other, same, today),
      tags.keyTag(issuer, '00000000000000aa' as KeyId, today),
      tags.accountTag(issuer, '00000000000000aa' as AccountId, today),
    ];
    expect(new Set(all).size).toBe(all.length);
    expect(all.every((tag) => /^[0-9a-f]{16}$/.test(tag ?? ''))).toBe(true);
  });
});

describe('keys', () => {
  test('are the same after a restart, and a damaged row is left out', async ({ expect }) => {
    const { tags, clock, store } = await open();
    const today = dayOf(clock.wallMs());
    await tags.draw(issuer, [today, today + 1]);
    const before = [0, today, today + 1].map((day) => tags.accountTag(issuer, owner.account, day));
    await tags.close();
    const again = await open(store, clock);
    expect([0, today, today + 1].map((day) => again.tags.accountTag(issuer, owner.account, day))).toEqual(before);
    await again.tags.close();
    const key = new TextEncoder().encode(`t/${issuer}/${today}`);
    const row = (await store.get(key))?.slice() ?? new Uint8Array();
    row[20] = (row[20] ?? 0) ^ 1;
    await store.batch([{ type: 'put', key, value: row }], { sync: true });
    const { tags: damaged } = await open(store, clock);
    expect([0, today, today + 1].map((day) => damaged.accountTag(issuer, owner.account, day))).toEqual([
      before[0],
      undefined,
      before[2],
    ]);
    expect(await store.get(key)).toBe(undefined);
  });

  test('whatever a row has become, opening ends well', async ({ expect }) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 80 }), fc.string({ maxLength: 40 }), async (value, name) => {
        const store = new MemoryStore();
        await store.batch([{ type: 'put', key: new TextEncoder().encode(`t/${name}`), value }]);
        const { tags, clock } = await open(store);
        expect(tags.callerOf(owner, clock.wallMs()).day).toBe(0);
        expect(store.size).toBe(1);
        await tags.close();
      }),
      { numRuns: 60 },
    );
  });

  test('of two for one day both are kept, the first names callers; of days far off none is taken', async ({
    expect,
  }) => {
    const { tags, clock, store } = await open();
    const today = dayOf(clock.wallMs());
    const keyOf = (fill: number): Uint8Array => new Uint8Array(32).fill(fill);
    await tags.take(issuer, [
      { day: today, key: keyOf(1) },
      { day: today + 30, key: keyOf(2) },
      { day: today - 41, key: keyOf(3) },
      { day: 0, key: keyOf(4) },
    ]);
    await tags.take(issuer, [{ day: today, key: keyOf(9) }]);
    const both = [
      { day: today, key: keyOf(1) },
      { day: today, key: keyOf(9) },
    ];
    expect(tags.held(issuer, [0, today - 41, today, today + 30])).toEqual(both);
    const told = tags.accountTags(issuer, owner.account, today);
    expect(new Set(told).size).toBe(2);
    expect(tags.callerOf(owner, clock.wallMs()).account).toBe(told[0]);
    await tags.close();
    const { tags: again } = await open(store, clock);
    expect(again.accountTags(issuer, owner.account, today)).toEqual(told);
    expect(again.held(issuer, [today])).toEqual(both);
  });

  test('are gone 40 days after their day, from memory and from the disk, the gateway’s own with them', async ({
    expect,
  }) => {
    const { tags, clock, store } = await open();
    const today = dayOf(clock.wallMs());
    await tags.draw(issuer, [today, today + 1]);
    const own = tags.accountTag(issuer, owner.account, 0);
    clock.aheadMs = 41 * dayMs;
    await clock.advance(3_600_000);
    expect(tags.held(issuer, [today, today + 1]).map(({ day }) => day)).toEqual([today + 1]);
    expect(tags.accountTag(issuer, owner.account, today)).toBe(undefined);
    expect(tags.accountTag(issuer, owner.account, 0)).not.toBe(own);
    expect(await store.get(new TextEncoder().encode(`t/${issuer}/${today}`))).toBe(undefined);
    await tags.close();
    const again = await open(store, clock);
    expect(again.tags.held(issuer, [today, today + 1]).map(({ day }) => day)).toEqual([today + 1]);
  });
});

describe('in a mesh', () => {
  test('every gateway names a caller alike, from the first seconds on', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(3);
    await mesh.stage.pass(15_000);
    const { issuerId } = mesh.stage;
    const callers = mesh.sites.map((site) =>
      mesh.tagsOf(site).callerOf({ ...owner, issuer: issuerId }, site.ports.clock.wallMs()),
    );
    expect(callers[0]?.day).toBe(dayOf(mesh.site(0).ports.clock.wallMs()));
    expect(new Set(callers.map((caller) => JSON.stringify(caller))).size).toBe(1);
  });

  test('keys of the next days are there before them, without whoever draws them', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    await mesh.stage.pass(15_000);
    await mesh.kill(mesh.site(0));
    const site = mesh.site(1);
    site.machine.setSkew(2 * dayMs);
    const today = dayOf(site.ports.clock.wallMs());
    expect(mesh.tagsOf(site).callerOf({ ...owner, issuer: mesh.stage.issuerId }, site.ports.clock.wallMs()).day).toBe(
      today,
    );
  });

  test('a gateway that comes later learns those of past days, and one that draws gets back what it lost', async ({
    expect,
  }) => {
    await using mesh = await LeaseMesh.create(2);
    const authority = mesh.site(0);
    const blank = authority.machine.disk.backup();
    await mesh.stage.pass(15_000);
    const { issuerId } = mesh.stage;
    const today = dayOf(authority.ports.clock.wallMs());
    const tagAt = (at: number) => mesh.tagsOf(mesh.site(at)).accountTag(issuerId, owner.account, today);
    const before = tagAt(1);
    expect(tagAt(0)).toBe(before);
    await mesh.kill(authority);
    authority.machine.disk.restore(blank);
    await mesh.boot(authority);
    await mesh.stage.link(mesh.site(1), authority);
    await mesh.stage.pass(20_000);
    expect([before, tagAt(0)]).toEqual([tagAt(1), before]);
    for (const site of mesh.sites) site.machine.setSkew(5 * dayMs);
    await mesh.stage.pass(20_000);
    const late = await mesh.add();
    await mesh.stage.link(late, authority);
    await mesh.stage.pass(90_000);
    expect(mesh.tagsOf(late).accountTag(issuerId, owner.account, today)).toBe(before);
  });

  test('where a key was drawn twice for a day, each gateway comes to tell the tags of both', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(3);
    const authority = mesh.site(0);
    const blank = authority.machine.disk.backup();
    await mesh.stage.pass(15_000);
    const { issuerId } = mesh.stage;
    // The key of the first days may be in the backup.
    for (const site of mesh.sites) site.machine.setSkew(5 * dayMs);
    await mesh.stage.pass(20_000);
    const today = dayOf(authority.ports.clock.wallMs());
    const tagsAt = (at: number) => mesh.tagsOf(mesh.site(at)).accountTags(issuerId, owner.account, today);
    const [first] = tagsAt(1);
    await mesh.kill(authority);
    authority.machine.disk.restore(blank);
    await mesh.boot(authority);
    await mesh.stage.pass(20_000);
    const [second] = tagsAt(0);
    expect([tagsAt(0).length, second === first]).toEqual([1, false]);
    await mesh.relink();
    await mesh.stage.pass(20_000);
    for (const at of [0, 1, 2]) expect(tagsAt(at).toSorted()).toEqual([first, second].toSorted());
  });

  test('whoever draws them asks for those that others hold first, also for days that are over', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    const authority = mesh.site(0);
    const blank = authority.machine.disk.backup();
    await mesh.stage.pass(15_000);
    const { issuerId } = mesh.stage;
    const today = dayOf(authority.ports.clock.wallMs());
    for (const site of mesh.sites) site.machine.setSkew(5 * dayMs);
    await mesh.stage.pass(20_000);
    const days = [today, today + 5];
    const before = mesh.tagsOf(mesh.site(1)).held(issuerId, days);
    await mesh.kill(authority);
    authority.machine.disk.restore(blank);
    await mesh.boot(authority, { recovers: true });
    await mesh.stage.link(mesh.site(1), authority);
    await mesh.stage.pass(20_000);
    expect(before.length).toBe(2);
    expect(mesh.tagsOf(authority).held(issuerId, days)).toEqual(before);
    expect(mesh.tagsOf(mesh.site(1)).held(issuerId, days)).toEqual(before);
  });
});
