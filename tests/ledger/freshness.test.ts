/** Freshness: how old what a peer knows of an issuer may be, by heartbeats whose blocks are all held. */

import { describe, test } from 'vitest';
import { authorIdOf, type Block } from '../../ledger/block.ts';
import { signHeartbeat } from '../../ledger/heartbeat.ts';
import { wireBlock } from '../../ledger/replicate-wire.ts';
import { limits } from '../../protocol/limits.ts';
import { encodeHeartbeat, type HeartbeatFrame, type LedgerFrame } from '../../protocol/messages/ledger.ts';
import { unixMs } from '../../protocol/units.ts';
import { epochMs } from '../../sim/clock.ts';
import { partition } from '../../sim/links.ts';
import { authorEntryOf, banOf, keyNumber, LedgerMesh, revocationOf, type Site, writeBlocks } from './mesh-stage.ts';

const asOf = (site: Site, mesh: LedgerMesh): number | undefined => {
  const { asOfMs } = site.ledger.freshness(mesh.issuerId);
  return asOfMs === undefined ? undefined : asOfMs - epochMs;
};
const ageMs = (site: Site, mesh: LedgerMesh): number =>
  site.ports.clock.wallMs() - (site.ledger.freshness(mesh.issuerId).asOfMs ?? 0);

/** A feed by hand, and a heartbeat for its end. */
const issued = (mesh: LedgerMesh, site: Site, blocks = 3): Block[] =>
  writeBlocks(mesh, mesh.mesh.issuer, [
    [authorEntryOf(mesh.mesh.issuer, site.peer)],
    ...Array.from({ length: blocks - 1 }, () => [banOf(site.peer)]),
  ]);
const beatFor = (mesh: LedgerMesh, site: Site, atMs: number, blocks: readonly Block[]): HeartbeatFrame => {
  const heads = blocks.slice(-1).map(({ head }) => ({ ...head.header, hash: head.hash }));
  const { meshId } = mesh.mesh.mesh;
  const heartbeat = { holder: site.peer, timeMs: unixMs(epochMs + atMs), heads };
  return signHeartbeat(heartbeat, { meshId, key: mesh.mesh.issuer.key });
};
const pushes = (blocks: readonly Block[]): LedgerFrame[] =>
  blocks.map((block) => ({ type: 'push', block: wireBlock(block) }));

describe('heartbeats', () => {
  test('keep everyone fresh, through anyone, and say where the key is held', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const [near, far] = [await mesh.add('gateway'), await mesh.add('gateway')];
    const node = await mesh.add('node');
    await mesh.link(near, issuer);
    await mesh.link(far, near);
    await mesh.link(node, far);
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(1))]);
    await mesh.pass(10 * limits.issuerHeartbeatMs);
    for (const site of [near, far, node]) {
      expect(ageMs(site, mesh)).toBeLessThan(limits.issuerHeartbeatMs + 2_000);
      expect(site.ledger.holderOf(mesh.issuerId)).toBe(issuer.peer);
    }
  });

  test('are not needed by the issuer’s own gateway', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    await mesh.pass(1_000);
    expect(ageMs(issuer, mesh)).toBe(0);
    expect(issuer.ledger.holderOf(mesh.issuerId)).toBe(issuer.peer);
  });

  test('stop counting when a gateway is cut off, and count again once it is not', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const gateway = await mesh.add('gateway');
    await mesh.link(gateway, issuer);
    await mesh.pass(2 * limits.issuerHeartbeatMs);
    const heal = mesh.world.links.add(partition(new Set([gateway.machine.host.id])));
    await mesh.pass(20 * limits.issuerHeartbeatMs);
    expect(ageMs(gateway, mesh)).toBeGreaterThanOrEqual(19 * limits.issuerHeartbeatMs);
    heal();
    await mesh.link(gateway, issuer);
    await mesh.pass(2 * limits.issuerHeartbeatMs);
    expect(ageMs(gateway, mesh)).toBeLessThan(limits.issuerHeartbeatMs + 2_000);
  });

  test('are remembered across a restart', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const gateway = await mesh.add('gateway');
    await mesh.link(gateway, issuer);
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(1))]);
    await mesh.pass(3 * limits.issuerHeartbeatMs);
    const before = asOf(gateway, mesh);
    await mesh.run(gateway.ports.store.batch([], { sync: true }));
    mesh.kill(gateway);
    await mesh.boot(gateway);
    await mesh.pass(10);
    expect(before).toBeGreaterThan(0);
    expect(asOf(gateway, mesh)).toBe(before);
  });

  test('count only once the header they name, and all blocks before it, are held', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const blocks = issued(mesh, gateway);
    const puppet = await mesh.puppet(gateway);
    puppet.send(...pushes(blocks.slice(0, 1)), beatFor(mesh, gateway, 1_000, blocks.slice(0, 1)));
    await mesh.pass(100);
    expect(asOf(gateway, mesh)).toBe(1_000);
    puppet.send(beatFor(mesh, gateway, 5_000, blocks));
    await mesh.pass(100);
    expect(asOf(gateway, mesh)).toBe(1_000);
    puppet.send(...pushes(blocks.slice(2)));
    await mesh.pass(100);
    expect(asOf(gateway, mesh)).toBe(1_000);
    puppet.send(...pushes(blocks.slice(1)));
    await mesh.pass(100);
    expect(asOf(gateway, mesh)).toBe(5_000);
  });

  test('of another branch than is held do not count', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const [ours, theirs] = [issued(mesh, gateway), issued(mesh, gateway)];
    const puppet = await mesh.puppet(gateway);
    puppet.send(...pushes(ours), beatFor(mesh, gateway, 5_000, theirs));
    await mesh.pass(1_000);
    expect(asOf(gateway, mesh)).toBeUndefined();
  });

  test('need the epochs that came before, too', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(1))]);
    mesh.kill(issuer);
    await mesh.boot(issuer);
    const source = await mesh.puppet(issuer);
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(2))]);
    await mesh.pass(limits.issuerHeartbeatMs + 1_000);
    const news = source.got.flatMap((frame) => (frame.type === 'have' ? frame.news : []));
    expect(news).toHaveLength(2);
    for (const { author, epoch } of news) source.send({ type: 'want', author, epoch, from: 0, maxBytes: 65_536 });
    await mesh.until(() => source.got.filter(({ type }) => type === 'blocks').length === 2);
    const [first = [], second = []] = source.got.flatMap((frame) => (frame.type === 'blocks' ? [frame.blocks] : []));
    const gateway = await mesh.add('gateway');
    const puppet = await mesh.puppet(gateway);
    puppet.send(...second.map((block): LedgerFrame => ({ type: 'push', block })));
    puppet.send(source.last('heartbeat') as HeartbeatFrame);
    await mesh.pass(1_000);
    expect(asOf(gateway, mesh)).toBeUndefined();
    puppet.send(...first.map((block): LedgerFrame => ({ type: 'push', block })));
    await mesh.pass(1_000);
    expect(asOf(gateway, mesh)).toBeGreaterThan(limits.issuerHeartbeatMs);
  });

  test('from the future do not count, are told of, and never count later', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const puppet = await mesh.puppet(gateway);
    const aheadMs = 600_000;
    puppet.send(beatFor(mesh, gateway, aheadMs, []));
    await mesh.pass(100);
    expect(gateway.ledger.freshness(mesh.issuerId)).toEqual({ asOfMs: undefined, hasFutureHeartbeat: true });
    await mesh.pass(2 * aheadMs);
    expect(asOf(gateway, mesh)).toBeUndefined();
    const later = await mesh.puppet(gateway);
    later.send(beatFor(mesh, gateway, 2 * aheadMs, []));
    await mesh.pass(100);
    expect(gateway.ledger.freshness(mesh.issuerId)).toEqual({
      asOfMs: epochMs + 2 * aheadMs,
      hasFutureHeartbeat: false,
    });
    expect(later.connection.isOpen).toBe(true);
  });

  test('within the skew that clocks may have count', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const puppet = await mesh.puppet(gateway);
    puppet.send(beatFor(mesh, gateway, limits.clockSkewMaxMs - 1_000, []));
    await mesh.pass(100);
    expect(asOf(gateway, mesh)).toBe(limits.clockSkewMaxMs - 1_000);
  });

  test('that are older than the newest change nothing, and are passed on no more', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const [puppet, other] = [await mesh.puppet(gateway), await mesh.puppet(gateway)];
    puppet.send(
      beatFor(mesh, gateway, 30_000, []),
      beatFor(mesh, gateway, 10_000, []),
      beatFor(mesh, gateway, 30_500, []),
    );
    await mesh.pass(5_000);
    expect(asOf(gateway, mesh)).toBe(30_000);
    expect(other.got.filter(({ type }) => type === 'heartbeat')).toHaveLength(1);
    expect(puppet.got.filter(({ type }) => type === 'heartbeat')).toHaveLength(0);
  });

  test('of a stranger are ignored; one that another key signed ends the connection', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    await using elsewhere = await LedgerMesh.create(11);
    const gateway = await mesh.add('gateway');
    const puppet = await mesh.puppet(gateway);
    puppet.send(beatFor(elsewhere, gateway, 1_000, []));
    await mesh.pass(1_000);
    expect([puppet.connection.isOpen, asOf(gateway, mesh)]).toEqual([true, undefined]);
    const { meshId } = mesh.mesh.mesh;
    const { key } = elsewhere.mesh.issuer;
    const claimed = encodeHeartbeat({ issuer: mesh.issuer, holder: gateway.peer, timeMs: unixMs(epochMs), heads: [] });
    const forged = signHeartbeat({ holder: gateway.peer, timeMs: unixMs(epochMs), heads: [] }, { meshId, key });
    expect(authorIdOf(key.publicKey)).not.toBe(mesh.issuer);
    puppet.send({ ...forged, bytes: claimed });
    await mesh.until(() => !puppet.connection.isOpen, 2_000);
    expect(asOf(gateway, mesh)).toBeUndefined();
  });
});
