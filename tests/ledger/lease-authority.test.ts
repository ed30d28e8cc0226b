/** Who keeps budgets: what it gives and to whom, what it takes from reports, and whose word on leases counts. */

import { describe, test } from 'vitest';
import { authorIdOf, authorKeyOf } from '../../ledger/block.ts';
import type { Entry } from '../../ledger/entry.ts';
import type { EntryPlace, HeldEntry } from '../../ledger/feeds.ts';
import { createLeaseAuthority, type LeaseAuthority } from '../../ledger/lease-authority.ts';
import { budgetMaxMicro, type LeaseEntry } from '../../ledger/money.ts';
import { type IssuerCertificate, issuerIdOf, type Succession } from '../../protocol/grants.ts';
import type { AccountId, AuthorId, EpochId, LeaseId, PeerId } from '../../protocol/ids.ts';
import type { MoneyAsk } from '../../protocol/messages/lease.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import { newMesh, quietLog, seeded, startMs } from '../protocol/mesh-fixture.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { MemoryLedger } from './memory-ledger.ts';

const account = 'acct-one' as AccountId;
const epoch = 'ee'.repeat(16) as EpochId;
const before = 'bb'.repeat(16) as EpochId;
const leaseOf = (digit: number): LeaseId => `${digit}`.repeat(32) as LeaseId;
const gina = peerIdOf(seeded('Gina').publicKey);
const gabe = peerIdOf(seeded('Gabe').publicKey);
const old = seeded('old issuer');
const stranger = seeded('stranger');
const oldIssuer = issuerIdOf(old.publicKey);

class Stage {
  readonly authority: LeaseAuthority;
  readonly ledger: MemoryLedger;
  readonly #told = new Map<string, number>();

  private constructor(ledger: MemoryLedger, clock: ManualClock, succeeds: Succession | undefined) {
    this.ledger = ledger;
    const own = this.issuer;
    const publicKeys = [old.publicKey, stranger.publicKey];
    const certificates = publicKeys.map((publicKey) => ({ issuer: issuerIdOf(publicKey), publicKey }));
    const all = [...certificates, { ...own, ...(succeeds === undefined ? {} : { succeeds }) }] as IssuerCertificate[];
    const roots = { certificateOf: (id: string) => all.find(({ issuer }) => issuer === id), issuers: new Map() };
    const deps = {
      ...{ store: new MemoryStore(), clock, log: quietLog, spentFrom: () => 0, recall: () => {} },
      ledger: Object.assign(ledger, { roots: roots as never, own: () => ({ epoch }) as never }),
    };
    this.authority = createLeaseAuthority(deps, { self: peerIdOf(seeded('self').publicKey), author: ledger.author });
  }

  static async open(
    succeeds?: Succession,
    budget = { amountMicro: 1_000, period: 'total' as 'total' | 'day' },
  ): Promise<Stage> {
    const clock = new ManualClock();
    const stage = new Stage(await MemoryLedger.open({ mesh: await newMesh('authority'), clock }), clock, succeeds);
    await stage.ledger.append('issuer', [{ kind: 'account', account, limits: {}, strict: false, budget }]);
    for (const author of [stage.ledger.author, authorIdOf(old.publicKey), authorIdOf(stranger.publicKey)]) {
      stage.tell(author, { kind: 'author', role: 'issuer', peer: gina, certificate: '', membership: '' });
    }
    await stage.authority.open();
    return stage;
  }

  get issuer(): Pick<IssuerCertificate, 'issuer' | 'publicKey'> {
    const publicKey = authorKeyOf(this.ledger.author);
    return { issuer: issuerIdOf(publicKey), publicKey };
  }

  tell(author: AuthorId, entry: Entry, at: Partial<EntryPlace> = {}): void {
    const number = this.#told.get(author) ?? 0;
    this.#told.set(author, number + 1);
    const place = { author, epoch, generation: 0, number, index: 0, timeMs: startMs, isAfterFork: false, ...at };
    this.authority.entry({ entry, place, bytes: new Uint8Array() } as HeldEntry);
  }

  async ask(from: PeerId, changes: Partial<MoneyAsk> = {}): Promise<string> {
    const answer = await this.authority.ask(from, {
      ...{ type: 'ask', id: 1, issuer: this.issuer.issuer, account, isStrict: false, epoch, lease: leaseOf(1) },
      ...{ knownMicro: 0, leastMicro: 100, needMicro: 0, wantMicro: 0 },
      ...changes,
    });
    return answer.type === 'grant' ? `${answer.amountMicro}` : answer.reason;
  }

  leases(): readonly LeaseEntry[] {
    return this.ledger.entries.flatMap((entry) => (entry.kind === 'lease' ? [entry] : []));
  }

  get leftMicro(): number | undefined {
    return this.authority.sheet(account)?.leftMicro;
  }
}

const lease = (digit: number, amountMicro: number, more: Partial<LeaseEntry> = {}): LeaseEntry => ({
  ...{ kind: 'lease', lease: leaseOf(digit), account, holder: gabe, epoch, period: 0, amountMicro },
  ...more,
});

describe('a lease that is asked for again', () => {
  test('is raised for its holder alone, in its epoch, and while it is open', async ({ expect }) => {
    const stage = await Stage.open();
    expect([
      await stage.ask(gina),
      await stage.ask(gina, { knownMicro: 100 }),
      await stage.ask(gabe, { knownMicro: 200 }),
      await stage.ask(gina, { knownMicro: 200, epoch: before }),
    ]).toEqual(['100', '200', 'over', 'over']);
    stage.tell(stage.ledger.author, { kind: 'writeoff', lease: leaseOf(1), epoch, spentMicro: 50 });
    expect([await stage.ask(gina, { knownMicro: 200 }), stage.leftMicro]).toEqual(['over', 950]);
  });

  test('is not raised with money of the next period', async ({ expect }) => {
    const stage = await Stage.open(undefined, { amountMicro: 1_000, period: 'day' });
    stage.tell(stage.ledger.author, lease(1, 100, { holder: gina, period: 1 }));
    expect(await stage.ask(gina, { knownMicro: 100 })).toBe('over');
  });

  test('is told again, and not given again, where the answer was lost', async ({ expect }) => {
    const stage = await Stage.open();
    expect([await stage.ask(gina), await stage.ask(gina)]).toEqual(['100', '100']);
    expect(stage.leases()).toHaveLength(1);
    expect(await stage.ask(gina, { leastMicro: 150 })).toBe('150');
  });

  test('takes what its holder knows it to be, where that was forgotten here', async ({ expect }) => {
    const stage = await Stage.open();
    expect(await stage.ask(gina, { knownMicro: 900 })).toBe('1000');
    expect([stage.leftMicro, await stage.ask(gabe, { lease: leaseOf(2) })]).toEqual([0, 'exhausted']);
  });

  test('counts the part that is known here once', async ({ expect }) => {
    const stage = await Stage.open();
    await stage.ask(gina);
    // 400 of 1,000 are gone, 100 of them known here.
    expect([
      await stage.ask(gina, { knownMicro: 400, leastMicro: 601 }),
      await stage.ask(gina, { knownMicro: 400, leastMicro: 600 }),
      stage.leftMicro,
    ]).toEqual(['exhausted', '1000', 0]);
  });
});

describe('what a gateway reports', () => {
  const report = (stage: Stage, from: PeerId, amountMicro: number, more: Partial<LeaseEntry> = {}) => {
    const { kind: _, holder: __, ...held } = lease(1, amountMicro, more);
    return stage.authority.report(from, { type: 'report', issuer: stage.issuer.issuer, isLast: true, leases: [held] });
  };

  test('is written down where it is more than is known of a lease of its own', async ({ expect }) => {
    const stage = await Stage.open();
    await report(stage, gina, 300);
    await report(stage, gina, 200);
    await report(stage, gabe, 400);
    await report(stage, gina, 500, { account: 'acct-other' as AccountId });
    expect(stage.leases()).toEqual([lease(1, 300, { holder: gina })]);
  });

  test('to another issuer changes nothing', async ({ expect }) => {
    const stage = await Stage.open();
    const { kind: _, holder: __, ...held } = lease(1, 300);
    await stage.authority.report(gina, { type: 'report', issuer: oldIssuer, isLast: true, leases: [held] });
    expect([stage.leases(), stage.leftMicro]).toEqual([[], 1_000]);
  });

  test('counts once all of it has come', async ({ expect }) => {
    const stage = await Stage.open({ issuer: oldIssuer });
    stage.tell(authorIdOf(old.publicKey), lease(1, 100));
    expect([stage.authority.missing(), await stage.ask(gina, { isStrict: true, lease: leaseOf(2) })]).toEqual([
      [gabe],
      'unready',
    ]);
    const part = { type: 'report', issuer: stage.issuer.issuer, leases: [] } as const;
    await stage.authority.report(gabe, { ...part, isLast: false });
    expect(stage.authority.missing()).toEqual([gabe]);
    await stage.authority.report(gabe, { ...part, isLast: true });
    expect([stage.authority.missing(), await stage.ask(gina, { isStrict: true, lease: leaseOf(2) })]).toEqual([
      [],
      '100',
    ]);
  });
});

describe('what another issuer leased', () => {
  const oldAuthor = authorIdOf(old.publicKey);

  test('counts where this one took over from it, and not otherwise', async ({ expect }) => {
    for (const [succeeds, leftMicro] of [
      [undefined, 1_000],
      [{ issuer: oldIssuer }, 700],
    ] as const) {
      const stage = await Stage.open(succeeds);
      stage.tell(oldAuthor, lease(1, 300));
      stage.tell(authorIdOf(stranger.publicKey), lease(2, 500));
      stage.tell(authorIdOf(stranger.publicKey), lease(1, budgetMaxMicro, { account: 'acct-other' as AccountId }));
      expect(stage.leftMicro).toBe(leftMicro);
    }
  });

  test('is given back by its word up to the handover alone', async ({ expect }) => {
    const gone: Entry = { kind: 'writeoff', lease: leaseOf(1), epoch, spentMicro: 0 };
    const last = { epoch: before, number: 5 };
    const leftAfter = async (at: Partial<EntryPlace>, succeeds: Succession): Promise<unknown> => {
      const stage = await Stage.open(succeeds);
      stage.tell(oldAuthor, lease(1, 300), { epoch: before, generation: 1, number: 1 });
      stage.tell(oldAuthor, gone, at);
      return stage.leftMicro;
    };
    const named = { issuer: oldIssuer, last };
    expect({
      before: await leftAfter({ epoch: before, generation: 1, number: 5 }, named),
      after: await leftAfter({ epoch: before, generation: 1, number: 6 }, named),
      earlierEpoch: await leftAfter({ epoch: 'aa'.repeat(16) as EpochId, generation: 0, number: 9 }, named),
      laterEpoch: await leftAfter({ epoch: 'cc'.repeat(16) as EpochId, generation: 2, number: 0 }, named),
      unnamed: await leftAfter({ epoch: before, generation: 1, number: 5 }, { issuer: oldIssuer }),
    }).toEqual({ before: 1_000, after: 700, earlierEpoch: 1_000, laterEpoch: 700, unnamed: 700 });
  });
});

test('strict accounts wait for all that was said before a handover, others do not', async ({ expect }) => {
  const stage = await Stage.open();
  stage.ledger.isWhole = false;
  expect([await stage.ask(gina, { isStrict: true }), await stage.ask(gina)]).toEqual(['unready', '100']);
  await stage.ledger.append('issuer', [
    { kind: 'account', account, limits: {}, strict: true, budget: { amountMicro: 1_000, period: 'total' } },
  ]);
  expect(await stage.ask(gina, { knownMicro: 100 })).toBe('unready');
});
