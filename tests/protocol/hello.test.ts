/** Who gets past the hello, and who does not. */

import { describe, test } from 'vitest';
import type { Credentials, Membership } from '../../protocol/grants.ts';
import { ourLimits, ourVersions } from '../../protocol/messages/hello.ts';
import { unixMs } from '../../protocol/units.ts';
import { alice, bert, forever, mesh, processId, Stage } from './hello-stage.ts';
import { until } from './memory-network.ts';
import { credentialsFor, newMesh, owner, peer, startMs } from './mesh-fixture.ts';

const theirMesh = await newMesh('theirs');

describe('two members', () => {
  test('admit each other, and each learns who the other is', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice, { features: ['zip', 'old'] });
    const theirs = await stage.member(bert, { process: processId('2'), features: ['zip', 'new'] });
    const connection = await ours.network.connect(bert, [], forever());
    await until(() => ours.admitted.length === 1 && theirs.admitted.length === 1);
    expect([connection.isAdmitted, connection.other.isAdmitted]).toEqual([true, true]);
    const info = ours.hello.infoOf(connection);
    expect(info).toBe(ours.admitted[0]?.[1]);
    expect(info).toEqual({
      membership: {
        meshId: mesh.mesh.meshId,
        issuer: expect.any(String),
        peer: bert,
        role: 'node',
        owner,
        expiresMs: startMs + 86_400_000,
      },
      process: processId('2'),
      version: ourVersions.max,
      features: new Set(['zip']),
      limits: ourLimits,
      addresses: [`/memory/${bert}`],
    });
    expect(theirs.hello.infoOf(connection.other)?.process).toBe(processId('1'));
  });

  test('who dial each other at once get two admitted connections', async ({ expect }) => {
    await using stage = new Stage();
    const [ours, theirs] = [await stage.member(alice), await stage.member(bert)];
    await Promise.all([
      ours.network.connect(bert, [], forever()),
      theirs.network.connect(alice, [], forever()),
      ours.network.connect(bert, [], forever()),
    ]);
    await until(() => ours.admitted.length === 3 && theirs.admitted.length === 3);
    expect([ours.refused, theirs.refused]).toEqual([[], []]);
  });

  test('know each other before anything else is answered', async ({ expect }) => {
    await using stage = new Stage();
    const [ours, theirs] = [await stage.member(alice), await stage.member(bert)];
    const known: unknown[] = [];
    theirs.network.handle('/other/1', { beforeAdmission: false, frameMaxBytes: 1 }, (channel) =>
      known.push(theirs.hello.infoOf(channel.connection)?.membership.peer),
    );
    const connection = await ours.network.connect(bert, [], forever());
    await connection.open('/other/1', forever());
    await until(() => known.length === 1);
    expect(known).toEqual([alice]);
  });

  test('are parted when the membership of one ends, and not before', async ({ expect }) => {
    await using stage = new Stage();
    const credentials = await credentialsFor(mesh, alice, { expiresMs: unixMs(startMs + 7_200_000) });
    const [ours, theirs] = [await stage.member(alice, { credentials: () => credentials }), await stage.member(bert)];
    const connection = await ours.network.connect(bert, [], forever());
    await until(() => ours.admitted.length === 1 && theirs.admitted.length === 1);
    await stage.clock.advance(7_199_000);
    expect(connection.isOpen).toBe(true);
    await stage.clock.advance(1_000);
    expect(connection.isOpen).toBe(false);
    expect(theirs.hello.infoOf(connection.other)).toBeUndefined();
  });
});

test('a membership that ends by a jump of the wall clock ends its connection within the hour', async ({ expect }) => {
  await using stage = new Stage();
  const [ours, theirs] = [await stage.member(alice), await stage.member(bert)];
  const connection = await ours.network.connect(bert, [], forever());
  await until(() => ours.admitted.length === 1 && theirs.admitted.length === 1);
  stage.clock.jumpMs = 86_400_000;
  await stage.clock.advance(3_600_000);
  expect(connection.isOpen).toBe(false);
});

describe('no member', () => {
  const refusals: Record<string, () => Promise<Credentials>> = {
    'of another mesh': () => credentialsFor(theirMesh, bert),
    'whose membership has expired': () => credentialsFor(mesh, bert, { expiresMs: startMs }),
    'with the membership of another peer': () => credentialsFor(mesh, peer('Carol')),
    'with the root of our mesh and a membership of its own making': async () => ({
      ...(await credentialsFor(theirMesh, bert)),
      rootPublicKey: mesh.mesh.rootPublicKey,
    }),
    'with garbage for tokens': async () => ({
      rootPublicKey: mesh.mesh.rootPublicKey,
      certificate: 'x',
      membership: '',
    }),
  };
  for (const [who, make] of Object.entries(refusals)) {
    test(`${who} is refused, is told why, and is gone`, async ({ expect }) => {
      await using stage = new Stage();
      const credentials = await make();
      const [ours, theirs] = [await stage.member(alice), await stage.member(bert, { credentials: () => credentials })];
      await theirs.network.connect(alice, [], forever());
      await until(() => stage.isEmpty);
      expect([ours.admitted, theirs.admitted]).toEqual([[], []]);
      expect([ours.refused, theirs.refused]).toEqual([['MEMBERSHIP_INVALID'], ['HELLO_REFUSED']]);
    });
  }

  test('whom the gate turns away gets in, whatever its signatures', async ({ expect }) => {
    await using stage = new Stage();
    const seen: Membership[] = [];
    const isMember = (membership: Membership): boolean => seen.push(membership) === 0;
    const [ours, theirs] = [await stage.member(alice, { isMember }), await stage.member(bert)];
    await theirs.network.connect(alice, [], forever());
    await until(() => stage.isEmpty);
    expect(seen.map((membership) => membership.peer)).toEqual([bert]);
    expect([ours.refused, theirs.refused]).toEqual([['MEMBERSHIP_INVALID'], ['HELLO_REFUSED']]);
  });

  test('gets in at a peer that is itself no member yet', async ({ expect }) => {
    await using stage = new Stage();
    const [ours, theirs] = [await stage.member(alice, { credentials: () => undefined }), await stage.member(bert)];
    await theirs.network.connect(alice, [], forever());
    await until(() => stage.isEmpty);
    expect([ours.admitted, theirs.admitted]).toEqual([[], []]);
  });

  test('gets in at another that is none', async ({ expect }) => {
    await using stage = new Stage();
    const none = { credentials: () => undefined };
    const [ours, theirs] = [await stage.member(alice, none), await stage.member(bert, none)];
    await theirs.network.connect(alice, [], forever());
    await until(() => stage.isEmpty);
    await stage.clock.turn();
    expect([ours.refused, theirs.refused, stage.clock.timers]).toEqual([['MEMBERSHIP_INVALID'], [], 0]);
  });

  test('gets in at a peer that runs no hello', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice);
    stage.hub.join(bert);
    await ours.network.connect(bert, [], forever());
    await until(() => stage.isEmpty);
    expect(ours.refused).toEqual(['CHANNEL_CLOSED']);
  });
});
