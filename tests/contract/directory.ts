/** What every `Directory` keeps to: providers and adverts, among admitted peers only. */

import { describe, type ExpectStatic, test } from 'vitest';
import { keyFromSeed } from '../../protocol/crypto.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { MeshId, ModelDigest } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { encodeAdvert } from '../../protocol/messages/advert.ts';
import type { Contact, Directory, Network } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';

/** One peer of the world: a started network whose handlers are nobody's business here, and its directory. */
export interface DirectoryPeer {
  readonly network: Network;
  readonly directory: Directory;
  /** 32 bytes: the identity behind `network.self`. */
  readonly seed: Uint8Array;
}

/** A small world of peers with directories. */
export interface DirectoryWorld extends AsyncDisposable {
  readonly meshId: MeshId;
  /** The wall clock that the directories go by. */
  wallMs(): number;
  /** Another peer, started, connected to nobody. */
  peer(): Promise<DirectoryPeer>;
  /** Connects `a` to `b`; with `admitted`, both sides admit that connection. */
  link(a: DirectoryPeer, b: DirectoryPeer, admitted?: boolean): Promise<void>;
  /** Resolves as `work` does; a world with virtual time lets time pass meanwhile. */
  run<T>(work: Promise<T>): Promise<T>;
  /** Lets time pass until `condition` holds; rejects when it does not within about ten seconds. */
  until(condition: () => boolean): Promise<void>;
}

const never = new AbortController().signal;
const digest = 'ab'.repeat(32) as ModelDigest;

/** Everything that a lookup finds; or the code of the error it ended with. */
async function collect(at: DirectoryPeer, key: string): Promise<readonly Contact[] | string> {
  const found: Contact[] = [];
  try {
    for await (const contact of at.directory.find(key, never)) found.push(contact);
    return found;
  } catch (error) {
    return isHelixFlowError(error) ? error.code : `not typed: ${error}`;
  }
}

const lookup = (world: DirectoryWorld, at: DirectoryPeer, key: string): Promise<readonly Contact[] | string> =>
  world.run(collect(at, key));

const peersIn = (found: readonly Contact[] | string): readonly string[] | string =>
  typeof found === 'string' ? found : found.map(({ peer }) => peer).sort();

/** Looks `key` up again and again until `expected` peers are found. */
async function untilFound(
  world: DirectoryWorld,
  at: DirectoryPeer,
  key: string,
  expected: number,
): Promise<readonly Contact[]> {
  let found: readonly Contact[] | string = [];
  let isLooking = false;
  await world.until(() => {
    if (found.length === expected && typeof found !== 'string') return true;
    if (!isLooking) {
      isLooking = true;
      void collect(at, key).then((result) => {
        found = result;
        isLooking = false;
      });
    }
    return false;
  });
  return found;
}

interface AdvertChange {
  readonly sequence: number;
  readonly model?: string;
  readonly meshId?: MeshId;
  readonly issuedMs?: number;
}

/** An advert of `peer`, signed by it. */
function advertOf(world: DirectoryWorld, peer: DirectoryPeer, change: AdvertChange): Uint8Array {
  const issuedMs = change.issuedMs ?? world.wallMs();
  const advert = {
    meshId: change.meshId ?? world.meshId,
    peer: peer.network.self,
    role: 'node' as const,
    sequence: change.sequence,
    issuedMs: unixMs(issuedMs),
    expiresMs: unixMs(issuedMs + limits.advertTtlMs),
    addresses: peer.network.addresses(),
    models: [{ name: change.model ?? 'helix-tiny', digest }],
  };
  return encodeAdvert(advert, keyFromSeed(peer.seed));
}

async function codeOf(world: DirectoryWorld, work: Promise<unknown>): Promise<string> {
  try {
    await world.run(work);
    return 'did not fail';
  } catch (error) {
    return isHelixFlowError(error) ? error.code : `not typed: ${error}`;
  }
}

type Suite = (sentence: string, body: (world: DirectoryWorld, expect: ExpectStatic) => Promise<void>) => void;

/** Runs the suite. @param open Makes a world of its own for each test. */
export function directoryContract(name: string, open: () => Promise<DirectoryWorld>): void {
  const check: Suite = (sentence, body) => {
    test(sentence, { timeout: 60_000 }, async ({ expect }) => {
      await using world = await open();
      await body(world, expect);
    });
  };
  describe(`${name} keeps the contract of Directory: providers`, () => providerTests(check));
  describe(`${name} keeps the contract of Directory: adverts`, () => advertTests(check));
}

function providerTests(check: Suite): void {
  check('a provider is found with its addresses by a peer that has just connected', async (world, expect) => {
    const [a, b] = [await world.peer(), await world.peer()];
    a.directory.provide('a node');
    await world.link(b, a);
    const found = await untilFound(world, b, 'a node', 1);
    expect(found).toEqual([{ peer: a.network.self, addresses: a.network.addresses() }]);
    expect(await lookup(world, a, 'a node')).toEqual([]);
  });

  check('a provider is found through a third peer', async (world, expect) => {
    const [a, b, c] = [await world.peer(), await world.peer(), await world.peer()];
    await world.link(a, b);
    await world.link(c, b);
    a.directory.provide('model x');
    const found = await untilFound(world, c, 'model x', 1);
    expect(peersIn(found)).toEqual([a.network.self]);
  });

  check('several providers of a key are found, each once, and not the seeker', async (world, expect) => {
    const [a, b, c] = [await world.peer(), await world.peer(), await world.peer()];
    for (const peer of [a, b, c]) peer.directory.provide('a node');
    await world.link(a, b);
    await world.link(c, b);
    const found = await untilFound(world, c, 'a node', 2);
    expect(peersIn(found)).toEqual([a.network.self, b.network.self].sort());
  });

  check('a key that nobody provides is found nowhere', async (world, expect) => {
    const [a, b] = [await world.peer(), await world.peer()];
    await world.link(a, b);
    await world.until(() => a.directory.size() === 1);
    expect(await lookup(world, a, 'model y')).toEqual([]);
  });

  check('with nobody to ask a lookup says so', async (world, expect) => {
    const a = await world.peer();
    expect([a.directory.size(), await lookup(world, a, 'a node')]).toEqual([0, 'DIRECTORY_UNAVAILABLE']);
  });

  check('a peer that is not admitted has no place in the directory', async (world, expect) => {
    const [a, b] = [await world.peer(), await world.peer()];
    a.directory.provide('a node');
    await world.link(b, a, false);
    expect(await lookup(world, b, 'a node')).toBe('DIRECTORY_UNAVAILABLE');
    expect([a.directory.size(), b.directory.size()]).toEqual([0, 0]);
  });

  check('peers that are gone are asked no more', async (world, expect) => {
    const [a, b] = [await world.peer(), await world.peer()];
    await world.link(a, b);
    await world.until(() => a.directory.size() === 1 && b.directory.size() === 1);
    await world.run(b.network.close());
    await world.until(() => a.directory.size() === 0);
    expect(await lookup(world, a, 'a node')).toBe('DIRECTORY_UNAVAILABLE');
  });

  check('a lookup can be given up', async (world, expect) => {
    const [a, b] = [await world.peer(), await world.peer()];
    await world.link(a, b);
    const look = async () => {
      for await (const contact of a.directory.find('a node', AbortSignal.abort())) return contact;
      return 'nothing';
    };
    expect(await world.run(look())).toBe('nothing');
  });
}

function advertTests(check: Suite): void {
  check('an advert is found through a third peer, the newest one', async (world, expect) => {
    const [a, b, c] = [await world.peer(), await world.peer(), await world.peer()];
    await world.link(a, b);
    await world.link(c, b);
    await world.until(() => a.directory.size() > 0 && c.directory.size() > 0);
    const [first, second] = [advertOf(world, a, { sequence: 4 }), advertOf(world, a, { sequence: 9, model: 'other' })];
    await world.run(a.directory.putAdvert(first, never));
    expect(await world.run(c.directory.getAdvert(a.network.self, never))).toEqual(first);
    await world.run(a.directory.putAdvert(second, never));
    expect(await world.run(c.directory.getAdvert(a.network.self, never))).toEqual(second);
    expect(await world.run(b.directory.getAdvert(a.network.self, never))).toEqual(second);
    expect(await world.run(c.directory.getAdvert(a.network.self, never))).toEqual(second);
  });

  check('an older advert, and another one of the same number, are refused', async (world, expect) => {
    const [a, b] = [await world.peer(), await world.peer()];
    await world.link(a, b);
    await world.until(() => a.directory.size() > 0);
    const newest = advertOf(world, a, { sequence: 9 });
    await world.run(a.directory.putAdvert(newest, never));
    const put = (sequence: number) =>
      codeOf(world, a.directory.putAdvert(advertOf(world, a, { sequence, model: 'other' }), never));
    expect([await put(8), await put(9)]).toEqual(['ADVERT_INVALID', 'ADVERT_INVALID']);
    await world.run(a.directory.putAdvert(newest, never));
    expect(await world.run(b.directory.getAdvert(a.network.self, never))).toEqual(newest);
  });

  check('an advert that is garbage, of another mesh, or expired is refused', async (world, expect) => {
    const [a, b] = [await world.peer(), await world.peer()];
    await world.link(a, b);
    await world.until(() => a.directory.size() > 0);
    const adverts = [
      Uint8Array.of(1, 2, 3),
      advertOf(world, a, { sequence: 1, meshId: 'cd'.repeat(32) as MeshId }),
      advertOf(world, a, { sequence: 1, issuedMs: world.wallMs() - limits.advertTtlMs - 1 }),
      advertOf(world, b, { sequence: 1 }),
    ];
    for (const advert of adverts) {
      expect(await codeOf(world, a.directory.putAdvert(advert, never))).toBe('ADVERT_INVALID');
    }
    expect(await world.run(b.directory.getAdvert(a.network.self, never))).toBeUndefined();
  });

  check('an advert cannot be put where nobody takes it', async (world, expect) => {
    const a = await world.peer();
    const advert = advertOf(world, a, { sequence: 1 });
    expect(await codeOf(world, a.directory.putAdvert(advert, never))).toBe('DIRECTORY_UNAVAILABLE');
  });
}
