/** Who belongs to a mesh of real processes: invites, bans, restarts, a restored issuer, a handover. */

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { type Daemon, Daemons, errorCode, until } from '../support/daemons.ts';

const newsMs = 15_000;
const passphrase = { HELIXFLOW_BACKUP_PASSPHRASE: 'correct horse battery staple' };
const synthetic = ['--engine', 'synthetic'];

let daemons: Daemons;
let issuer: Daemon;
let other: Daemon;

const at = (dir: string, ...words: string[]): Promise<Record<string, unknown>> =>
  daemons.json([...words, '--data-dir', dir]);
const invite = async (dir: string, ...options: string[]): Promise<string> =>
  String((await at(dir, 'mesh', 'invite', ...options))['token']);
const startNode = (name: string, token: string): Promise<Daemon> =>
  daemons.start(name, ['node', '--join', '-', ...synthetic], token);

const nodesOf = async (daemon: Daemon): Promise<readonly string[]> => {
  const { nodes } = (await daemon.status())['gateway'] as { nodes: readonly { peer: string }[] };
  return nodes.map(({ peer }) => peer);
};
const has = (daemon: Daemon, peer: unknown, wanted = true): Promise<true> =>
  until(async () => ((await nodesOf(daemon)).includes(String(peer)) === wanted ? true : undefined), newsMs);

const standingAt = async (daemon: Daemon, key: unknown): Promise<number> => {
  const response = await fetch(`${String(daemon.ready['baseUrl'])}/models`, {
    headers: { authorization: `Bearer ${String(key)}` },
  });
  await response.arrayBuffer();
  return response.status;
};

interface LedgerShown {
  readonly writing: string;
  readonly frozen: readonly string[];
  readonly issuers: readonly { readonly issuer: string; readonly state: string; readonly holder?: string }[];
}
const ledgerOf = async (daemon: Daemon): Promise<LedgerShown> =>
  ((await daemon.status())['gateway'] as { ledger: LedgerShown }).ledger;

const multiaddrOf = (daemon: Daemon): string =>
  `/ip4/127.0.0.1/tcp/${String(daemon.ready['p2pPort'])}/p2p/${String(daemon.ready['peerId'])}`;

const ended = async (daemon: Daemon, signal: NodeJS.Signals): Promise<number | null> => {
  daemon.kill(signal);
  return daemon.exited();
};

beforeAll(async () => {
  daemons = new Daemons();
  await daemons.json(['mesh', 'create', '--data-dir', daemons.path('issuer')]);
  issuer = await daemons.start('issuer', ['gateway', '--port', '0']);
  const token = await invite(issuer.dir, '--role', 'gateway');
  other = await daemons.start('other', ['gateway', '--port', '0', '--join', '-'], token);
});

afterAll(async () => {
  await daemons[Symbol.asyncDispose]();
});

describe('an invite for one', () => {
  test('admits the same peer again, and nobody else', async ({ expect }) => {
    const token = await invite(issuer.dir, '--role', 'node');
    const node = await startNode('node', token);
    const { peerId } = node.ready;
    expect(await ended(node, 'SIGTERM')).toBe(0);
    const second = await daemons.run(
      ['node', '--join', '-', ...synthetic, '--data-dir', daemons.path('thief'), '--json'],
      token,
    );
    expect([second.code, errorCode(second)]).toEqual([4, 'INVITE_INVALID']);
    rmSync(join(node.dir, 'node', 'membership.json'));
    const again = await startNode('node', token);
    expect(again.ready['peerId']).toBe(peerId);
    await Promise.all([issuer, other].map((gateway) => has(gateway, peerId)));
    const { members } = (await at(other.dir, 'mesh', 'members')) as { members: readonly Record<string, unknown>[] };
    expect(members.filter(({ peer }) => peer === peerId)).toMatchObject([{ role: 'node', banned: false }]);
    const { peers } = (await at(again.dir, 'mesh', 'peers')) as { peers: readonly Record<string, unknown>[] };
    expect(peers.find(({ peer }) => peer === issuer.ready['peerId'])).toMatchObject({ via: 'node', role: 'gateway' });
  });
});

describe('a ban', () => {
  test('takes a node out of routing everywhere, and it cannot return until it is taken back', async ({ expect }) => {
    const node = await startNode('banned', await invite(issuer.dir, '--role', 'node'));
    const peer = String(node.ready['peerId']);
    await Promise.all([issuer, other].map((gateway) => has(gateway, peer)));
    expect(await at(issuer.dir, 'mesh', 'ban', peer)).toEqual({ peer, banned: true });
    await Promise.all([issuer, other].map((gateway) => has(gateway, peer, false)));
    await ended(node, 'SIGKILL');
    const back = daemons.start('banned', ['node', ...synthetic]);
    back.catch(() => {});
    const refused = until(async () => ((await refusals(peer)) > 0 ? true : undefined), newsMs);
    expect(await refused).toBe(true);
    expect(await nodesOf(issuer)).not.toContain(peer);
    expect(await at(issuer.dir, 'mesh', 'unban', peer)).toEqual({ peer, banned: false });
    expect((await back).ready['peerId']).toBe(peer);
  });
});

/** What the issuer's gateway has refused this peer, by its log. */
const refusals = async (peer: string): Promise<number> =>
  issuer.output.stderr.split('\n').filter((line) => line.includes('refused') && line.includes(peer)).length;

describe('the issuer’s gateway', () => {
  test('killed and started again goes on where it was, without a fork', async ({ expect }) => {
    const { id: before } = await at(issuer.dir, 'keys', 'create', '--name', 'before');
    await ended(issuer, 'SIGKILL');
    issuer = await daemons.start('issuer', ['gateway', '--port', '0']);
    const { id: after } = await at(issuer.dir, 'keys', 'create', '--name', 'after');
    const { keys } = (await at(issuer.dir, 'keys', 'ls')) as { keys: readonly Record<string, unknown>[] };
    expect(keys.filter(({ id }) => id === before || id === after)).toHaveLength(2);
    await until(async () => {
      const { issuers } = await ledgerOf(other);
      return issuers.some(({ state }) => state === 'fresh') ? true : undefined;
    }, newsMs);
    expect((await ledgerOf(other)).frozen).toEqual([]);
  });

  test('is restored in another directory: keys and invites work on, and nothing forks', async ({ expect }) => {
    const { id, key } = await at(issuer.dir, 'keys', 'create', '--name', 'old');
    const token = await invite(issuer.dir, '--role', 'node', '--gateway', multiaddrOf(other));
    const file = daemons.path('backup.json');
    await daemons.json(['mesh', 'backup', '--out', file, '--data-dir', issuer.dir], '', passphrase);
    await ended(issuer, 'SIGKILL');

    const dir = daemons.path('restored');
    const wrong = await daemons.run(['mesh', 'restore', '--from', file, '--data-dir', dir, '--json'], '', {
      HELIXFLOW_BACKUP_PASSPHRASE: 'wrong',
    });
    expect([wrong.code, errorCode(wrong)]).toEqual([4, 'PASSPHRASE_WRONG']);
    await daemons.json(['mesh', 'restore', '--from', file, '--data-dir', dir], '', passphrase);
    const restored = await daemons.start('restored', ['gateway', '--port', '0']);
    // It learns from the other gateway what its own issuer had written.
    await until(async () => {
      const { code } = await daemons.run(['keys', 'show', String(id), '--data-dir', dir, '--json']);
      return code === 0 ? true : undefined;
    }, newsMs);
    expect(await standingAt(restored, key)).toBe(200);
    await at(dir, 'keys', 'revoke', String(id));
    await until(async () => ((await standingAt(other, key)) === 401 ? true : undefined), newsMs);
    const late = await startNode('late', token);
    await has(restored, late.ready['peerId']);
    expect([(await ledgerOf(restored)).frozen, (await ledgerOf(other)).frozen]).toEqual([[], []]);
    issuer = restored;
  });

  test('hands its authority to another gateway, which goes on with its keys', async ({ expect }) => {
    const { id, key } = await at(issuer.dir, 'keys', 'create', '--name', 'handed over');
    await until(async () => ((await standingAt(other, key)) === 200 ? true : undefined), newsMs);
    const { request } = await at(other.dir, 'mesh', 'handover', '--prepare');
    const signed = await at(issuer.dir, 'mesh', 'handover', '--to', String(request));
    const { grant, issuer: next } = signed;
    const succeeds = signed['succeeds'] as { readonly issuer: string };
    expect(succeeds).toMatchObject({ issuer: expect.any(String), last: { number: expect.any(Number) } });
    const held = await daemons.run(['mesh', 'handover', '--accept', String(grant), '--data-dir', other.dir, '--json']);
    const leaving = await daemons.run(['mesh', 'leave', '--force', '--data-dir', other.dir, '--json']);
    expect([held, leaving].map((ran) => [ran.code, errorCode(ran)])).toEqual([
      [5, 'DATA_DIR_HELD'],
      [5, 'DATA_DIR_HELD'],
    ]);
    expect(await ended(other, 'SIGTERM')).toBe(0);
    await at(other.dir, 'mesh', 'handover', '--accept', String(grant));
    expect(await ended(issuer, 'SIGTERM')).toBe(0);
    other = await daemons.start('other', ['gateway', '--port', '0']);
    expect(await at(other.dir, 'mesh', 'show')).toMatchObject({ issuer: next });
    expect(await standingAt(other, key)).toBe(200);
    // The successor's word counts for the keys of the issuer before it.
    await at(other.dir, 'keys', 'revoke', String(id));
    expect(await standingAt(other, key)).toBe(401);
    const made = await at(other.dir, 'keys', 'create', '--name', 'by the successor');
    expect(await standingAt(other, made['key'])).toBe(200);
    const back = await daemons.start('restored', ['gateway', '--port', '0']);
    const shown = await at(other.dir, 'mesh', 'show');
    const handed = { issuer: succeeds.issuer, state: 'succeeded', succeededBy: next, holder: other.ready['peerId'] };
    expect(shown['issuers']).toEqual(expect.arrayContaining([expect.objectContaining(handed)]));
    const { members } = (await at(other.dir, 'mesh', 'members')) as { members: readonly { peer: string }[] };
    expect(members.map(({ peer }) => peer)).toEqual([...new Set(members.map(({ peer }) => peer))]);
    await until(async () => ((await standingAt(back, key)) === 401 ? true : undefined), newsMs);
    expect(await standingAt(back, made['key'])).toBe(200);
  });

  test('hands it over and is taken back: its peers are told, and come back with an invite of the new issuer', async ({
    expect,
  }) => {
    const mesh = await daemons.json(['mesh', 'create', '--data-dir', daemons.path('first')]);
    const first = await daemons.start('first', ['gateway', '--port', '0']);
    const second = await daemons.start(
      'second',
      ['gateway', '--port', '0', '--join', '-'],
      await invite(first.dir, '--role', 'gateway'),
    );
    const node = await startNode('moving', await invite(first.dir, '--role', 'node'));
    const { peerId } = node.ready;
    await has(second, peerId);
    // Not there when it happens, so only a gateway can tell it.
    expect(await ended(node, 'SIGTERM')).toBe(0);
    const { request } = await at(second.dir, 'mesh', 'handover', '--prepare');
    const signed = await at(first.dir, 'mesh', 'handover', '--to', String(request), '--revoke');
    expect(signed).toMatchObject({ succeeds: { issuer: mesh['issuer'] }, revoked: true });
    expect(await ended(second, 'SIGTERM')).toBe(0);
    await at(second.dir, 'mesh', 'handover', '--accept', String(signed['grant']));
    const heir = await daemons.start('second', ['gateway', '--port', '0']);

    const waiting = daemons.start('moving', ['node', ...synthetic]);
    waiting.catch(() => {});
    const { pid, membership } = await until(async () => {
      const ran = await daemons.run(['status', '--json', '--data-dir', node.dir]);
      if (ran.code !== 0) return undefined;
      const shown = JSON.parse(ran.stdout) as { pid: number; node?: { membership: Record<string, unknown> } };
      return shown.node?.membership['state'] === 'refused' ? { pid: shown.pid, ...shown.node } : undefined;
    }, newsMs);
    expect(membership).toMatchObject({ reason: expect.any(String) });
    const shown = (await at(first.dir, 'mesh', 'show')) as { issuers: unknown[]; peers: unknown[] };
    const gone = { issuer: mesh['issuer'], state: 'revoked', succeededBy: signed['issuer'] };
    expect(shown.issuers).toEqual(expect.arrayContaining([expect.objectContaining(gone)]));
    expect(shown.peers).toMatchObject([{ role: 'gateway', membership: 'taken back' }]);
    process.kill(pid, 'SIGTERM');
    await expect(waiting).rejects.toThrow();
    const moved = await startNode('moving', await invite(heir.dir, '--role', 'node'));
    expect(moved.ready['peerId']).toBe(peerId);
    await has(heir, peerId);

    expect(await ended(first, 'SIGTERM')).toBe(0);
    const lost = await daemons.run(['gateway', '--port', '0', '--data-dir', first.dir, '--json']);
    expect([lost.code, errorCode(lost)]).toEqual([4, 'MEMBERSHIP_INVALID']);
    const token = await invite(heir.dir, '--role', 'gateway');
    const back = await daemons.start('first', ['gateway', '--port', '0', '--join', '-'], token);
    expect(back.ready['peerId']).toBe(first.ready['peerId']);
  });
});
