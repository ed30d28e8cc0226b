/** A peer that does not keep to the hello never gets past it, and never holds it up. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { encodeValue } from '../../protocol/codec.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import {
  encodeHelloFrame,
  HELLO_PROTOCOL,
  type HelloFrame,
  ourLimits,
  ourVersions,
} from '../../protocol/messages/hello.ts';
import { alice, bert, forever, goodHello, mesh, Stage } from './hello-stage.ts';
import { until } from './memory-network.ts';
import { credentialsFor, peer } from './mesh-fixture.ts';

describe('a peer that does not keep to the hello', () => {
  test('is closed after three seconds of silence on the connection', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice);
    const connection = await stage.hub.join(bert).connect(alice, [], forever());
    await stage.clock.advance(limits.helloTimeoutMs - 1);
    expect(connection.isOpen).toBe(true);
    await stage.clock.advance(1);
    expect(connection.isOpen).toBe(false);
    expect(ours.refused).toEqual(['HELLO_TIMEOUT']);
  });

  test('is closed after three seconds of silence in the hello, and after an accept that never comes', async ({
    expect,
  }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice);
    const silent = await stage.puppet(alice);
    await stage.clock.advance(limits.helloTimeoutMs);
    await until(() => silent.got.length === 1);
    expect(silent.got[0]).toMatchObject({ type: 'refuse', code: 'HELLO_TIMEOUT' });
    await stage.clock.advance(1_000);
    expect(silent.connection.isOpen).toBe(false);

    const half = await stage.puppet(alice);
    half.send(await goodHello());
    await until(() => half.got.length === 2);
    expect(half.got[1]).toEqual({ type: 'accept' });
    expect(half.connection.other.isAdmitted).toBe(false);
    await stage.clock.advance(limits.helloTimeoutMs + 1_000);
    expect(half.connection.isOpen).toBe(false);
    expect(ours.refused).toEqual(['HELLO_TIMEOUT', 'HELLO_TIMEOUT']);
    expect(ours.admitted).toEqual([]);
  });

  test('learns nothing of us before it has shown that it may', async ({ expect }) => {
    await using stage = new Stage();
    await stage.member(alice);
    const stranger = await stage.puppet(alice);
    await stage.clock.turn();
    expect(stranger.got).toEqual([]);
    stranger.send({ ...(await goodHello()), credentials: await credentialsFor(mesh, peer('Carol')) });
    await until(() => stranger.got.length === 1);
    expect(stranger.got).toEqual([{ type: 'refuse', code: 'MEMBERSHIP_INVALID', reason: 'it is for another peer' }]);
    await stage.clock.advance(1_000);
    expect(stranger.connection.isOpen).toBe(false);
  });

  test('is told that no version fits, on both sides alike', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice);
    const newer = await stage.puppet(alice);
    newer.send({ ...(await goodHello()), versions: { min: ourVersions.max + 1, max: 9 } });
    await until(() => newer.got.length === 1);
    expect(newer.got[0]).toMatchObject({ type: 'refuse', code: 'VERSION_UNSUPPORTED' });
    await stage.clock.advance(1_000);
    expect(newer.connection.isOpen).toBe(false);
    expect(ours.refused).toEqual(['VERSION_UNSUPPORTED']);
  });

  test('agrees with a newer peer on what both know', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice, { features: ['zip'] });
    const newer = await stage.puppet(alice);
    const hello = await goodHello();
    const offered = new Map([...hello.limits, ['frameMaxBytes', 4_096], ['creditInitialBytes', 2 ** 40], ['new', 7]]);
    newer.send({ ...hello, versions: { min: 1, max: ourVersions.max + 2 }, limits: offered, features: ['zip', 'zap'] });
    newer.send(encodeValue([9, 'a frame of a later version']), { type: 'accept' });
    await until(() => ours.admitted.length === 1);
    expect(ours.admitted[0]?.[1]).toMatchObject({
      version: ourVersions.max,
      features: new Set(['zip']),
      limits: { ...ourLimits, frameMaxBytes: 4_096 },
    });
  });

  test('is closed for each thing out of place', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice);
    const hello = await goodHello();
    const accept = { type: 'accept' } as const;
    const wrong: Record<string, (HelloFrame | Uint8Array)[]> = {
      'garbage first': [new Uint8Array([1, 2, 3])],
      'nothing in a frame': [new Uint8Array(0)],
      'an accept first': [accept],
      'a second hello': [hello, hello],
      'a second accept': [hello, accept, accept],
      'garbage after the hello': [hello, new Uint8Array([0xff])],
      'a flood of unknown frames': Array.from({ length: 9 }, () => encodeValue([9])),
      'too many addresses': [{ ...hello, addresses: ['1', '2', '3', '4', '5'] }],
      'a limit of nothing': [{ ...hello, limits: new Map([['frameMaxBytes', 0]]) }],
      'versions upside down': [{ ...hello, versions: { min: 2, max: 1 } }],
    };
    for (const [what, frames] of Object.entries(wrong)) {
      const rude = await stage.puppet(alice);
      rude.send(...frames);
      await until(() => ours.refused.length > 0);
      await stage.clock.advance(1_000);
      expect(rude.connection.isOpen, what).toBe(false);
      expect(ours.refused.splice(0), what).toEqual([expect.stringMatching(/^(FRAME_MALFORMED|PROTOCOL_VIOLATION)$/)]);
    }
    expect(ours.admitted).toEqual([]);
  });

  test('is closed for anything that it says after the hello', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice);
    for (const more of [await goodHello(), { type: 'accept' } as const, encodeValue([9]), new Uint8Array([0xff])]) {
      const rude = await stage.puppet(alice);
      rude.send(await goodHello(), { type: 'accept' });
      await until(() => ours.admitted.splice(0).length === 1);
      expect(rude.connection.isOpen).toBe(true);
      rude.send(more);
      await until(() => !rude.connection.isOpen);
    }
  });

  test('once refused, is let go as soon as it has read why', async ({ expect }) => {
    await using stage = new Stage();
    await stage.member(alice);
    const rude = await stage.puppet(alice);
    rude.send(new Uint8Array([1]));
    await until(() => rude.got.length === 1);
    expect(rude.connection.isOpen).toBe(true);
    rude.channel.end();
    await until(() => !rude.connection.isOpen);
  });

  test('is closed for a second hello channel, before and after admission', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice);
    const eager = await stage.puppet(alice);
    await eager.connection.open(HELLO_PROTOCOL, forever());
    await until(() => ours.refused.length === 1);
    await stage.clock.advance(1_000);
    expect(eager.connection.isOpen).toBe(false);

    const theirs = await stage.member(bert);
    const connection = await theirs.network.connect(alice, [], forever());
    await until(() => ours.admitted.length === 1 && theirs.admitted.length === 1);
    await connection.open(HELLO_PROTOCOL, forever());
    await until(() => !connection.isOpen);
    expect(ours.refused).toEqual(['PROTOCOL_VIOLATION']);
  });

  test('is closed when it opens a hello on a connection that we dialled', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice);
    const network = stage.hub.join(bert);
    network.handle(HELLO_PROTOCOL, { beforeAdmission: true, frameMaxBytes: 1 }, () => {});
    const connection = await ours.network.connect(bert, [], forever());
    await connection.other.open(HELLO_PROTOCOL, forever());
    await until(() => ours.refused.length === 1);
    await stage.clock.advance(1_000);
    expect(connection.isOpen).toBe(false);
  });

  test('is closed when it ends the hello early, at any step', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice);
    for (const frames of [[], [await goodHello()]]) {
      const hasty = await stage.puppet(alice);
      hasty.send(...frames);
      hasty.channel.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'enough' }));
      await until(() => ours.refused.length === 1);
      await stage.clock.advance(1_000);
      expect(hasty.connection.isOpen).toBe(false);
      expect(ours.refused.splice(0)).toEqual(['CHANNEL_CLOSED']);
    }
  });

  test('never gets in with any bytes whatever, at any step', async ({ expect }) => {
    await using stage = new Stage();
    const ours = await stage.member(alice);
    const hello = encodeHelloFrame(await goodHello());
    const changed = fc
      .tuple(fc.nat(hello.length - 1), fc.integer({ min: 1, max: 255 }))
      .map(([at, by]) => hello.map((byte, index) => (index === at ? byte ^ by : byte)));
    const frame = fc.oneof(fc.uint8Array({ maxLength: 200 }), changed);
    await fc.assert(
      fc.asyncProperty(fc.array(frame, { minLength: 1, maxLength: 4 }), async (frames) => {
        const rude = await stage.puppet(alice);
        rude.send(...frames);
        await until(() => rude.got.length > 0);
        await stage.clock.advance(limits.helloTimeoutMs + 1_000);
        expect(rude.connection.isOpen).toBe(false);
      }),
      { numRuns: 60 },
    );
    expect(ours.admitted).toEqual([]);
  });
});
