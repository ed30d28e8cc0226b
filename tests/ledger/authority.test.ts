/** Who has a say, and when: before what was lost is back nobody is judged, and after a handover nothing is given back. */

import { describe, test } from 'vitest';
import { createAdmitter } from '../../ledger/admitter.ts';
import { noAudit } from '../../ledger/audit.ts';
import { createDesk } from '../../ledger/create-desk.ts';
import type { Desk } from '../../ledger/desk.ts';
import type { Entry } from '../../ledger/entry.ts';
import { createNames } from '../../ledger/names.ts';
import { wireBlock } from '../../ledger/replicate-wire.ts';
import { keyOf } from '../../ledger/succession.ts';
import { issuerIdOf, type Membership, type Succession, signCertificate } from '../../protocol/grants.ts';
import type { EpochId, PeerId } from '../../protocol/ids.ts';
import type { Invite } from '../../protocol/invites.ts';
import { limits } from '../../protocol/limits.ts';
import { createIdentity, type IssuerRecord } from '../../protocol/mesh.ts';
import type { Admitter } from '../../protocol/peer/admit.ts';
import { signRevocation } from '../../protocol/root-tokens.ts';
import { unixMs } from '../../protocol/units.ts';
import { epochMs } from '../../sim/clock.ts';
import { createSimTokens } from '../../sim/tokens.ts';
import { failure, owner } from '../protocol/mesh-fixture.ts';
import { authorEntryOf, banOf, keyNumber, LedgerMesh, revocationOf, type Site, writeBlocks } from './mesh-stage.ts';

const signing = { tokens: createSimTokens({ mode: 'real' }), nowMs: unixMs(epochMs) };
const key = keyNumber(1);

async function heirOf(mesh: LedgerMesh, succeeds: Succession, name = 'heir'): Promise<IssuerRecord> {
  const { meshId } = mesh.mesh.mesh;
  const pair = createIdentity(mesh.world.kernel.random.fork(name));
  const grant = { meshId, issuer: issuerIdOf(pair.publicKey), publicKey: pair.publicKey, succeeds };
  return { meshId, key: pair, certificate: await signCertificate(grant, mesh.mesh.root.key, signing) };
}

function deskAt({ mesh }: LedgerMesh, { ledger, ports }: Site): Desk {
  const deps = { ...ports, ledger, names: createNames(ports.store), audit: noAudit };
  return createDesk(deps, { mesh: mesh.mesh, issuer: mesh.issuer, isOpen: false });
}

const admitterAt = ({ mesh }: LedgerMesh, { ledger, ports }: Site, issuer = mesh.issuer): Admitter =>
  createAdmitter({ ...ports, ledger, audit: noAudit }, { mesh: mesh.mesh, issuer });

interface Restored extends AsyncDisposable {
  readonly mesh: LedgerMesh;
  readonly issuer: Site;
  /** Lets `work` begin while the issuer knows nothing of what it did since the backup; then others bring that back. */
  recover<T>(work: Promise<T>): Promise<T>;
}

/** An issuer whose disk was put back to what it was before `lost` was done. */
async function restored(
  before: (desk: Desk, mesh: LedgerMesh) => Promise<unknown>,
  lost: (desk: Desk, mesh: LedgerMesh) => Promise<unknown>,
): Promise<Restored> {
  const mesh = await LedgerMesh.create();
  const issuer = await mesh.addIssuer();
  const gateway = await mesh.add('gateway');
  await mesh.link(gateway, issuer);
  await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(99))]);
  await mesh.run(before(deskAt(mesh, issuer), mesh));
  const backup = issuer.machine.disk.backup();
  await mesh.run(lost(deskAt(mesh, issuer), mesh));
  const { blocks } = issuer.ledger.status();
  await mesh.until(() => gateway.ledger.status().blocks === blocks);
  mesh.kill(issuer);
  issuer.machine.disk.restore(backup);
  await mesh.boot(issuer);
  const recover = async <T>(work: Promise<T>): Promise<T> => {
    work.catch(() => {});
    await mesh.pass(100);
    await mesh.link(gateway, issuer);
    return await mesh.run(work);
  };
  return { mesh, issuer, recover, [Symbol.asyncDispose]: () => mesh[Symbol.asyncDispose]() };
}

describe('an issuer that has lost its newest entries', () => {
  const peer = '12D3KooWDW9ot4rzHBZC6z7KFG1pCvUAs8tczz89SjEsQ5FvsWcU' as PeerId;
  const actor = 'local';

  test('bans a peer although an old ban, since lifted, is on its disk', async ({ expect }) => {
    await using stage = await restored(
      (desk) => desk.ban(peer, actor),
      (desk) => desk.unban(peer, actor),
    );
    const { mesh, issuer } = stage;
    await stage.recover(deskAt(mesh, issuer).ban(peer, actor));
    expect(issuer.ledger.standing.isBanned(peer)).toBe(true);
  });

  test('takes nothing back that it said of an account meanwhile', async ({ expect }) => {
    let account: Awaited<ReturnType<Desk['createAccount']>>['account'] | undefined;
    await using stage = await restored(
      async (desk) => {
        ({ account } = await desk.createAccount({ name: 'x', limits: {}, strict: false }, actor));
      },
      async (desk) => account && (await desk.setAccount(account, { strict: true }, actor)),
    );
    const { mesh, issuer } = stage;
    if (account === undefined) throw new Error('no account');
    const set = await stage.recover(deskAt(mesh, issuer).setAccount(account, { limits: { rpm: 6 } }, actor));
    expect(set).toMatchObject({ strict: true, limits: { rpm: 6 } });
  });

  test('renews no membership of a peer that it has banned', async ({ expect }) => {
    await using stage = await restored(
      async () => {},
      (desk) => desk.ban(peer, actor),
    );
    const { mesh, issuer } = stage;
    const { meshId } = mesh.mesh.mesh;
    const held: Membership = { meshId, issuer: mesh.issuerId, peer, role: 'node', owner, expiresMs: signing.nowMs };
    const renewal = admitterAt(mesh, issuer).renew(held);
    expect(await failure(() => stage.recover(renewal))).toMatchObject({ code: 'MEMBERSHIP_INVALID' });
  });

  test('is not fresh before others have had their time to tell', async ({ expect }) => {
    await using stage = await restored(
      async () => {},
      (desk) => desk.ban(peer, actor),
    );
    const { mesh, issuer } = stage;
    await mesh.pass(5_000);
    const ageMs = issuer.ports.clock.wallMs() - (issuer.ledger.freshness(mesh.issuerId).asOfMs ?? 0);
    expect([issuer.ledger.standing.isBanned(peer), ageMs >= 5_000]).toEqual([false, true]);
    await stage.recover(issuer.ledger.append('issuer', []));
    expect(issuer.ledger.standing.isBanned(peer)).toBe(true);
    expect(issuer.ledger.freshness(mesh.issuerId).asOfMs).toBe(issuer.ports.clock.wallMs());
  });
});

test('what an issuer said behind a block that is lost everywhere reaches those who come later', async ({ expect }) => {
  await using mesh = await LedgerMesh.create();
  const issuer = await mesh.addIssuer();
  const node = await mesh.add('node');
  const narrow = { models: ['a'], limits: { rpm: 1 } };
  const said: readonly Entry[] = [
    revocationOf(keyNumber(1)),
    revocationOf(keyNumber(2)),
    revocationOf(keyNumber(3)),
    { kind: 'terms', key: keyNumber(4), terms: { models: [], limits: {} } },
    { kind: 'terms', key: keyNumber(4), terms: narrow },
    banOf(node.peer),
  ];
  for (const entry of said) await mesh.append(issuer, 'issuer', [entry]);
  mesh.kill(issuer);
  const disk = new Map(issuer.machine.disk.backup());
  const blocks = [...disk.keys()].filter((row) => row.startsWith('f/b')).sort();
  disk.delete(blocks[1] ?? '');
  issuer.machine.disk.restore(disk);
  await mesh.boot(issuer);
  const gateway = await mesh.add('gateway');
  await mesh.pass(limits.recoveryWaitMs + 1_000);
  await mesh.link(gateway, issuer);
  await mesh.until(() => gateway.ledger.freshness(mesh.issuerId).asOfMs !== undefined);
  const { standing } = gateway.ledger;
  const isRevoked = (number: number): boolean => standing.key(keyNumber(number), mesh.issuer)?.revoked !== undefined;
  expect([isRevoked(1), isRevoked(3), standing.isBanned(node.peer)]).toEqual([true, true, true]);
  expect(keyOf(gateway.ledger, keyNumber(4), mesh.issuerId)?.terms).toEqual(narrow);
});

describe('after a handover', () => {
  test('what the predecessor says takes away, and gives nothing back', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const thief = await mesh.puppet(gateway);
    const { peer } = thief.site;
    const narrow = { models: ['a'], limits: { rpm: 1 } };
    const ban = banOf(peer);
    if (ban.kind !== 'ban') throw new Error('no ban');
    const blocks = writeBlocks(mesh, mesh.mesh.issuer, [
      [authorEntryOf(mesh.mesh.issuer, gateway.peer), { kind: 'terms', key, terms: narrow }, ban],
      [
        { kind: 'terms', key, terms: { models: [], limits: {} } },
        { kind: 'unban', peer, bans: [ban.ban] },
        revocationOf(keyNumber(2)),
      ],
    ]);
    const last = { epoch: blocks[0]?.head.header.epoch as EpochId, number: 0 };
    const { certificate } = await heirOf(mesh, { issuer: mesh.issuerId, last });
    thief.send({ type: 'have', isStart: true, isWhole: true, news: [], changes: [] });
    const pushes = blocks.map((block) => ({ type: 'push', block: wireBlock(block) }) as const);
    thief.send(...pushes.slice(0, 1));
    await mesh.until(() => gateway.ledger.standing.isBanned(peer));
    expect(keyOf(gateway.ledger, key, mesh.issuerId)?.terms).toEqual(narrow);
    await mesh.run(gateway.ledger.roots.take({ kind: 'issuer', token: certificate }));
    thief.send(...pushes.slice(1));
    await mesh.until(() => gateway.ledger.status().blocks === 2);
    const { standing } = gateway.ledger;
    expect(keyOf(gateway.ledger, key, mesh.issuerId)?.terms).toEqual(narrow);
    expect([standing.isBanned(peer), standing.key(keyNumber(2), mesh.issuer)?.revoked !== undefined]).toEqual([
      true,
      true,
    ]);
  });

  test('nobody is fresh who lacks what the predecessor wrote before its last epoch', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const puppet = await mesh.puppet(gateway);
    const { issuer } = mesh.mesh;
    const author = authorEntryOf(issuer, gateway.peer);
    const [early] = writeBlocks(mesh, issuer, [[author, revocationOf(key)]]);
    if (early === undefined) throw new Error('no block');
    const from = { epoch: 'ff'.repeat(16) as EpochId, number: 0, previous: early.head.hash };
    const after = { epoch: early.head.header.epoch, number: 0 };
    const [late] = writeBlocks(mesh, issuer, [[{ ...author, after }]], from);
    if (late === undefined) throw new Error('no block');
    const record = await heirOf(mesh, { issuer: mesh.issuerId, last: { epoch: from.epoch, number: 0 } });
    const heir = await mesh.addIssuer(record);
    await mesh.link(heir, gateway);
    await mesh.append(heir, 'issuer', [revocationOf(keyNumber(2))]);
    puppet.send({ type: 'have', isStart: true, isWhole: true, news: [], changes: [] });
    puppet.send({ type: 'push', block: wireBlock(late) });
    await mesh.until(() => gateway.ledger.status().blocks === 2);
    await mesh.pass(61_000);
    expect(gateway.ledger.freshness(mesh.issuerId).asOfMs).toBeUndefined();
    expect(gateway.ledger.holdsBefore(mesh.issuerId)).toBe(false);
    puppet.send({ type: 'push', block: wireBlock(early) });
    await mesh.until(() => gateway.ledger.status().blocks === 3);
    expect(gateway.ledger.freshness(mesh.issuerId).asOfMs).toBeDefined();
    expect(gateway.ledger.holdsBefore(mesh.issuerId)).toBe(true);
  });

  test('an heir that was taken back is passed over by the one after it', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.addIssuer();
    await mesh.append(gateway, 'issuer', [revocationOf(key)]);
    const last = gateway.ledger.status().issuers[0]?.newest;
    if (last === undefined) throw new Error('nothing was written');
    const heir = await heirOf(mesh, { issuer: mesh.issuerId, last });
    const heirId = issuerIdOf(heir.key.publicKey);
    const next = await heirOf(mesh, { issuer: heirId, last: { epoch: 'ab'.repeat(16) as EpochId, number: 7 } }, 'next');
    const { meshId } = mesh.mesh.mesh;
    const { roots } = gateway.ledger;
    for (const { certificate } of [heir, next]) await mesh.run(roots.take({ kind: 'issuer', token: certificate }));
    expect(gateway.ledger.holdsBefore(mesh.issuerId)).toBe(false);
    const token = await signRevocation({ meshId, issuer: heirId }, mesh.mesh.root.key, signing);
    await mesh.run(roots.take({ kind: 'revocation', token }));
    expect(gateway.ledger.authorsOf(mesh.issuerId)).toHaveLength(2);
    expect(gateway.ledger.holdsBefore(mesh.issuerId)).toBe(true);
    const wide = { kind: 'terms', key, terms: { models: [], limits: {} } } as const;
    expect(await failure(() => gateway.ledger.append('issuer', [wide]))).toMatchObject({ code: 'ISSUER_RETIRED' });
  });

  test('an invite of the predecessor waits until it is known whom it has admitted', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const [first, second] = [await mesh.add('node'), await mesh.add('node')];
    const { meshId, rootPublicKey } = mesh.mesh.mesh;
    const invite: Invite = {
      ...{ meshId, rootPublicKey, issuer: mesh.issuerId, certificate: mesh.mesh.issuer.certificate, owner, uses: 1 },
      ...{ inviteId: '1a'.repeat(16), role: 'node', network: 'lan', gateways: [], expiresMs: unixMs(epochMs + 1e7) },
    };
    await mesh.run(admitterAt(mesh, issuer).admit(invite, first.peer));
    const last = issuer.ledger.status().issuers[0]?.newest;
    if (last === undefined) throw new Error('nothing was written');
    const record = await heirOf(mesh, { issuer: mesh.issuerId, last });
    const heir = await mesh.addIssuer(record);
    const admitter = admitterAt(mesh, heir, record);
    const tried = () => failure(() => mesh.run(admitter.admit(invite, second.peer)));
    expect(await tried()).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
    await mesh.link(heir, issuer);
    await mesh.until(() => heir.ledger.holdsBefore(mesh.issuerId));
    expect(await tried()).toMatchObject({ code: 'INVITE_INVALID', reason: 'it has been used' });
  });
});
