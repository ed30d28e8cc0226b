/** Connections that have not said who they are: bounded by where they come from. */

import type { MultiaddrConnection, Upgrader } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { test } from 'vitest';
import { boundPending } from '../../../protocol/adapters/libp2p/pending.ts';

/** Whatever comes stays unfinished until the test ends it. */
class Door {
  readonly aborted: string[] = [];
  readonly #ends = new Map<string, () => void>();
  readonly #upgrader: Upgrader;

  constructor(perOriginMax: number) {
    const upgradeInbound = (connection: MultiaddrConnection): Promise<void> =>
      new Promise<void>((resolve) => this.#ends.set(connection.remoteAddr.toString(), () => resolve()));
    this.#upgrader = boundPending({ upgradeInbound } as unknown as Upgrader, perOriginMax);
  }

  come(address: string): Promise<unknown> {
    const connection = { remoteAddr: multiaddr(address), abort: () => this.aborted.push(address) };
    return this.#upgrader.upgradeInbound(connection as unknown as MultiaddrConnection, {
      signal: new AbortController().signal,
    });
  }

  async finish(address: string, coming: Promise<unknown>): Promise<void> {
    this.#ends.get(address)?.();
    await coming;
  }
}

test('one address holds so many, and the oldest gives way', ({ expect }) => {
  const door = new Door(2);
  for (const port of [1, 2, 3]) void door.come(`/ip4/10.0.0.1/tcp/${port}`);
  void door.come('/ip4/10.0.0.2/tcp/1');
  expect(door.aborted).toEqual(['/ip4/10.0.0.1/tcp/1']);
});

test('all addresses of one IPv6 network count as one place', ({ expect }) => {
  const door = new Door(2);
  for (const host of [1, 2, 3]) void door.come(`/ip6/2001:db8:1:2::${host}/tcp/1`);
  for (const host of [1, 2]) void door.come(`/ip6/2001:db8:1:3::${host}/tcp/1`);
  expect(door.aborted).toEqual(['/ip6/2001:db8:1:2::1/tcp/1']);
});

test('IPv4 addresses that a socket for both shows as IPv6 stay places of their own', ({ expect }) => {
  const door = new Door(2);
  for (const host of [1, 2, 3]) void door.come(`/ip6/::ffff:10.0.0.${host}/tcp/1`);
  expect(door.aborted).toEqual([]);
});

test('what has finished is counted no more', async ({ expect }) => {
  const door = new Door(2);
  const [first, second] = ['/ip4/10.0.0.1/tcp/1', '/ip4/10.0.0.1/tcp/2'];
  const coming = door.come(first);
  void door.come(second);
  await door.finish(first, coming);
  void door.come('/ip4/10.0.0.1/tcp/3');
  expect(door.aborted).toEqual([]);
  void door.come('/ip4/10.0.0.1/tcp/4');
  expect(door.aborted).toEqual([second]);
});
