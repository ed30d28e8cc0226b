/** How a peer enters its mesh: what is in the directory, and what `--join` may change. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { type DataDir, locateDataDir } from '../../cli/data-dir.ts';
import { makeDirectory } from '../../cli/files.ts';
import { enterMesh, type MembershipDeps } from '../../cli/membership.ts';
import { readMesh, writeJoinedMesh, writeNewMesh } from '../../cli/mesh-files.ts';
import { joinNote } from '../../cli/open-mesh.ts';
import { readMembership, writeMembership } from '../../cli/peer-files.ts';
import { issuerIdOf, type Role, signCertificate } from '../../protocol/grants.ts';
import type { OwnerId } from '../../protocol/ids.ts';
import { type Invite, signInvite } from '../../protocol/invites.ts';
import { issuerOf, type NewMesh } from '../../protocol/mesh.ts';
import type { Roots } from '../../protocol/peer/roots.ts';
import type { Clock } from '../../protocol/ports.ts';
import { signRevocation } from '../../protocol/root-tokens.ts';
import { unixMs } from '../../protocol/units.ts';
import { credentialsFor, failure, newMesh, peer, quietLog, seeded, startMs, tokens } from '../protocol/mesh-fixture.ts';
import { tempDir } from './temp-dir.ts';

const dayMs = 86_400_000;
const self = peer('self');
const at = (days: number): MembershipDeps => ({
  tokens,
  log: quietLog,
  clock: { wallMs: () => unixMs(startMs + days * dayMs) } as Clock,
});
const now = at(0);
const gateways = [{ peer: peer('door'), addresses: ['/ip4/127.0.0.1/tcp/4001'] }];

function inviteOf(mesh: NewMesh, role: Role): Invite {
  const { meshId, rootPublicKey, network } = mesh.mesh;
  const { issuer } = issuerOf(mesh.issuer);
  const inviteId = '0'.repeat(32);
  const terms = { inviteId, role, owner: 'bob' as OwnerId, uses: 1, gateways, expiresMs: unixMs(startMs + dayMs) };
  return { meshId, rootPublicKey, network, issuer, certificate: mesh.issuer.certificate, ...terms };
}

const inviteText = (mesh: NewMesh, role: Role = 'node'): Promise<string> =>
  signInvite(inviteOf(mesh, role), mesh.issuer.key, { tokens, nowMs: startMs });

/** A directory that joined `mesh` as a node. */
async function joined(path: string, mesh: NewMesh): Promise<DataDir> {
  const dir = locateDataDir(path);
  await writeJoinedMesh(dir, inviteOf(mesh, 'node'));
  await writeMembership(dir.peer('node'), await credentialsFor(mesh, self));
  return dir;
}

const enter = (dir: DataDir, join?: string, role: Role = 'node', deps = now) =>
  enterMesh(deps, dir, { role, peer: self, join });

describe('what a directory knows of the mesh it joined', () => {
  const told = async (path: string, ...invites: readonly Partial<Invite>[]): Promise<unknown> => {
    const mesh = await newMesh('told');
    const dir = locateDataDir(path);
    for (const changes of invites) await writeJoinedMesh(dir, { ...inviteOf(mesh, 'node'), ...changes });
    const { name, isOpen } = (await readMesh(dir))?.mesh ?? {};
    return { name, isOpen };
  };

  test('is what the invite told: nothing that was not said', async ({ expect }) => {
    await using temp = await tempDir();
    const at = (name: string): string => join(temp.path, name);
    expect(await told(at('open'), { meshName: 'lab', isOpen: true })).toEqual({ name: 'lab', isOpen: true });
    expect(await told(at('private'), { meshName: 'lab', isOpen: false })).toEqual({ name: 'lab', isOpen: false });
    expect(await told(at('untold'), {})).toEqual({ name: undefined, isOpen: undefined });
  });

  test('grows with an invite that tells more, and is not changed by one that tells less', async ({ expect }) => {
    await using temp = await tempDir();
    const lab = { meshName: 'lab', isOpen: true };
    expect(await told(temp.path, {}, lab, {}, { meshName: 'other', isOpen: false })).toEqual({
      name: 'lab',
      isOpen: true,
    });
  });

  test('is said to whoever joins an open mesh, and to nobody else', async ({ expect }) => {
    await using temp = await tempDir();
    const mesh = await newMesh('told');
    const notes = [true, false, undefined].map(async (isOpen) => {
      const invite = { ...inviteOf(mesh, 'node'), ...(isOpen === undefined ? {} : { isOpen }) };
      const text = await signInvite(invite, mesh.issuer.key, { tokens, nowMs: startMs });
      return joinNote(await enter(locateDataDir(temp.path), text));
    });
    expect(await Promise.all(notes)).toEqual([expect.stringContaining('This mesh is open'), undefined, undefined]);
    const member = await joined(join(temp.path, 'member'), mesh);
    expect(joinNote(await enter(member))).toBeUndefined();
  });
});

describe('a directory that belongs to no mesh', () => {
  test('needs an invite', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = locateDataDir(temp.path);
    for (const role of ['node', 'gateway'] as const) {
      expect(await failure(() => enter(dir, undefined, role))).toEqual({ code: 'MESH_MISSING' });
    }
  });

  test('takes mesh, issuer, owner and gateways from the invite', async ({ expect }) => {
    await using temp = await tempDir();
    const mesh = await newMesh('one');
    const text = await inviteText(mesh);
    const { meshId, rootPublicKey, network } = mesh.mesh;
    expect(await enter(locateDataDir(temp.path), text)).toMatchObject({
      mesh: { meshId, rootPublicKey, network },
      owner: 'bob',
      credentials: undefined,
      invite: { text },
      bootstrap: gateways,
    });
  });

  test('refuses garbage, an expired invite, and one for the other role', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = locateDataDir(temp.path);
    const mesh = await newMesh('one');
    const good = await inviteText(mesh);
    const reasons = await Promise.all([
      failure(() => enter(dir, 'garbage')),
      failure(() => enter(dir, good.slice(0, -1))),
      failure(() => enter(dir, good, 'node', at(2))),
      failure(() => enter(dir, good, 'gateway')),
    ]);
    expect(reasons).toMatchObject(new Array(4).fill({ code: 'INVITE_INVALID' }));
    expect(reasons[2]).toEqual({ code: 'INVITE_INVALID', reason: 'expired' });
  });
});

describe('a member', () => {
  test('ignores an invite into its own mesh, good or bad', async ({ expect }) => {
    await using temp = await tempDir();
    const mesh = await newMesh('one');
    const dir = await joined(temp.path, mesh);
    const held = await readMembership(dir.peer('node'));
    for (const join of [undefined, 'garbage', await inviteText(mesh), await inviteText(mesh, 'gateway')]) {
      expect(await enter(dir, join)).toMatchObject({ credentials: held, invite: undefined, owner: 'alice' });
    }
  });

  test('refuses an invite into another mesh', async ({ expect }) => {
    await using temp = await tempDir();
    const [mesh, other] = [await newMesh('one'), await newMesh('other')];
    const dir = await joined(temp.path, mesh);
    const mismatch = { code: 'MESH_MISMATCH', theirs: other.mesh.meshId, ours: mesh.mesh.meshId };
    expect(await failure(async () => enter(dir, await inviteText(other)))).toEqual(mismatch);
  });

  test('whose membership lapsed needs an invite into the same mesh', async ({ expect }) => {
    await using temp = await tempDir();
    const [mesh, other] = [await newMesh('one'), await newMesh('other')];
    const dir = await joined(temp.path, mesh);
    await writeMembership(dir.peer('node'), await credentialsFor(mesh, self, { expiresMs: unixMs(startMs - 1_000) }));
    expect(await failure(() => enter(dir))).toMatchObject({ code: 'MEMBERSHIP_INVALID' });
    expect(await failure(async () => enter(dir, await inviteText(other)))).toMatchObject({ code: 'MESH_MISMATCH' });
    const text = await inviteText(mesh);
    expect(await enter(dir, text)).toMatchObject({ credentials: undefined, invite: { text } });
  });

  test('of another peer id is none', async ({ expect }) => {
    await using temp = await tempDir();
    const mesh = await newMesh('one');
    const dir = await joined(temp.path, mesh);
    await writeMembership(dir.peer('node'), await credentialsFor(mesh, peer('somebody')));
    expect(await failure(() => enter(dir))).toMatchObject({ code: 'MEMBERSHIP_INVALID' });
  });

  test('with a damaged record is told so', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = await joined(temp.path, await newMesh('one'));
    const path = dir.peer('node').membershipFile;
    await writeFile(path, '{"format": 1}');
    expect(await failure(() => enter(dir))).toMatchObject({ code: 'DATA_DIR_UNUSABLE', path });
  });
});

describe('when issuers change', () => {
  /** The same mesh by another issuer, which took over when `after` is given. */
  async function nextOf(mesh: NewMesh, seed: string, after?: NewMesh): Promise<NewMesh> {
    const { meshId } = mesh.mesh;
    const key = seeded(seed);
    const issuer = issuerIdOf(key.publicKey);
    const succeeds = after === undefined ? undefined : { issuer: issuerOf(after.issuer).issuer };
    const named = { meshId, issuer, publicKey: key.publicKey, ...(succeeds === undefined ? {} : { succeeds }) };
    const certificate = await signCertificate(named, mesh.root.key, { tokens, nowMs: startMs });
    return { ...mesh, issuer: { meshId, key, certificate } };
  }

  const revocationOf = async (mesh: NewMesh): Promise<(roots: Roots) => Promise<void>> => {
    const { meshId } = mesh.mesh;
    const gone = { meshId, issuer: issuerOf(mesh.issuer).issuer };
    const token = await signRevocation(gone, mesh.root.key, { tokens, nowMs: startMs });
    return async (roots) => void (await roots.take({ kind: 'revocation', token }));
  };

  const enterKnowing = (dir: DataDir, recall: (roots: Roots) => Promise<void>, join?: string, role: Role = 'node') =>
    enterMesh(now, dir, { role, peer: self, join, recall });

  test('an invite of another issuer replaces a membership, which is kept should that be refused', async ({
    expect,
  }) => {
    await using temp = await tempDir();
    const mesh = await newMesh('one');
    const dir = await joined(temp.path, mesh);
    const held = await readMembership(dir.peer('node'));
    for (const after of [undefined, mesh]) {
      const text = await inviteText(await nextOf(mesh, 'next', after));
      expect(await enter(dir, text)).toMatchObject({ credentials: undefined, invite: { text }, held, owner: 'bob' });
    }
  });

  test('an invite of the issuer before changes nothing', async ({ expect }) => {
    await using temp = await tempDir();
    const mesh = await newMesh('one');
    const dir = await joined(temp.path, mesh);
    const credentials = await credentialsFor(await nextOf(mesh, 'next', mesh), self);
    await writeMembership(dir.peer('node'), credentials);
    expect(await enter(dir, await inviteText(mesh))).toMatchObject({ credentials, invite: undefined });
  });

  test('a membership known to be taken back counts no more, nor does an invite by that issuer', async ({ expect }) => {
    await using temp = await tempDir();
    const mesh = await newMesh('one');
    const dir = await joined(temp.path, mesh);
    const recall = await revocationOf(mesh);
    expect(await failure(() => enterKnowing(dir, recall))).toMatchObject({ code: 'MEMBERSHIP_INVALID' });
    const old = await inviteText(mesh);
    expect(await failure(() => enterKnowing(dir, recall, old))).toMatchObject({ code: 'INVITE_INVALID' });
    const text = await inviteText(await nextOf(mesh, 'next', mesh));
    const entry = await enterKnowing(dir, recall, text);
    expect(entry).toMatchObject({ credentials: undefined, invite: { text }, held: undefined });
  });

  test('a key that was taken back or succeeded gives no membership', async ({ expect }) => {
    await using temp = await tempDir();
    const mesh = await newMesh('one');
    const dir = locateDataDir(temp.path);
    await makeDirectory(temp.path);
    await writeNewMesh(dir, mesh);
    const next = await nextOf(mesh, 'next', mesh);
    const revoked = await revocationOf(mesh);
    const succeeded = async (roots: Roots) =>
      void (await roots.take({ kind: 'issuer', token: next.issuer.certificate }));
    const text = await inviteText(next, 'gateway');
    for (const recall of [revoked, succeeded]) {
      expect(await failure(() => enterKnowing(dir, recall, undefined, 'gateway'))).toMatchObject({
        code: 'MEMBERSHIP_INVALID',
      });
      const entry = await enterKnowing(dir, recall, text, 'gateway');
      expect(entry).toMatchObject({ credentials: undefined, invite: { text } });
    }
    // The invite itself says who has taken over.
    expect(await enter(dir, text, 'gateway')).toMatchObject({ credentials: undefined, invite: { text } });
    const own = await credentialsFor(mesh, self, { role: 'gateway' });
    await writeMembership(dir.peer('gateway'), own);
    // Of one that was only succeeded a membership holds to its end, and is renewed by the heir.
    const kept = await enterKnowing(dir, succeeded, undefined, 'gateway');
    expect(kept).toMatchObject({ credentials: own, invite: undefined });
    expect(await failure(() => enterKnowing(dir, revoked, undefined, 'gateway'))).toMatchObject({
      code: 'MEMBERSHIP_INVALID',
    });
  });
});

describe('the issuer’s own directory', () => {
  const own = async (path: string, mesh: NewMesh): Promise<DataDir> => {
    const dir = locateDataDir(path);
    await makeDirectory(path);
    await writeNewMesh(dir, mesh);
    return dir;
  };

  test('leaves its own peers to its issuer, and keeps what that gave', async ({ expect }) => {
    await using temp = await tempDir();
    const mesh = await newMesh('one');
    const dir = await own(temp.path, mesh);
    const unadmitted = { issuer: mesh.issuer, credentials: undefined, invite: undefined, owner: 'local' };
    expect(await enter(dir, undefined, 'gateway')).toMatchObject(unadmitted);
    const credentials = await credentialsFor(mesh, self, { role: 'gateway' });
    await writeMembership(dir.peer('gateway'), credentials);
    const kept = await enter(dir, undefined, 'gateway');
    expect(kept).toMatchObject({ credentials, owner: 'alice', issuer: mesh.issuer });
    expect(kept.expiresMs).toBe(Math.floor((startMs + dayMs) / 1_000) * 1_000);
    expect(await enter(dir, undefined, 'gateway', at(2))).toMatchObject(unadmitted);
  });

  test('still refuses an invite into another mesh', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = await own(temp.path, await newMesh('one'));
    const other = await inviteText(await newMesh('other'), 'gateway');
    expect(await failure(() => enter(dir, other, 'gateway'))).toMatchObject({ code: 'MESH_MISMATCH' });
  });
});
