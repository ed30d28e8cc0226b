/** Two processes that may dial each other at any moment, over links delivered by hand. */

import type { PeerId, ProcessId } from '../../protocol/ids.ts';
import { ourLimits } from '../../protocol/messages/hello.ts';
import type { Channel, Connection, Log, Network } from '../../protocol/ports.ts';
import type { Session } from '../../protocol/session/session.ts';
import { createSessions, type Sessions } from '../../protocol/session/sessions.ts';
import { type ChannelEnd, channelPair } from './channels.ts';
import { ManualClock } from './manual-clock.ts';

export const quietLog: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {}, with: () => quietLog };

interface Link {
  readonly a: ChannelEnd;
  readonly b: ChannelEnd;
  readonly settle: () => void;
  readonly cut: () => void;
}

interface Side {
  readonly sessions: Sessions;
  readonly current: () => Session | undefined;
}

const ids = { gateway: 'aaaaaaaa' as PeerId, node: 'bbbbbbbb' as PeerId };

export class PairOfSessions {
  readonly clock = new ManualClock();
  readonly links: Link[] = [];
  readonly gateway: Side;
  readonly node: Side;
  readonly #accept = new Map<PeerId, (channel: Channel) => void>();

  constructor() {
    this.gateway = this.#side('gateway');
    this.node = this.#side('node');
  }

  /** `from` opens a session; its peer sees it at once, frames travel when delivered. */
  async dial(from: 'gateway' | 'node'): Promise<void> {
    const self = ids[from];
    const peer = ids[from === 'gateway' ? 'node' : 'gateway'];
    const link = channelPair(self, peer);
    this.links.push(link);
    const connection: Connection = { ...link.a.connection, open: () => Promise.resolve(link.a) };
    const opened = this[from].sessions.open(connection);
    this.#accept.get(peer)?.(link.b);
    await opened;
  }

  settle(): void {
    for (let moved = true; moved; ) {
      moved = false;
      for (const { a, b } of this.links) moved = a.deliver() + b.deliver() > 0 || moved;
    }
  }

  #side(role: 'gateway' | 'node'): Side {
    const peer = ids[role === 'gateway' ? 'node' : 'gateway'];
    const network = {
      self: ids[role],
      handle: (_protocol: string, _options: unknown, accept: (channel: Channel) => void) => {
        this.#accept.set(ids[role], accept);
      },
    } as unknown as Network;
    const process = (role === 'gateway' ? '0a' : '0b').repeat(16) as ProcessId;
    const sessions = createSessions(
      { network, clock: this.clock, log: quietLog },
      { role, process, agreed: () => ourLimits },
      {
        ready: () => {},
        gone: () => {},
        changed: () => {},
        opened: () => {},
        gateways: () => {},
        offered: () => {},
        tab: () => {},
      },
    );
    return { sessions, current: () => sessions.get(peer) };
  }
}
