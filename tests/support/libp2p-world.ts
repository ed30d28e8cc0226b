/** Real libp2p networks on loopback, each behind a proxy that can break what goes through it. */

import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { createLibp2pNetwork, type Libp2pNetwork, type Libp2pOptions } from '../../protocol/adapters/network-libp2p.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import type { MeshId } from '../../protocol/ids.ts';
import type { Log } from '../../protocol/ports.ts';

export const testMeshId = '5e'.repeat(32) as MeshId;

const silent = (): void => {};
export const silentLog: Log = { debug: silent, info: silent, warn: silent, error: silent, with: () => silentLog };

/** Resolves once `condition` holds; rejects after about ten seconds. */
export async function untilTrue(condition: () => boolean): Promise<void> {
  const clock = systemClock();
  const endMs = clock.nowMs() + 10_000;
  while (!condition()) {
    if (clock.nowMs() > endMs) throw new Error('the condition did not come to hold in time');
    await clock.turn();
  }
}

/** Passes bytes on to a port of this machine until told to break. */
export class CuttableProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #target = 0;
  #leftBytes = Number.POSITIVE_INFINITY;
  port = 0;

  constructor() {
    this.#server = createServer((inner) => this.#pass(inner));
  }

  async listen(target: number): Promise<void> {
    this.#target = target;
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    const address = this.#server.address();
    this.port = typeof address === 'object' && address !== null ? address.port : 0;
  }

  #pass(inner: Socket): void {
    const outer = tcpConnect(this.#target, '127.0.0.1');
    for (const [from, to] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      this.#sockets.add(from);
      from.on('data', (bytes) => {
        to.write(bytes.subarray(0, this.#leftBytes));
        this.#leftBytes -= bytes.length;
        if (this.#leftBytes < 0) this.#break();
      });
      from.on('end', () => to.end());
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  }

  /** Ends what is open once `bytes` more have passed in either direction, as a FIN. */
  cutAfter(bytes: number): void {
    this.#leftBytes = bytes;
  }

  #break(): void {
    this.#leftBytes = Number.POSITIVE_INFINITY;
    for (const socket of this.#sockets) socket.destroySoon();
  }

  /** Destroys what is open, as an RST: nothing says goodbye. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}

let seeds = 0;

/** 32 bytes that no other test of this process uses. */
export function nextSeed(): Uint8Array {
  seeds += 1;
  const seed = new Uint8Array(32);
  new DataView(seed.buffer).setUint32(0, seeds);
  new DataView(seed.buffer).setUint32(4, process.pid);
  return seed;
}

export const openNetwork = (options: Partial<Libp2pOptions> = {}): Promise<Libp2pNetwork> =>
  createLibp2pNetwork(
    { clock: systemClock(), random: systemRandom(), log: silentLog },
    {
      seed: nextSeed(),
      listen: { host: '127.0.0.1', port: 0 },
      announce: [],
      network: 'lan',
      meshId: testMeshId,
      ...options,
    },
  );

/** The port in the first of `addresses`. */
export const portIn = (addresses: readonly string[]): number => Number(addresses[0]?.split('/').at(-1));
