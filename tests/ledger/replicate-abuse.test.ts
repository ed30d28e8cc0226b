/** Replication among peers of which some keep to no rule: forks are proven everywhere, abuse ends the connection. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { Block } from '../../ledger/block.ts';
import { parseEntry } from '../../ledger/entry.ts';
import { wireBlock, wireHead } from '../../ledger/replicate-wire.ts';
import { keyFromSeed, sha256, toHex } from '../../protocol/crypto.ts';
import type { AuthorId, EpochId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import {
  encodeLedgerFrame,
  type Have,
  LEDGER_PROTOCOL,
  type LedgerFrame,
  wantMinBytes,
} from '../../protocol/messages/ledger.ts';
import { failure } from '../protocol/mesh-fixture.ts';
import { ledgerFrames } from '../support/ledger-frames.ts';
import {
  authorEntryOf,
  banOf,
  keyNumber,
  LedgerMesh,
  type Puppet,
  revocationOf,
  type Site,
  writeBlocks,
} from './mesh-stage.ts';

const push = (block: Block): LedgerFrame => ({ type: 'push', block: wireBlock(block) });
const have = (blocks: readonly Block[], isStart = true): Have => {
  const last = blocks.at(-1) as Block;
  const { author, epoch, number } = last.head.header;
  const news = [{ author, epoch, count: number + 1, hash: last.head.hash.slice(0, 16) }];
  return { type: 'have', isStart, isWhole: true, news, changes: [] };
};
/** Nothing is held. */
const nothing: Have = { type: 'have', isStart: true, isWhole: true, news: [], changes: [] };

/** A feed of the mesh's own issuer, written by a thief of its key. */
const stolen = (mesh: LedgerMesh, bans: number, more: number, peer: Site): Block[] =>
  writeBlocks(mesh, mesh.mesh.issuer, [
    [authorEntryOf(mesh.mesh.issuer, peer.peer)],
    ...Array.from({ length: bans }, (_, at) => [revocationOf(keyNumber(at))]),
    ...Array.from({ length: more }, () => [banOf(peer.peer)]),
  ]);

describe('an author that forks', () => {
  test.for([
    { a: 3, b: 3, name: 'branches of one length' },
    { a: 3, b: 7, name: 'one branch that is longer' },
    { a: 7, b: 2, name: 'one branch that is shorter' },
  ])('is proven to have, everywhere: $name', async ({ a, b }, { expect }) => {
    await using mesh = await LedgerMesh.create();
    const left = [await mesh.add('gateway'), await mesh.add('gateway'), await mesh.add('node')];
    const right = [await mesh.add('gateway'), await mesh.add('gateway'), await mesh.add('node')];
    const someone = left[0] as Site;
    const blocksA = stolen(mesh, 1, a, someone);
    const first = blocksA[1] as Block;
    const { epoch, number } = first.head.header;
    const from = { epoch, number: number + 1, previous: first.head.hash };
    const branch = Array.from({ length: b }, () => [banOf(someone.peer)]);
    const blocksB = [...blocksA.slice(0, 2), ...writeBlocks(mesh, mesh.mesh.issuer, branch, from)];
    for (const half of [left, right]) {
      await mesh.link(half[0] as Site, half[1] as Site);
      for (const gateway of half.slice(0, 2)) await mesh.link(half[2] as Site, gateway);
    }
    const toLeft = await mesh.puppet(left[0] as Site);
    const toRight = await mesh.puppet(right[0] as Site);
    toLeft.send(...blocksA.map(push));
    toRight.send(...blocksB.map(push));
    const holds = (sites: readonly Site[], blocks: readonly Block[]): boolean =>
      sites.every(({ ledger }) => ledger.status().blocks === blocks.length);
    await mesh.until(() => holds(left, blocksA) && holds(right, blocksB));
    expect([...left, ...right].map(({ ledger }) => ledger.status().frozen)).toEqual(Array(6).fill([]));
    await mesh.link(left[1] as Site, right[1] as Site);
    await mesh.until(() => [...left, ...right].every(({ ledger }) => ledger.status().frozen.length === 1));
    expect((right[2] as Site).ledger.status()).toMatchObject({
      frozen: [mesh.issuer],
      forks: [{ author: mesh.issuer, epoch, number: 2 }],
    });
  });

  test('is proven to have by a node that holds another branch than its gateway', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const [one, two] = [await mesh.add('gateway'), await mesh.add('gateway')];
    const node = await mesh.add('node');
    await mesh.link(node, one);
    const blocksA = stolen(mesh, 1, 2, one);
    const blocksB = stolen(mesh, 1, 2, two);
    (await mesh.puppet(one)).send(...blocksA.map(push));
    await mesh.until(() => node.ledger.status().blocks === blocksA.length);
    (await mesh.puppet(two)).send(...blocksB.map(push));
    await mesh.until(() => two.ledger.status().blocks === blocksB.length);
    mesh.kill(one);
    await mesh.link(node, two);
    await mesh.until(() => [two, node].every(({ ledger }) => ledger.status().frozen.length === 1));
    expect(two.ledger.status().frozen).toEqual([mesh.issuer]);
  });

  test('is frozen by its first block although strangers’ proofs came by the hundred in between', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const [honest, flooding] = [await mesh.puppet(gateway), await mesh.puppet(gateway)];
    const forkOf = (key = mesh.mesh.issuer.key): readonly [Block, Block] => {
      const first = authorEntryOf(mesh.mesh.issuer, gateway.peer);
      const by = { ...mesh.mesh.issuer, key };
      const [a, b] = [[first], [first, banOf(gateway.peer)]].flatMap((entries) => writeBlocks(mesh, by, [entries]));
      return [a as Block, b as Block];
    };
    const proofOf = ([a, b]: readonly [Block, Block]): LedgerFrame =>
      ({ type: 'proof', a: wireHead(a.head), b: wireHead(b.head) }) as const;
    const fork = forkOf();
    honest.send(nothing, proofOf(fork));
    await mesh.pass(100);
    const strangersProofs = Array.from({ length: 300 }, (_, at) => proofOf(forkOf(keyFromSeed(sha256(`key ${at}`)))));
    flooding.send(nothing, ...strangersProofs);
    await mesh.pass(1_000);
    expect(flooding.connection.isOpen).toBe(true);
    honest.send(push(fork[0]));
    await mesh.until(() => gateway.ledger.status().frozen.length === 1, 1_000);
    expect(gateway.ledger.status()).toMatchObject({ blocks: 0, frozen: [mesh.issuer] });
  });

  test('a proof is kept, and passed on to who comes later', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const [a, b] = [stolen(mesh, 1, 1, gateway), stolen(mesh, 1, 1, gateway)];
    const puppet = await mesh.puppet(gateway);
    puppet.send(...a.map(push), {
      type: 'proof',
      a: wireHead((a[2] as Block).head),
      b: wireHead((b[2] as Block).head),
    });
    await mesh.until(() => gateway.ledger.status().frozen.length === 1);
    await mesh.pass(100);
    mesh.kill(gateway);
    await mesh.boot(gateway);
    const late = await mesh.add('gateway');
    await mesh.link(late, gateway);
    await mesh.until(() => late.ledger.status().frozen.length === 1);
    expect(late.ledger.status()).toMatchObject({ frozen: [mesh.issuer] });
  });
});

/** What a peer does, and how much of it is needed. */
type Abuse = (puppet: Puppet & { readonly site: Site }, mesh: LedgerMesh) => void | Promise<void>;

const strangers = async (count: number): Promise<Block[]> => {
  const other = await LedgerMesh.create(99);
  await using _ = other;
  const site = await other.add('gateway');
  // Signed for our mesh by an issuer of another: every signature checks, no token does.
  return Array.from({ length: count }, (_, at) => {
    const epoch = toHex(sha256(`stranger ${at}`)).slice(0, 32) as EpochId;
    const from = { epoch, number: 0, previous: new Uint8Array(32) };
    const entries = [[authorEntryOf(other.mesh.issuer, site.peer)]];
    return writeBlocks({ ...other, mesh: other.mesh } as LedgerMesh, other.mesh.issuer, entries, from)[0] as Block;
  });
};

/** Epochs of nobody in particular, as many as frames of them have room for. */
function* namesOf(frames: number): Generator<Have> {
  for (let frame = 0; frame < frames; frame += 1) {
    const news = Array.from({ length: 512 }, (_, at) => ({
      author: String((frame * 512 + at) % 1_000).padStart(64, '0') as AuthorId,
      epoch: String(frame * 512 + at).padStart(32, '0') as EpochId,
      count: 1,
      hash: new Uint8Array(16),
    }));
    yield { ...nothing, isStart: frame === 0, news };
  }
}

const abuses: Readonly<Record<string, Abuse>> = {
  'bytes that are no frame': ({ send }) => send(Uint8Array.of(1, 2, 3)),
  'a frame that is cut short': ({ send }) => send(encodeLedgerFrame(nothing).slice(0, -1)),
  'blocks that nobody asked for': ({ send }, mesh) =>
    send({ type: 'blocks', isLast: true, blocks: stolen(mesh, 1, 1, mesh.sites[0] as Site).map(wireBlock) }),
  'an empty answer to nothing': ({ send }) => send({ type: 'blocks', isLast: true, blocks: [] }),
  'a block that its author did not sign': ({ send }, mesh) => {
    const [block] = stolen(mesh, 0, 0, mesh.sites[0] as Site) as [Block];
    const signature = block.head.signature.slice();
    signature[3] = (signature[3] ?? 0) ^ 1;
    send({ type: 'push', block: { ...wireBlock(block), signature } });
  },
  'a block with another entry than was signed': ({ send }, mesh) => {
    const [block] = stolen(mesh, 0, 0, mesh.sites[0] as Site) as [Block];
    send({ type: 'push', block: { ...wireBlock(block), entries: [new Uint8Array(10)] } });
  },
  'a proof of two headers that are one': ({ send }, mesh) => {
    const [block] = stolen(mesh, 0, 0, mesh.sites[0] as Site) as [Block];
    send({ type: 'proof', a: wireHead(block.head), b: wireHead(block.head) });
  },
  'a heartbeat that nobody signed': ({ send }) =>
    send({ type: 'heartbeat', bytes: new Uint8Array(20), signature: new Uint8Array(64) }),
  'a token that the root did not sign': ({ send }) =>
    send({ type: 'tokens', tokens: [{ kind: 'revocation', token: 'a.b.c' }] }),
  'a change of an epoch that it never named': ({ send }) =>
    send(nothing, {
      type: 'have',
      isStart: false,
      isWhole: true,
      news: [],
      changes: [{ index: 0, count: 1, hash: new Uint8Array(16) }],
    }),
  'a count that shrinks': ({ send }, mesh) => {
    const blocks = stolen(mesh, 3, 0, mesh.sites[0] as Site);
    const first = have(blocks);
    send(first, {
      type: 'have',
      isStart: false,
      isWhole: true,
      news: [],
      changes: [{ index: 0, count: 2, hash: new Uint8Array(16) }],
    });
  },
  'more wants than the window holds': ({ send }, mesh) => {
    const want = { type: 'want', author: mesh.issuer, epoch: 'ee'.repeat(16) as EpochId, from: 0 } as const;
    send({ ...want, maxBytes: limits.ledgerWindowBytes }, { ...want, maxBytes: wantMinBytes });
  },
  'everything anew, again and again': ({ send }) => send({ type: 'again' }, { type: 'again' }),
  'a flood of frames': ({ send }) => {
    const tally = encodeLedgerFrame({ type: 'tally', epochs: 0, blocks: 0 }).slice();
    for (let count = 0; count < 25_000; count += 1) send(tally.slice());
  },
  'a flood of epochs': ({ send }) => send(...namesOf(600)),
  'a second start that nobody asked for': ({ send }) => send(nothing, nothing),
  'a flood of proofs': ({ send }, mesh) => {
    const [a] = stolen(mesh, 0, 0, mesh.sites[0] as Site) as [Block];
    const [b] = stolen(mesh, 0, 0, mesh.sites[1] as Site) as [Block];
    const stranger = { ...mesh.mesh.issuer, key: keyFromSeed(sha256('stranger')) };
    const [c, d] = [a, b].map(({ entries }) => writeBlocks(mesh, stranger, [entries.map(parseEntry)])) as [
      [Block],
      [Block],
    ];
    const proof = { type: 'proof', a: wireHead(c[0].head), b: wireHead(d[0].head) } as const;
    for (let count = 0; count < 1_100; count += 1) send(proof);
  },
  'a flood of tokens': ({ send }, mesh) => {
    const token = { kind: 'issuer', token: mesh.mesh.issuer.certificate } as const;
    const tokens = Array.from({ length: 64 }, () => token);
    for (let count = 0; count < 350; count += 1) send({ type: 'tokens', tokens });
  },
  'blocks of strangers': async ({ send }) => send(...(await strangers(60)).map(push)),
};

describe('an exchange out of place', () => {
  test('between nodes ends the connection', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const node = await mesh.add('node');
    expect(await failure(() => mesh.puppet(node, 'node'))).toMatchObject({ code: 'CHANNEL_CLOSED' });
    await mesh.until(() => node.ports.network.connections().length === 0, 1_000);
  });

  test('a second one on the same connection ends it', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const puppet = await mesh.puppet(gateway);
    await mesh.pass(100);
    expect(puppet.connection.isOpen).toBe(true);
    const open = () => mesh.run(puppet.connection.open(LEDGER_PROTOCOL, new AbortController().signal));
    expect(await failure(open)).toMatchObject({ code: 'CHANNEL_CLOSED' });
    await mesh.until(() => !puppet.connection.isOpen, 1_000);
    expect(gateway.ledger.status().frozen).toEqual([]);
  });

  test('one peer has a few at a time, the newest', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const first = await mesh.puppet(gateway);
    const more = [];
    for (let count = 0; count < 5; count += 1) {
      const connection = mesh.linkAgain(first.site, gateway);
      await mesh.run(connection.open(LEDGER_PROTOCOL, new AbortController().signal));
      more.push(connection);
    }
    await mesh.pass(1_000);
    expect([first.connection, ...more].map(({ isOpen }) => isOpen)).toEqual([false, false, true, true, true, true]);
  });

  test('a push by a node ends the connection', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const puppet = await mesh.puppet(gateway, 'node');
    puppet.send(...stolen(mesh, 1, 1, gateway).map(push));
    await mesh.until(() => !puppet.connection.isOpen, 1_000);
    expect(gateway.ledger.status().blocks).toBe(0);
  });

  test('a node is given nothing of feeds that are not issuers’, whatever it asks for', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.addIssuer();
    const [place] = await mesh.append(gateway, 'gateway', [revocationOf(keyNumber(1))]);
    const puppet = await mesh.puppet(gateway, 'node');
    const { author, epoch } = place as NonNullable<typeof place>;
    puppet.send(nothing, { type: 'want', author, epoch, from: 0, maxBytes: wantMinBytes });
    await mesh.until(() => puppet.last('open') !== undefined);
    expect([puppet.last('open')?.blocks, puppet.last('have')?.news]).toEqual([[], []]);
  });
});

describe('a peer that breaks the rules', () => {
  test.for(Object.entries(abuses))('is cut off, and does no harm: %s', async ([, abuse], { expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const issuer = await mesh.addIssuer();
    await mesh.link(issuer, gateway);
    const puppet = await mesh.puppet(gateway);
    await mesh.pass(500);
    expect(puppet.connection.isOpen).toBe(true);
    await abuse(puppet, mesh);
    await mesh.until(() => !puppet.connection.isOpen, 5_000);
    await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(1))]);
    await mesh.until(() => gateway.ledger.standing.key(keyNumber(1), mesh.issuer)?.revoked !== undefined, 2_000);
    expect(gateway.ledger.status()).toMatchObject({ blocks: 1, frozen: [] });
  });

  test('as a node that names more than nodes hold, is cut off before that takes up memory', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const puppet = await mesh.puppet(gateway, 'node');
    puppet.send(...namesOf(64));
    await mesh.pass(1_000);
    expect(puppet.connection.isOpen).toBe(true);
    const [more] = namesOf(1);
    puppet.send({ ...(more ?? nothing), isStart: false });
    await mesh.until(() => !puppet.connection.isOpen, 1_000);
  });

  test('of the right form but with any content whatever, breaks nothing', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.addIssuer();
    for (const frames of fc.sample(fc.array(ledgerFrames, { minLength: 1, maxLength: 8 }), 60)) {
      const puppet = await mesh.puppet(gateway);
      puppet.send(...frames);
      await mesh.pass(50);
      await puppet.connection.close();
    }
    await mesh.append(gateway, 'issuer', [revocationOf(keyNumber(1))]);
    expect(gateway.ledger.status()).toMatchObject({ blocks: 1, frozen: [] });
  });
});

describe('what was told', () => {
  test('is told anew to a peer that has counted otherwise', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.addIssuer();
    await mesh.append(gateway, 'issuer', [revocationOf(keyNumber(1))]);
    const puppet = await mesh.puppet(gateway);
    await mesh.until(() => puppet.last('have')?.isWhole === true);
    await mesh.append(gateway, 'issuer', [revocationOf(keyNumber(2))]);
    await mesh.until(() => puppet.last('have')?.changes.length === 1);
    puppet.send({ type: 'again' });
    await mesh.until(() => puppet.last('have')?.isStart === true);
    expect(puppet.last('have')).toMatchObject({
      isWhole: true,
      news: [{ author: mesh.issuer, count: 2 }],
      changes: [],
    });
  });

  test('and is not what was counted is asked for anew; until then nothing of it counts', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const puppet = await mesh.puppet(gateway);
    const blocks = stolen(mesh, 2, 0, gateway);
    puppet.send(nothing, { type: 'tally', epochs: 1, blocks: 3 });
    await mesh.until(() => puppet.last('again') !== undefined);
    puppet.send({ ...have(blocks), isStart: false }, { type: 'tally', epochs: 9, blocks: 9 });
    await mesh.pass(1_000);
    expect(puppet.got.filter(({ type }) => type === 'want' || type === 'again')).toHaveLength(1);
    puppet.send(have(blocks));
    await mesh.until(() => puppet.last('want') !== undefined);
    puppet.send(
      { type: 'blocks', isLast: true, blocks: blocks.map(wireBlock) },
      { type: 'tally', epochs: 1, blocks: 3 },
    );
    await mesh.until(() => gateway.ledger.status().blocks === 3);
    expect([puppet.connection.isOpen, puppet.got.filter(({ type }) => type === 'again').length]).toEqual([true, 1]);
  });

  test('a peer that has gone silent is let go', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const other = await mesh.add('gateway');
    const puppet = await mesh.puppet(gateway);
    const live = await mesh.link(other, gateway);
    await mesh.pass(300_000);
    expect([puppet.connection.isOpen, live.isOpen]).toEqual([false, true]);
  });
});

describe('a peer that answers with next to nothing', () => {
  const drips = {
    'parts without a block': [{ type: 'open', isLast: false, blocks: [] }],
    'an empty answer each time, and the next claim': [{ type: 'open', isLast: true, blocks: [] }],
    'nothing at all': [],
  } as const satisfies Record<string, readonly LedgerFrame[]>;

  test.for(Object.entries(drips))('holds nothing back that others have: %s', async ([name, frames], { expect }) => {
    await using mesh = await LedgerMesh.create();
    const issuer = await mesh.addIssuer();
    const node = await mesh.add('node');
    await mesh.link(node, issuer);
    await mesh.append(issuer, 'issuer', [banOf(issuer.peer)]);
    await mesh.until(() => node.ledger.status().blocks === 1);
    const puppet = await mesh.puppet(node);
    await mesh.until(() => puppet.last('have')?.news.length === 1);
    const claim = { count: 1_000, hash: new Uint8Array(16) };
    puppet.send({ ...nothing, news: (puppet.last('have')?.news ?? []).map((epoch) => ({ ...epoch, ...claim })) });
    await mesh.until(() => puppet.last('want') !== undefined);
    await mesh.append(issuer, 'issuer', [banOf(puppet.site.peer)]);
    for (let second = 0; second < 30 && !node.ledger.standing.isBanned(puppet.site.peer); second += 1) {
      if (second % 10 === 9) {
        puppet.send(...frames);
        const next = { index: 0, count: 1_001 + second, hash: claim.hash };
        if (name.startsWith('an empty')) puppet.send({ ...nothing, isStart: false, changes: [next] });
      }
      await mesh.pass(1_000);
    }
    expect(node.ledger.standing.isBanned(puppet.site.peer)).toBe(true);
  });

  test('block by block, each of them late, does not keep its place', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const [slow, prompt] = [await mesh.puppet(gateway), await mesh.puppet(gateway)];
    const blocks = stolen(mesh, 40, 0, gateway);
    slow.send(have(blocks));
    await mesh.until(() => slow.last('want') !== undefined);
    prompt.send(have(blocks));
    await mesh.pass(10_000);
    slow.send({ type: 'blocks', isLast: true, blocks: blocks.slice(0, 1).map(wireBlock) });
    await mesh.until(() => prompt.last('want') !== undefined, 2_000);
    const from = prompt.last('want')?.from ?? 0;
    prompt.send({ type: 'blocks', isLast: true, blocks: blocks.slice(from).map(wireBlock) });
    await mesh.until(() => gateway.ledger.status().blocks === blocks.length, 2_000);
    expect(slow.connection.isOpen).toBe(true);
  });
});

describe('a peer that does not answer', () => {
  test('is asked no more, and another one is', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const issuer = await mesh.addIssuer();
    for (let number = 0; number < 5; number += 1) {
      await mesh.append(issuer, 'issuer', [revocationOf(keyNumber(number))]);
    }
    const silent = await mesh.puppet(gateway);
    const loud = await mesh.puppet(issuer);
    await mesh.until(() => loud.last('have')?.news.length === 1);
    silent.send({ ...(loud.last('have') as Have), isStart: true });
    await mesh.until(() => silent.last('want') !== undefined);
    await mesh.link(gateway, issuer);
    await mesh.until(() => gateway.ledger.status().blocks === 5);
    expect(silent.connection.isOpen).toBe(true);
  });

  test('is not believed again when it does not have what it named', async ({ expect }) => {
    await using mesh = await LedgerMesh.create();
    const gateway = await mesh.add('gateway');
    const liar = await mesh.puppet(gateway);
    liar.send(have(stolen(mesh, 5, 5, gateway)));
    await mesh.until(() => liar.last('want') !== undefined);
    liar.send({ type: 'blocks', isLast: true, blocks: [] });
    await mesh.pass(10_000);
    expect(liar.got.filter(({ type }) => type === 'want')).toHaveLength(1);
  });
});
