/** The ledger of a peer as a whole: what it opens with, when it signs, whom it counts, and what it refuses. */

import { describe, test } from 'vitest';
import type { AuditRecord } from '../../ledger/audit.ts';
import { authorIdOf } from '../../ledger/block.ts';
import { createLedger } from '../../ledger/create-ledger.ts';
import { wireBlock, wireHead } from '../../ledger/replicate-wire.ts';
import { issuerIdOf, signCertificate } from '../../protocol/grants.ts';
import type { IssuerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { createIdentity, type IssuerRecord } from '../../protocol/mesh.ts';
import { createRoots } from '../../protocol/peer/create-roots.ts';
import { signLift, signRevocation } from '../../protocol/root-tokens.ts';
import { unixMs } from '../../protocol/units.ts';
import { epochMs } from '../../sim/clock.ts';
import { createSimTokens } from '../../sim/tokens.ts';
import { failure } from '../protocol/mesh-fixture.ts';
import { authorEntryOf, banOf, keyNumber, LedgerMesh, revocationOf, type Site, writeBlocks } from './mesh-stage.ts';

const tokens = createSimTokens({ mode: 'real' });
const signing = { tokens, nowMs: unixMs(epochMs) };

/** Another issuer of the same mesh, which may take over from the first. */
async function anotherIssuer(mesh: LedgerMesh, succeeds?: IssuerId): Promise<IssuerRecord> {
  const { meshId } = mesh.mesh.mesh;
  const key = createIdentity(mesh.world.kernel.random.fork(`issuer ${succeeds}`));
  const grant = {
    meshId,
    issuer: issuerIdOf(key.publicKey),
    publicKey: key.publicKey,
    ...(succeeds === undefined ? {} : { succeeds: { issuer: succeeds } }),
  };
  return { meshId, key, certificate: await signCertificate(grant, mesh.mesh.root.key, signing) };
}

/** How long the first append after a start took, in virtual time. */
async function appendMs(mesh: LedgerMesh, site: Site): Promise<number> {
  const { kernel } = mesh.world;
  const before = kernel.nowMs;
  await mesh.append(site, 'issuer', [revocationOf(keyNumber(before))]);
  return kernel.nowMs - before;
}

describe('signing', () => {
  test('waits for nothing where nothing was written before', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    expect(issuer.ledger.status().writing).toBe('ready');
    expect(await appendMs(mesh, issuer)).toBeLessThan(50);
  });

  test('after a restart waits for others, at most so long when nobody answers', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    await appendMs(mesh, issuer);
    mesh.kill(issuer);
    await mesh.boot(issuer);
    expect(issuer.ledger.status().writing).toBe('recovering');
    const took = await appendMs(mesh, issuer);
    expect(took).toBeGreaterThan(limits.recoveryWaitMs - 100);
    expect(took).toBeLessThan(limits.recoveryWaitMs + 100);
  });

  test('of a command asks nobody', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const site = await mesh.add('gateway', { issuer: mesh.mesh.issuer, recovers: false });
    await appendMs(mesh, site);
    mesh.kill(site);
    await mesh.boot(site);
    expect(await appendMs(mesh, site)).toBeLessThan(50);
  });

  test('goes on once a peer has told all it holds and what was lost is back', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const gateway = await mesh.add('gateway');
    await mesh.link(gateway, issuer);
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(1))]);
    const backup = issuer.machine.disk.backup();
    for (let number = 2; number <= 40; number += 1) {
      await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(number))]);
    }
    await mesh.until(() => gateway.ledger.status().blocks === 40);
    mesh.kill(issuer);
    issuer.machine.disk.restore(backup);
    await mesh.boot(issuer);
    expect(issuer.ledger.status()).toMatchObject({ blocks: 1, writing: 'recovering' });
    await mesh.pass(100);
    await mesh.link(gateway, issuer);
    const took = await appendMs(mesh, issuer);
    expect(took).toBeLessThan(3_000);
    expect(issuer.ledger.standing.key(keyNumber(40), mesh.issuer)?.revoked).toBeDefined();
    await mesh.until(() => gateway.ledger.status().blocks === 41);
    expect([issuer, gateway].map(({ ledger }) => ledger.status())).toMatchObject([
      { blocks: 41, frozen: [] },
      { blocks: 41, frozen: [] },
    ]);
  });

  test('a restored backup forks nobody, even if nobody answers in time', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const gateway = await mesh.add('gateway');
    await mesh.link(gateway, issuer);
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(1))]);
    const backup = issuer.machine.disk.backup();
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(2))]);
    await mesh.until(() => gateway.ledger.status().blocks === 2);
    mesh.kill(issuer);
    issuer.machine.disk.restore(backup);
    await mesh.boot(issuer);
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(3))]);
    await mesh.link(gateway, issuer);
    await mesh.until(() => [issuer, gateway].every(({ ledger }) => ledger.status().blocks === 3));
    expect([issuer, gateway].map(({ ledger }) => ledger.status().frozen)).toEqual([[], []]);
  });

  test('with a key that came back without its feed learns from those who are connected first', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const gateway = await mesh.add('gateway');
    await mesh.link(gateway, issuer);
    for (let number = 0; number < 30; number += 1) await appendMs(mesh, issuer);
    await mesh.until(() => gateway.ledger.status().blocks === 30);
    mesh.kill(issuer);
    issuer.machine.disk.restore(new Map());
    await mesh.boot(issuer);
    await mesh.pass(100);
    await mesh.link(gateway, issuer);
    const [place] = await mesh.append(issuer, 'issuer', [banOf(gateway.peer)]);
    expect(place?.generation).toBe(1);
    expect(issuer.ledger.status().blocks).toBe(31);
  });

  test('what only nodes still hold comes back from them, as far as it was open', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const node = await mesh.add('node');
    await mesh.link(node, issuer);
    await mesh.append(issuer, 'issuer', [banOf(node.peer)]);
    const backup = issuer.machine.disk.backup();
    await mesh.append(issuer, 'issuer', [banOf(issuer.peer)]);
    await mesh.until(() => node.ledger.status().blocks === 2);
    mesh.kill(issuer);
    issuer.machine.disk.restore(backup);
    await mesh.boot(issuer);
    expect(issuer.ledger.standing.isBanned(issuer.peer)).toBe(false);
    await mesh.pass(100);
    await mesh.link(node, issuer);
    await mesh.until(() => issuer.ledger.standing.isBanned(issuer.peer), 3_000);
  });

  test('needs the issuer’s key, an open ledger, and a peer that is not closing', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const issuer = await mesh.addIssuer();
    const entries = [banOf(gateway.peer)];
    const { meshId } = mesh.mesh.mesh;
    expect(await failure(() => gateway.ledger.append('issuer', entries))).toEqual({ code: 'ISSUER_MISSING', meshId });
    await mesh.run(issuer.ledger.close());
    expect(await failure(() => issuer.ledger.append('issuer', entries))).toMatchObject({ code: 'LEDGER_UNREADY' });
    const roots = createRoots(gateway.ports, mesh.mesh.mesh);
    const { key } = gateway.machine;
    const unopened = createLedger(gateway.ports, { role: 'gateway', meshId, key, roots, credentials: () => undefined });
    expect(await failure(() => unopened.append('gateway', entries))).toMatchObject({ code: 'LEDGER_UNREADY' });
    await mesh.run(unopened.open());
    expect(await mesh.run(failure(() => unopened.append('gateway', entries)))).toEqual({
      code: 'LEDGER_UNREADY',
      reason: 'this gateway is no member yet',
    });
  });

  test('closing while it waits for others ends the wait', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    await appendMs(mesh, issuer);
    mesh.kill(issuer);
    await mesh.boot(issuer);
    const waiting = failure(() => issuer.ledger.append('issuer', [banOf(issuer.peer)]));
    await mesh.pass(10);
    await mesh.run(issuer.ledger.close());
    expect(await mesh.run(waiting)).toMatchObject({ code: 'LEDGER_UNREADY' });
  });
});

describe('what the root says', () => {
  test('reaches everyone, is kept, and ends the memberships of an issuer', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const sites = [await mesh.addIssuer(), await mesh.add('gateway'), await mesh.add('node')];
    const [issuer, gateway, node] = sites as [Site, Site, Site];
    await mesh.link(gateway, issuer);
    await mesh.link(node, gateway);
    const member = { peer: node.peer, issuer: mesh.issuerId };
    const heard: string[] = [];
    node.ledger.onChange(({ kind }) => heard.push(kind));
    const { meshId } = mesh.mesh.mesh;
    const token = await signRevocation({ meshId, issuer: mesh.issuerId }, mesh.mesh.root.key, signing);
    await mesh.run(issuer.ledger.roots.take({ kind: 'revocation', token }));
    await mesh.until(() => sites.every(({ ledger }) => !ledger.isMember(member)), 5_000);
    expect(heard).toEqual(['roots']);
    await mesh.pass(100);
    mesh.kill(node);
    await mesh.boot(node);
    expect(node.ledger.isMember(member)).toBe(false);
    expect(await failure(() => issuer.ledger.append('issuer', [banOf(node.peer)]))).toEqual({
      code: 'ISSUER_RETIRED',
      issuer: mesh.issuerId,
      reason: 'revoked',
    });
  });

  test('a handover: the successor counts, the predecessor signs no more', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const successor = await anotherIssuer(mesh, mesh.issuerId);
    const heir = await mesh.addIssuer(successor);
    const gateway = await mesh.add('gateway');
    await mesh.link(issuer, gateway);
    await mesh.link(heir, gateway);
    const taken = heir.ledger.roots.take({ kind: 'issuer', token: successor.certificate });
    await mesh.run(taken);
    await mesh.until(() => issuer.ledger.authorsOf(mesh.issuerId).length === 2);
    expect(await failure(() => issuer.ledger.append('issuer', [banOf(heir.peer)]))).toMatchObject({
      code: 'ISSUER_RETIRED',
      reason: 'succeeded',
    });
    await mesh.append(heir, 'issuer', [banOf(issuer.peer)]);
    await mesh.until(() => gateway.ledger.standing.isBanned(issuer.peer));
    await mesh.pass(3 * limits.issuerHeartbeatMs);
    const { asOfMs = 0 } = gateway.ledger.freshness(mesh.issuerId);
    expect(gateway.ports.clock.wallMs() - asOfMs).toBeLessThan(limits.issuerHeartbeatMs + 2_000);
    expect([gateway.ledger.holderOf(mesh.issuerId), heir.ledger.freshness(mesh.issuerId).asOfMs]).toEqual([
      heir.peer,
      heir.ports.clock.wallMs(),
    ]);
    expect(gateway.ledger.authorsOf(mesh.issuerId)).toEqual([mesh.issuer, authorIdOf(successor.key.publicKey)]);
  });

  test('an issuer named later: nodes are told of its feed then', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const other = await anotherIssuer(mesh);
    const second = await mesh.addIssuer(other);
    const node = await mesh.add('node');
    await mesh.link(node, second);
    await mesh.append(second, 'issuer', [banOf(node.peer)]);
    await mesh.until(() => node.ledger.standing.isBanned(node.peer));
    expect(node.ledger.authorsOf(issuerIdOf(other.key.publicKey))).toEqual([authorIdOf(other.key.publicKey)]);
  });

  test('lifts a freeze: what the author then writes is taken by all, on a feed of its own', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const audited: AuditRecord[] = [];
    const gateway = await mesh.add('gateway', { audit: { note: (record) => audited.push(record) } });
    const node = await mesh.add('node');
    await mesh.link(node, gateway);
    const [a = [], b = []] = [1, 2].map(() =>
      writeBlocks(mesh, mesh.mesh.issuer, [[authorEntryOf(mesh.mesh.issuer, gateway.peer)], [banOf(gateway.peer)]]),
    );
    const puppet = await mesh.puppet(gateway);
    puppet.send(...a.map((block) => ({ type: 'push', block: wireBlock(block) }) as const));
    await mesh.pass(200);
    for (const [x, y] of [[a[1], b[1]]] as const) {
      if (x !== undefined && y !== undefined) puppet.send({ type: 'proof', a: wireHead(x.head), b: wireHead(y.head) });
    }
    await mesh.until(() => [gateway, node].every(({ ledger }) => ledger.status().frozen.length === 1));
    expect(audited).toEqual([
      { action: 'feed.forked', actor: 'none', object: `author:${mesh.issuer}`, outcome: 'done', reason: '' },
    ]);
    const issuer = await mesh.addIssuer();
    await mesh.link(issuer, gateway);
    await mesh.until(() => issuer.ledger.status().frozen.length === 1);
    expect(await mesh.run(failure(() => issuer.ledger.append('issuer', [banOf(node.peer)])))).toMatchObject({
      code: 'FEED_FROZEN',
    });
    const { meshId } = mesh.mesh.mesh;
    const lift = { meshId, author: mesh.issuer, epoch: (a[0] as (typeof a)[0]).head.header.epoch };
    const token = await signLift(lift, mesh.mesh.root.key, signing);
    await mesh.run(gateway.ledger.roots.take({ kind: 'lift', token }));
    await mesh.until(() => mesh.sites.slice(0, 2).every(({ ledger }) => ledger.status().frozen.length === 0));
    await mesh.until(() => issuer.ledger.status().frozen.length === 0);
    await mesh.append(issuer, 'issuer', [banOf(node.peer)]);
    await mesh.until(() => [gateway, node].every(({ ledger }) => ledger.standing.isBanned(node.peer)));
    expect(gateway.ledger.status()).toMatchObject({ frozen: [], forks: [{ author: mesh.issuer }] });
  });
});

describe('opening', () => {
  test('drops what the root did not sign, and what is no token, and has the rest', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const { meshId } = mesh.mesh.mesh;
    const other = await anotherIssuer(mesh);
    const issuer = issuerIdOf(other.key.publicKey);
    const token = await signRevocation({ meshId, issuer }, mesh.mesh.root.key, signing);
    await mesh.run(gateway.ledger.roots.take({ kind: 'revocation', token }));
    await mesh.pass(100);
    mesh.kill(gateway);
    const rows = [...gateway.machine.disk.backup()];
    const isRoot = (key: string): boolean => key.startsWith('root/');
    expect(rows.filter(([key]) => isRoot(key))).toHaveLength(2);
    const flipped = rows.map(([key, [name, value]], at) => {
      const changed = value.slice();
      const last = changed.length - 1 - (at % 2);
      if (isRoot(key)) changed[last] = (changed[last] ?? 0) ^ 1;
      return [key, [name, changed]] as const;
    });
    gateway.machine.disk.restore(new Map(flipped));
    await mesh.boot(gateway);
    expect(gateway.ledger.roots.isRevoked(issuer)).toBe(false);
    await mesh.pass(100);
    const left = [...gateway.machine.disk.backup().keys()].filter(isRoot);
    expect(left).toHaveLength(1);
    expect(gateway.ledger.isMember({ peer: gateway.peer, issuer: mesh.issuerId })).toBe(true);
  });

  test('a second time does nothing, and says what the first one found', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    await mesh.append(issuer, 'issuer', [banOf(issuer.peer)]);
    mesh.kill(issuer);
    await mesh.boot(issuer);
    const report = await mesh.run(issuer.ledger.open());
    expect(report).toEqual({ blocks: 1, entries: 2, damaged: [] });
    expect(issuer.ledger.status()).toMatchObject({ blocks: 1, authors: 1, open: report });
  });

  test('blocks that the disk has lost are filled in again from others', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const gateway = await mesh.add('gateway');
    await mesh.link(gateway, issuer);
    for (let number = 0; number < 60; number += 1) {
      await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(number))]);
    }
    await mesh.until(() => gateway.ledger.status().blocks === 60);
    mesh.kill(gateway);
    const rows = [...gateway.machine.disk.backup()].sort(([x], [y]) => (x < y ? -1 : 1));
    const blocks = rows.filter(([key]) => key.startsWith('f/'));
    expect(blocks).toHaveLength(60);
    const lost = new Set([...blocks.slice(10, 20), ...blocks.slice(33, 35)]);
    gateway.machine.disk.restore(new Map(rows.filter((row) => !lost.has(row))));
    await mesh.boot(gateway);
    expect(gateway.ledger.status().blocks).toBe(48);
    await mesh.pass(100);
    await mesh.link(gateway, issuer);
    await mesh.until(() => gateway.ledger.status().blocks === 60);
    expect(gateway.ledger.status().frozen).toEqual([]);
  });
});
