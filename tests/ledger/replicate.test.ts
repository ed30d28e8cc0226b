/** Replication: feeds reach every peer that may have them, however the mesh was cut and whoever was late. */

import { describe, test } from 'vitest';
import { type Entry, encodeEntry } from '../../ledger/entry.ts';
import { partition } from '../../sim/links.ts';
import { banOf, keyNumber, LedgerMesh, revocationOf, type Site } from './mesh-stage.ts';

const knows = (site: Site, number: number, mesh: LedgerMesh): boolean =>
  site.ledger.standing.key(keyNumber(number), mesh.issuer)?.revoked !== undefined;

/** Bytes of every row of a site's disk. */
const rowsOf = ({ machine }: Site): string[] =>
  [...machine.disk.backup().values()].map(([, value]) => Buffer.from(value).toString('latin1'));

/** What every entry on the disk of `site` would have to contain, were it there: the bytes of this one. */
const holdsBytes = (site: Site, entry: Entry): boolean => {
  const bytes = Buffer.from(encodeEntry(entry)).toString('latin1');
  return rowsOf(site).some((row) => row.includes(bytes));
};

/** Everything that a site holds, by author and epoch. */
const vectorOf = async (mesh: LedgerMesh, site: Site): Promise<string[]> => {
  const keys = [...site.machine.disk.backup().values()].map(([key]) => Buffer.from(key).toString('latin1'));
  await mesh.pass(0);
  return keys.filter((key) => key.startsWith('f/')).sort();
};

describe('a mesh of gateways and nodes', () => {
  test('converges: gateways hold everything, nodes the open entries', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const gateways = [issuer, await mesh.add('gateway'), await mesh.add('gateway')];
    const nodes = [await mesh.add('node'), await mesh.add('node')];
    await mesh.linkAll();
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(1)), banOf(nodes[1]?.peer as never)]);
    await mesh.append(gateways[2] as Site, 'gateway', [revocationOf(keyNumber(2))]);
    await mesh.until(() => gateways.every((gateway) => knows(gateway, 1, mesh)), 2_000);
    await mesh.until(() => nodes.every(({ ledger, peer }) => ledger.standing.isBanned(nodes[1]?.peer ?? peer)), 2_000);
    await mesh.until(() => gateways.every(({ ledger }) => ledger.status().authors === 2), 2_000);
    expect(nodes.map(({ ledger }) => ledger.status())).toMatchObject([{ authors: 1 }, { authors: 1 }]);
  });

  test('a gateway that is banned fills nobody’s disk until that is taken back', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const [gateway, other] = [await mesh.add('gateway'), await mesh.add('gateway')];
    await mesh.linkAll();
    await mesh.append(gateway, 'gateway', [revocationOf(keyNumber(1))]);
    await mesh.until(() => [issuer, other].every(({ ledger }) => ledger.status().blocks === 1), 2_000);
    const ban = banOf(gateway.peer);
    await mesh.append(issuer, 'issuer', [ban]);
    await mesh.until(() => [gateway, other].every(({ ledger }) => ledger.standing.isBanned(gateway.peer)), 2_000);
    await mesh.append(gateway, 'gateway', [revocationOf(keyNumber(2))]);
    await mesh.pass(60_000);
    expect([issuer, other, gateway].map(({ ledger }) => ledger.status().blocks)).toEqual([2, 2, 3]);
    await mesh.append(issuer, 'issuer', [{ kind: 'unban', peer: gateway.peer, bans: [(ban as { ban: string }).ban] }]);
    await mesh.until(() => [issuer, other].every(({ ledger }) => ledger.status().blocks === 4), 5_000);
  });

  test('a node never holds an entry that is not open', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const gateway = await mesh.add('gateway');
    const node = await mesh.add('node');
    await mesh.linkAll();
    const hidden = revocationOf(keyNumber(1));
    const open = banOf(gateway.peer);
    await mesh.append(issuer, 'issuer', [hidden, open]);
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(2))]);
    await mesh.until(() => [gateway, node].every(({ ledger }) => ledger.status().blocks === 2));
    expect([issuer, gateway, node].map((site) => [holdsBytes(site, open), holdsBytes(site, hidden)])).toEqual([
      [true, true],
      [true, true],
      [true, false],
    ]);
  });

  test('nodes hold nothing of gateways’ feeds', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const node = await mesh.add('node');
    await mesh.linkAll();
    await mesh.append(issuer, 'gateway', [revocationOf(keyNumber(1))]);
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(2))]);
    await mesh.until(() => node.ledger.status().blocks === 1);
    await mesh.pass(120_000);
    expect(node.ledger.status()).toMatchObject({ blocks: 1, authors: 1 });
  });

  test('what came through others converges, too: a line of gateways', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const sites = [await mesh.addIssuer()];
    for (let at = 0; at < 4; at += 1) sites.push(await mesh.add('gateway'));
    for (let at = 1; at < sites.length; at += 1) await mesh.link(sites[at] as Site, sites[at - 1] as Site);
    const before = mesh.world.kernel.nowMs;
    await mesh.append(sites[0] as Site, 'issuer', [revocationOf(keyNumber(1))]);
    await mesh.until(() => sites.every((site) => knows(site, 1, mesh)));
    expect(mesh.world.kernel.nowMs - before).toBeLessThan(1_000);
    await mesh.append(sites[4] as Site, 'gateway', [revocationOf(keyNumber(2))]);
    await mesh.until(() => sites.every(({ ledger }) => ledger.status().authors === 2));
  });

  test('a partition heals: both sides have what the other one wrote', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const other = await mesh.add('gateway');
    const third = await mesh.add('gateway');
    await mesh.linkAll();
    await mesh.pass(1_000);
    const heal = mesh.world.links.add(partition(new Set([other.machine.host.id])));
    for (let number = 0; number < 20; number += 1) {
      await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(number))]);
      await mesh.append(other, 'gateway', [revocationOf(keyNumber(number))]);
    }
    await mesh.until(() => knows(third, 19, mesh));
    expect(knows(other, 0, mesh)).toBe(false);
    heal();
    for (const to of [issuer, third]) await mesh.link(other, to);
    await mesh.until(() => [issuer, other, third].every(({ ledger }) => ledger.status().blocks === 40));
    expect(await vectorOf(mesh, other)).toEqual(await vectorOf(mesh, issuer));
    expect(await vectorOf(mesh, third)).toEqual(await vectorOf(mesh, issuer));
  });

  test('who comes late catches up, and asks for nothing twice', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const gateway = await mesh.add('gateway');
    await mesh.linkAll();
    const blocks = 2_000;
    for (let number = 0; number < blocks; number += 1) {
      await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(number))]);
    }
    await mesh.until(() => gateway.ledger.status().blocks === blocks);
    const late = await mesh.add('gateway');
    const lateNode = await mesh.add('node');
    const before = mesh.world.kernel.nowMs;
    for (const to of [issuer, gateway]) {
      await mesh.link(late, to);
      await mesh.link(lateNode, to);
    }
    await mesh.until(() => [late, lateNode].every(({ ledger }) => ledger.status().blocks === blocks));
    // Every batch of blocks waits for one sync of 2 ms.
    expect(mesh.world.kernel.nowMs - before).toBeLessThan(2_000);
    expect(await vectorOf(mesh, late)).toEqual(await vectorOf(mesh, issuer));
  });
});
