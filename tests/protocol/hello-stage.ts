/** A stage for the hello: members in one memory network, and a peer whose side of it the test speaks by hand. */

import type { HelixFlowError } from '../../protocol/errors.ts';
import type { Credentials } from '../../protocol/grants.ts';
import type { PeerId, ProcessId } from '../../protocol/ids.ts';
import {
  encodeHelloFrame,
  HELLO_PROTOCOL,
  type Hello as HelloFirst,
  type HelloFrame,
  ourLimits,
  ourVersions,
  parseHelloFrame,
} from '../../protocol/messages/hello.ts';
import { createHello, type Hello, type HelloOptions, type PeerInfo } from '../../protocol/peer/hello.ts';
import type { Channel, Connection } from '../../protocol/ports.ts';
import { type UnixMs, unixMs } from '../../protocol/units.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { Hub, type MemoryConnection, type MemoryNetwork, until } from './memory-network.ts';
import { credentialsFor, newMesh, peer, quietLog, tokens } from './mesh-fixture.ts';

export const mesh = await newMesh('ours');
export const alice = peer('Alice');
export const bert = peer('Bert');

export const processId = (digit: string): ProcessId => digit.repeat(32) as ProcessId;

/** Never aborts. */
export const forever = (): AbortSignal => new AbortController().signal;

/** A peer with a real hello, and what it heard. */
export interface Side {
  readonly network: MemoryNetwork;
  readonly hello: Hello;
  readonly admitted: [Connection, PeerInfo][];
  readonly refused: string[];
}

/** A peer that speaks the hello by hand. */
export interface Puppet {
  readonly connection: MemoryConnection;
  readonly channel: Channel;
  readonly got: (HelloFrame | undefined)[];
  send(...frames: readonly (HelloFrame | Uint8Array)[]): void;
}

/** A first frame to which nobody can object; it is Bert's. */
export const goodHello = async (): Promise<HelloFirst> => ({
  type: 'hello',
  versions: ourVersions,
  process: processId('2'),
  credentials: await credentialsFor(mesh, bert),
  features: [],
  limits: new Map(Object.entries(ourLimits)),
  addresses: [],
  roots: [],
});

/** A wall clock that can be set, as people and NTP do. */
class JumpingClock extends ManualClock {
  jumpMs = 0;
  override wallMs(): UnixMs {
    return unixMs(super.wallMs() + this.jumpMs);
  }
}

export class Stage implements AsyncDisposable {
  readonly clock: JumpingClock = new JumpingClock();
  readonly hub = new Hub();

  get isEmpty(): boolean {
    return [...this.hub.peers.values()].every((network) => network.open.size === 0);
  }

  async member(self: PeerId, options: Partial<HelloOptions> = {}): Promise<Side> {
    const network = this.hub.join(self);
    const credentials: Credentials = await credentialsFor(mesh, self);
    const admitted: Side['admitted'] = [];
    const refused: string[] = [];
    const hello = createHello(
      { network, clock: this.clock, tokens, log: quietLog },
      { meshId: mesh.mesh.meshId, process: processId('1'), credentials: () => credentials, ...options },
      {
        admitted: (connection, info) => admitted.push([connection, info]),
        refused: (_, error: HelixFlowError) => refused.push(error.code),
      },
    );
    return { network, hello, admitted, refused };
  }

  /** Dials `to` as Bert, and opens a hello. */
  async puppet(to: PeerId): Promise<Puppet> {
    const connection = await this.hub.join(bert).connect(to, [], forever());
    const channel = await connection.open(HELLO_PROTOCOL, forever());
    const got: Puppet['got'] = [];
    channel.receive({ frame: (bytes) => got.push(parseHelloFrame(bytes)), closed: () => {}, drained: () => {} });
    const send: Puppet['send'] = (...frames) => {
      for (const frame of frames) channel.send(frame instanceof Uint8Array ? frame : encodeHelloFrame(frame));
    };
    return { connection, channel, got, send };
  }

  /** Closes everything; no timer may be left then. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const network of this.hub.peers.values()) await network.close();
    await until(() => this.isEmpty);
    await this.clock.turn();
    if (this.clock.timers !== 0) throw new Error(`${this.clock.timers} timers are left`);
  }
}
