/** What moves between gateways for a new block, and for many old ones: each byte once, few syncs. */

import { test } from 'vitest';
import type { Block } from '../../ledger/block.ts';
import { wireBlock } from '../../ledger/replicate-wire.ts';
import type { Have, LedgerFrame } from '../../protocol/messages/ledger.ts';
import { ms } from '../../protocol/units.ts';
import {
  authorEntryOf,
  keyNumber,
  LedgerMesh,
  type Puppet,
  revocationOf,
  type Site,
  writeBlocks,
} from './mesh-stage.ts';

const push = (block: Block): LedgerFrame => ({ type: 'push', block: wireBlock(block) });
const nothing: Have = { type: 'have', isStart: true, isWhole: true, news: [], changes: [] };
const named = (block: Block): Have => {
  const { author, epoch, number } = block.head.header;
  return {
    ...nothing,
    isStart: false,
    news: [{ author, epoch, count: number + 1, hash: block.head.hash.slice(0, 16) }],
  };
};
const changed = ({ head }: Block): Have => {
  const change = { index: 0, count: head.header.number + 1, hash: head.hash.slice(0, 16) };
  return { ...nothing, isStart: false, changes: [change] };
};

const feedOf = (mesh: LedgerMesh, blocks: number, peer: Site): readonly Block[] =>
  writeBlocks(mesh, mesh.mesh.issuer, [
    [authorEntryOf(mesh.mesh.issuer, peer.peer)],
    ...Array.from({ length: blocks - 1 }, (_, at) => [revocationOf(keyNumber(at))]),
  ]);

const wanted = ({ got }: Puppet): number[] => got.flatMap((frame) => (frame.type === 'want' ? [frame.from] : []));

test('what was pushed is not asked for as well, although it is named before it is on disk', async ({ expect }) => {
  await using mesh = await LedgerMesh.create();
  const gateway = await mesh.add('gateway');
  const puppet = await mesh.puppet(gateway);
  const [first, second, third] = feedOf(mesh, 3, gateway) as [Block, Block, Block];
  puppet.send(nothing, push(first), named(first));
  await mesh.until(() => gateway.ledger.status().blocks === 1);
  puppet.send(push(second), changed(second), push(third), changed(third));
  await mesh.until(() => gateway.ledger.status().blocks === 3);
  await mesh.pass(5_000);
  expect(wanted(puppet)).toEqual([]);
});

test('what was pushed out of its order is asked for', async ({ expect }) => {
  await using mesh = await LedgerMesh.create();
  const gateway = await mesh.add('gateway');
  const puppet = await mesh.puppet(gateway);
  const blocks = feedOf(mesh, 3, gateway) as [Block, Block, Block];
  puppet.send(nothing, push(blocks[2]), named(blocks[2]));
  await mesh.until(() => wanted(puppet).length > 0, 1_000);
  puppet.send({ type: 'blocks', isLast: true, blocks: blocks.map(wireBlock) });
  await mesh.until(() => gateway.ledger.status().blocks === 3, 1_000);
  await mesh.pass(5_000);
  expect(wanted(puppet)).toEqual([0]);
});

test('who catches up syncs a slow disk far less often than it gets blocks, however large they are', async ({
  expect,
}) => {
  await using mesh = await LedgerMesh.create();
  const issuer = await mesh.addIssuer();
  const blocks = 64;
  const many = Array.from({ length: 900 }, (_, at) => revocationOf(keyNumber(at)));
  for (let number = 0; number < blocks; number += 1) await mesh.append(issuer, 'issuer', many);
  const late = await mesh.add('gateway');
  const { store, clock } = late.ports;
  const batch = store.batch.bind(store);
  let syncs = 0;
  store.batch = async (ops, options) => {
    syncs += 1;
    await clock.sleep(ms(50));
    await batch(ops, options);
  };
  await mesh.link(late, issuer);
  await mesh.until(() => late.ledger.status().blocks === blocks);
  expect(syncs).toBeLessThan(blocks / 4);
});
