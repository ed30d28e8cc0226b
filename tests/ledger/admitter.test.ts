/** Who is let in: as many peers as an invite has uses, each as often as it asks, and nothing unwritten. */

import fc from 'fast-check';
import { test } from 'vitest';
import { createAdmitter } from '../../ledger/admitter.ts';
import type { AuditRecord } from '../../ledger/audit.ts';
import { authorIdOf } from '../../ledger/block.ts';
import { encodeEntry } from '../../ledger/entry.ts';
import type { EntryPlace, HeldEntry } from '../../ledger/feeds.ts';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import {
  type Credentials,
  checkCredentials,
  issuerIdOf,
  type Membership,
  membershipLifetimeMs,
} from '../../protocol/grants.ts';
import type { AuthorId, EpochId, PeerId } from '../../protocol/ids.ts';
import type { Invite } from '../../protocol/invites.ts';
import { type IssuerRecord, issuerOf } from '../../protocol/mesh.ts';
import type { Admitter } from '../../protocol/peer/admit.ts';
import { signRevocation } from '../../protocol/root-tokens.ts';
import { unixMs } from '../../protocol/units.ts';
import { failure, newMesh, owner, peer, quietLog, seeded, startMs, tokens } from '../protocol/mesh-fixture.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { MemoryLedger, type MemoryLedgerParts } from './memory-ledger.ts';

const mesh = await newMesh('admitter');
const { meshId, rootPublicKey } = mesh.mesh;
const { issuer } = issuerOf(mesh.issuer);
const inviteId = '1a'.repeat(16);
const joiner = peer('Joiner');
const usual: Invite = {
  ...{ meshId, rootPublicKey, issuer, certificate: mesh.issuer.certificate, inviteId, role: 'node', owner, uses: 1 },
  ...{ network: 'lan', gateways: [], expiresMs: unixMs(startMs + 1_000) },
};

interface Door {
  readonly ledger: MemoryLedger;
  readonly admitter: Admitter;
  readonly clock: ManualClock;
  /** Action, object, outcome and reason of each. */
  readonly noted: (readonly string[])[];
}

function doorOver(ledger: MemoryLedger, clock: ManualClock, by: IssuerRecord = mesh.issuer): Door {
  const noted: (readonly string[])[] = [];
  const note = ({ action, object, outcome, reason }: AuditRecord): void => {
    noted.push([action, object, outcome, reason]);
  };
  const deps = { ledger, clock, tokens, log: quietLog, audit: { note } };
  return { ledger, clock, noted, admitter: createAdmitter(deps, { mesh: mesh.mesh, issuer: by }) };
}

async function openDoor(parts: Partial<MemoryLedgerParts> = {}): Promise<Door> {
  const clock = new ManualClock();
  return doorOver(await MemoryLedger.open({ mesh, clock, ...parts }), clock);
}

const read = (credentials: Credentials, of: PeerId, clock: ManualClock): Promise<Membership> =>
  checkCredentials(credentials, { tokens, meshId, peer: of, nowMs: clock.wallMs() });

const banEntry = (of: PeerId) => ({ kind: 'ban', peer: of, ban: 'ba'.repeat(16) }) as const;

type Outcome = 'in' | 'INVITE_INVALID' | 'ADMISSION_UNAVAILABLE';
const peers = ['Ann', 'Bea', 'Cid', 'Dan'].map(peer);

/** What became of it; anything but the errors of the contract is thrown. */
async function outcomeOf(admission: Promise<Credentials>): Promise<Outcome> {
  try {
    await admission;
    return 'in';
  } catch (error) {
    if (isHelixFlowError(error, 'INVITE_INVALID') || isHelixFlowError(error, 'ADMISSION_UNAVAILABLE'))
      return error.code;
    throw error;
  }
}

test('an invite makes a member of a peer, which is written down before it is signed', async ({ expect }) => {
  let isDurable = false;
  const { admitter, ledger, clock, noted } = await openDoor({
    disk: async () => {
      await Promise.resolve();
      isDurable = true;
    },
  });
  const credentials = await admitter.admit(usual, joiner);
  const expiresMs = clock.wallMs() + membershipLifetimeMs;
  expect(isDurable).toBe(true);
  expect(ledger.entries).toEqual([{ kind: 'member', invite: inviteId, peer: joiner, role: 'node', owner, expiresMs }]);
  expect(await read(credentials, joiner, clock)).toEqual({
    ...{ meshId, issuer, peer: joiner, role: 'node', owner },
    expiresMs: Math.floor(expiresMs / 1_000) * 1_000,
  });
  expect(noted).toEqual([
    ['invite.use', `invite:${inviteId}`, 'done', ''],
    ['membership.issue', `peer:${joiner}`, 'done', ''],
  ]);
});

test('a second peer on an invite for one is refused, and that is seen', async ({ expect }) => {
  const { admitter, ledger, noted } = await openDoor();
  await admitter.admit(usual, joiner);
  const written = ledger.entries.length;
  noted.length = 0;
  expect(await failure(() => admitter.admit(usual, peer('Second')))).toEqual({
    code: 'INVITE_INVALID',
    reason: 'it has been used',
  });
  expect(noted).toEqual([['invite.use', `invite:${inviteId}`, 'refused', 'used-up']]);
  expect(ledger.entries).toHaveLength(written);
});

test('a peer whose answer was lost asks again, as often as it likes, and fills no feed', async ({ expect }) => {
  const { admitter, ledger, clock, noted } = await openDoor();
  for (let at = 0; at < 20; at += 1) {
    expect((await read(await admitter.admit(usual, joiner), joiner, clock)).peer).toBe(joiner);
  }
  expect(ledger.entries).toHaveLength(1);
  expect(noted.filter(([action]) => action === 'invite.use')).toHaveLength(1);
});

test('a peer that comes again weeks later is written again, for its membership ends later', async ({ expect }) => {
  const { admitter, ledger, clock } = await openDoor();
  await admitter.admit(usual, joiner);
  await clock.advance(20 * 86_400_000);
  await admitter.admit(usual, joiner);
  expect(ledger.standing.member(joiner, ledger.author)).toMatchObject({
    invite: inviteId,
    expiresMs: clock.wallMs() + membershipLifetimeMs,
  });
  expect(ledger.standing.admittedBy(inviteId, ledger.author)).toEqual([joiner]);
});

test('a member that uses another invite uses it up', async ({ expect }) => {
  const { admitter, ledger } = await openDoor();
  const other = { ...usual, inviteId: '2b'.repeat(16) };
  await admitter.admit(usual, joiner);
  await admitter.admit(other, joiner);
  expect(ledger.standing.admittedBy(other.inviteId, ledger.author)).toEqual([joiner]);
  expect(await failure(() => admitter.admit(other, peer('Second')))).toMatchObject({ code: 'INVITE_INVALID' });
});

test('of peers that come at once no more are written than are let in', async ({ expect }) => {
  const { admitter, ledger } = await openDoor({ disk: () => new Promise((resolve) => setImmediate(resolve)) });
  const outcomes = await Promise.all(peers.map((one) => outcomeOf(admitter.admit({ ...usual, uses: 2 }, one))));
  expect(outcomes).toEqual(['in', 'in', 'INVITE_INVALID', 'INVITE_INVALID']);
  expect(ledger.entries).toHaveLength(2);
});

test('a peer that nobody answers for answers for itself', async ({ expect }) => {
  const { admitter, clock } = await openDoor();
  const { owner: _, ...unowned } = usual;
  const member = await read(await admitter.admit({ ...unowned, uses: 0 }, joiner), joiner, clock);
  expect(member.owner).toBe(joiner);
});

test('an invite without a number of uses is honoured for nodes only', async ({ expect }) => {
  const { admitter, ledger, noted } = await openDoor();
  const unlimited = { ...usual, uses: 0 };
  expect(await outcomeOf(admitter.admit({ ...unlimited, role: 'gateway' }, joiner))).toBe('INVITE_INVALID');
  expect(noted).toEqual([['invite.use', `invite:${inviteId}`, 'refused', 'unlimited']]);
  expect(ledger.entries).toEqual([]);
  expect(await outcomeOf(admitter.admit(unlimited, joiner))).toBe('in');
});

test('what comes back while an exchange waits for its write counts for it', async ({ expect }) => {
  let refill = (): void => {};
  const { admitter, ledger } = await openDoor({ disk: async () => refill() });
  const held = (entry: HeldEntry['entry'], number: number): HeldEntry => {
    const epoch = 'ff'.repeat(16) as EpochId;
    const place = { author: ledger.author, epoch, generation: -1, number, index: 0, timeMs: 1, isAfterFork: false };
    return { entry, bytes: encodeEntry(entry), place };
  };
  refill = () => ledger.take(held(banEntry(joiner), 0));
  expect(await outcomeOf(admitter.admit({ ...usual, uses: 5 }, joiner))).toBe('INVITE_INVALID');
  const expiresMs = unixMs(startMs + membershipLifetimeMs);
  const first = {
    kind: 'member',
    invite: '3c'.repeat(16),
    peer: peer('First'),
    role: 'node',
    owner,
    expiresMs,
  } as const;
  refill = () => ledger.take(held(first, 1));
  expect(await outcomeOf(admitter.admit({ ...usual, inviteId: first.invite }, peer('Second')))).toBe('INVITE_INVALID');
});

test('an invite of an open mesh admits any number, none of them waiting for another', async ({ expect }) => {
  let waiting = 0;
  let atOnce = 0;
  const { admitter, ledger } = await openDoor({
    disk: async () => {
      waiting += 1;
      atOnce = Math.max(atOnce, waiting);
      await new Promise((resolve) => setImmediate(resolve));
      waiting -= 1;
    },
  });
  const peers = ['Ann', 'Bea', 'Cid', 'Dan'].map(peer);
  await Promise.all(peers.map((one) => admitter.admit({ ...usual, uses: 0 }, one)));
  expect([ledger.standing.members().length, atOnce]).toEqual([4, 4]);
});

test('a banned peer gets in by no invite, and keeps no membership', async ({ expect }) => {
  const { admitter, ledger, clock, noted } = await openDoor();
  const current = await read(await admitter.admit({ ...usual, uses: 2 }, joiner), joiner, clock);
  await ledger.append('issuer', [banEntry(joiner)]);
  noted.length = 0;
  expect(await failure(() => admitter.admit({ ...usual, uses: 2 }, joiner))).toMatchObject({ code: 'INVITE_INVALID' });
  expect(await failure(() => admitter.renew(current))).toMatchObject({ code: 'MEMBERSHIP_INVALID' });
  expect(noted).toEqual([
    ['invite.use', `invite:${inviteId}`, 'refused', 'banned'],
    ['membership.renew', `peer:${joiner}`, 'refused', 'banned'],
  ]);
});

test('a membership is renewed as it was, for a whole lifetime more', async ({ expect }) => {
  const { admitter, ledger, clock, noted } = await openDoor();
  const admittedMs = clock.wallMs();
  const current = await read(await admitter.admit(usual, joiner), joiner, clock);
  await clock.advance(membershipLifetimeMs - 60_000);
  noted.length = 0;
  const next = await read(await admitter.renew(current), joiner, clock);
  expect(next).toEqual({ ...current, expiresMs: Math.floor((clock.wallMs() + membershipLifetimeMs) / 1_000) * 1_000 });
  expect(noted).toEqual([['membership.renew', `peer:${joiner}`, 'done', '']]);
  expect(ledger.standing.member(joiner, ledger.author)).toMatchObject({ invite: inviteId, admittedMs });
});

test('what the root took back is neither used nor renewed', async ({ expect }) => {
  const { admitter, ledger, clock, noted } = await openDoor();
  const current = await read(await admitter.admit(usual, joiner), joiner, clock);
  const token = await signRevocation({ meshId, issuer }, mesh.root.key, { tokens, nowMs: startMs });
  await ledger.roots.take({ kind: 'revocation', token });
  noted.length = 0;
  expect(admitter.handles(issuer)).toBe(false);
  expect(await failure(() => admitter.admit(usual, joiner))).toMatchObject({ code: 'INVITE_INVALID' });
  expect(await failure(() => admitter.renew(current))).toMatchObject({ code: 'MEMBERSHIP_INVALID' });
  expect(noted.map(([action, , outcome, reason]) => [action, outcome, reason])).toEqual([
    ['invite.use', 'refused', 'taken-back'],
    ['membership.renew', 'refused', 'taken-back'],
  ]);
});

test('an issuer that was succeeded lets nobody in, not even one that it knows', async ({ expect }) => {
  const { admitter, ledger, clock } = await openDoor();
  const current = await read(await admitter.admit(usual, joiner), joiner, clock);
  ledger.succeed(ledger.author, 'cc'.repeat(32) as AuthorId);
  expect(admitter.handles(issuer)).toBe(false);
  expect(await failure(() => admitter.admit(usual, joiner))).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
  expect(await failure(() => admitter.renew(current))).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
});

test('a successor counts what its predecessor admitted, and renews its members', async ({ expect }) => {
  const before = await openDoor();
  const current = await read(await before.admitter.admit(usual, joiner), joiner, before.clock);
  const heir: IssuerRecord = { meshId, key: seeded('heir'), certificate: mesh.issuer.certificate };
  before.ledger.succeed(before.ledger.author, authorIdOf(heir.key.publicKey));
  const { admitter } = doorOver(before.ledger, before.clock, heir);
  expect(admitter.handles(issuer)).toBe(true);
  expect(await failure(() => admitter.admit(usual, peer('Second')))).toMatchObject({ code: 'INVITE_INVALID' });
  const claims = JSON.parse(
    Buffer.from((await admitter.renew(current)).membership.split('.')[1] ?? '', 'base64url').toString(),
  );
  expect(claims).toMatchObject({ iss: issuerIdOf(heir.key.publicKey), sub: joiner, role: 'node', owner });
});

test('an issuer that cannot write lets nobody in, and says that it may pass', async ({ expect }) => {
  let isBroken = true;
  const { admitter, ledger, noted } = await openDoor({
    disk: async () => {
      if (isBroken) throw new HelixFlowError('LEDGER_UNREADY', { reason: 'recovering' });
    },
  });
  expect(await failure(() => admitter.admit(usual, joiner))).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
  expect(noted).toEqual([['membership.issue', `peer:${joiner}`, 'failed', 'LEDGER_UNREADY']]);
  isBroken = false;
  // The use was not taken: another peer may have it.
  await admitter.admit(usual, peer('Second'));
  expect(ledger.standing.admittedBy(inviteId, ledger.author)).toEqual([peer('Second')]);
});

test('entries of another process of this issuer, learnt late, decide who was first', async ({ expect }) => {
  const { admitter, ledger } = await openDoor();
  await admitter.admit(usual, joiner);
  const [mine] = ledger.held as [HeldEntry];
  const place: EntryPlace = { ...mine.place, generation: -1, epoch: 'ff'.repeat(16) as EpochId };
  const entry = { ...mine.entry, peer: peer('First') } as HeldEntry['entry'];
  ledger.take({ entry, bytes: encodeEntry(entry), place });
  expect(await failure(() => admitter.admit(usual, joiner))).toMatchObject({ code: 'INVITE_INVALID' });
  expect(await admitter.admit(usual, peer('First'))).toBeDefined();
});

test('two admitters that race on one invite never let in more peers than it has uses', async ({ expect }) => {
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.integer({ min: 1, max: 3 }),
      fc.array(fc.tuple(fc.constantFrom(...peers), fc.nat(1)), { minLength: 1, maxLength: 10 }),
      fc.infiniteStream(fc.integer({ min: 0, max: 5 })),
      async (scheduler, uses, attempts, chance) => {
        const clock = new ManualClock();
        const disk = async (): Promise<void> => {
          const isLost = chance.next().value === 0;
          await scheduler.schedule(Promise.resolve(), 'disk');
          if (isLost) throw new HelixFlowError('LEDGER_UNREADY', { reason: 'recovering' });
        };
        const ledger = await MemoryLedger.open({ mesh, clock, disk });
        const doors = [doorOver(ledger, clock), doorOver(ledger, clock)];
        const admit = ([who, door]: readonly [PeerId, number]): Promise<Outcome> =>
          outcomeOf((doors[door] as Door).admitter.admit({ ...usual, uses }, who));
        const outcomes = await scheduler.waitFor(Promise.all(attempts.map(admit)));
        const admitted = new Set(attempts.flatMap(([who], at) => (outcomes[at] === 'in' ? [who] : [])));
        expect(admitted.size).toBeLessThanOrEqual(uses);
        // Nobody is turned away for good while there is room.
        if (new Set(attempts.map(([who]) => who)).size <= uses) expect(outcomes).not.toContain('INVITE_INVALID');
      },
    ),
    { numRuns: 150 },
  );
});

test('lost answers take no second use: whoever was let in once is let in again, by any later process', async ({
  expect,
}) => {
  const step = fc.record({ who: fc.constantFrom(...peers), isKilledBefore: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 3 }),
      fc.array(step, { minLength: 1, maxLength: 12 }),
      async (uses, steps) => {
        const clock = new ManualClock();
        let held: readonly HeldEntry[] = [];
        const everIn = new Set<PeerId>();
        for (const { who, isKilledBefore } of steps) {
          const dead = new HelixFlowError('LEDGER_UNREADY', { reason: 'the process is gone' });
          const disk = (): Promise<void> => (isKilledBefore ? Promise.reject(dead) : Promise.resolve());
          const { admitter, ledger } = doorOver(await MemoryLedger.open({ mesh, clock, held, disk }), clock);
          const outcome = await outcomeOf(admitter.admit({ ...usual, uses }, who));
          held = ledger.held;
          if (everIn.has(who)) expect(outcome).toBe('in');
          if (outcome === 'in') everIn.add(who);
        }
        expect(everIn.size).toBeLessThanOrEqual(uses);
      },
    ),
    { numRuns: 60 },
  );
});
