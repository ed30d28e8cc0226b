/** The conversation `/helixflow/lease/1`: questions to whoever keeps a budget, and answers for those kept here. */

import { HelixFlowError, isHelixFlowError, toHelixFlowError } from '../protocol/errors.ts';
import type { PeerId } from '../protocol/ids.ts';
import {
  encodeLeaseFrame,
  LEASE_PROTOCOL,
  type LeaseAnswer,
  type LeaseFrame,
  type LeaseQuestion,
  leaseFrameMaxBytes,
  parseLeaseFrame,
} from '../protocol/messages/lease.ts';
import type { PeerInfo } from '../protocol/peer/hello.ts';
import type { Channel, Clock, Connection, Log, Network } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import { Allowance } from './allowance.ts';

export interface LeaseWireDeps {
  readonly network: Network;
  readonly clock: Clock;
  readonly log: Log;
}

export interface LeaseWireEvents {
  /** Somebody asks; what this resolves to is the answer, undefined none. Must not reject but with a HelixFlowError. */
  asked(peer: PeerId, question: LeaseQuestion): Promise<LeaseAnswer | undefined>;
  /** An answer came, or something unasked; also those that nobody waits for any more. */
  told(peer: PeerId, answer: LeaseAnswer): void;
  /** A gateway was admitted: it can be asked. */
  reachable(peer: PeerId): void;
}

/** Channels of one process. */
export interface LeaseWire {
  /** A connection was admitted. */
  admitted(connection: Connection, info: PeerInfo): void;
  /**
   * Asks, on a channel that is opened where there is none.
   * @returns the channel it went out on, which says nothing about an answer; undefined where the peer cannot be reached.
   */
  ask(peer: PeerId, question: LeaseQuestion): Promise<Channel | undefined>;
  /** The channel on which this peer is asked, where there is one. */
  channelTo(peer: PeerId): Channel | undefined;
  /** Tells a peer something that it did not ask for; lost where it has no channel to here. */
  tell(peer: PeerId, answer: LeaseAnswer): void;
  isReachable(peer: PeerId): boolean;
  /** Gateways that are connected now. */
  gateways(): readonly PeerId[];
  close(): void;
}

const options = { beforeAdmission: false, frameMaxBytes: leaseFrameMaxBytes };
const openTimeoutMs = ms(5_000);
/** Questions of one peer that are being answered; more end the channel. */
const answeringMax = 256;
/** An ask costs a synced write at most. */
const asksPerSecond = 500;
const asksBurst = 2_000;

const violation = (reason: string): HelixFlowError => new HelixFlowError('PROTOCOL_VIOLATION', { reason });

const isQuestion = (frame: LeaseFrame): frame is LeaseQuestion =>
  frame.type === 'ask' || frame.type === 'report' || frame.type === 'shareAsk' || frame.type === 'keysAsk';

class Wire implements LeaseWire {
  readonly #deps: LeaseWireDeps;
  readonly #events: LeaseWireEvents;
  readonly #gateways = new Map<Connection, PeerInfo>();
  /** Of nodes. */
  readonly #strangers = new Set<Connection>();
  /** Opened by a peer whose admission we have not heard of yet. */
  readonly #early = new Map<Connection, Channel>();
  /** Channels on which this process asks, and those on which it answers. */
  readonly #asking = new Map<PeerId, Channel>();
  readonly #opening = new Map<PeerId, Promise<Channel | undefined>>();
  readonly #answering = new Map<PeerId, Channel>();
  readonly #stop = new AbortController();

  constructor(deps: LeaseWireDeps, events: LeaseWireEvents) {
    this.#deps = deps;
    this.#events = events;
    deps.network.handle(LEASE_PROTOCOL, options, (channel) => this.#accept(channel));
  }

  admitted(connection: Connection, info: PeerInfo): void {
    if (this.#stop.signal.aborted) return;
    const early = this.#early.get(connection);
    this.#early.delete(connection);
    if (info.membership.role !== 'gateway') {
      this.#strangers.add(connection);
      connection.onClose(() => this.#strangers.delete(connection));
      if (early !== undefined) this.#refuse(early);
      return;
    }
    this.#gateways.set(connection, info);
    connection.onClose(() => this.#gateways.delete(connection));
    if (early !== undefined) this.#accept(early);
    this.#events.reachable(connection.peer);
  }

  #refuse(channel: Channel): void {
    channel.abort(violation('leases are for gateways'));
    void channel.connection.close();
  }

  #accept(channel: Channel): void {
    const { connection } = channel;
    if (this.#gateways.has(connection)) {
      this.#serve(channel);
    } else if (this.#strangers.has(connection) || this.#early.has(connection) || this.#stop.signal.aborted) {
      this.#refuse(channel);
    } else {
      this.#early.set(connection, channel);
      connection.onClose(() => this.#early.delete(connection));
    }
  }

  #serve(channel: Channel): void {
    const { peer } = channel.connection;
    // A second one of the same peer is that of a newer connection or process: it counts.
    this.#answering.get(peer)?.end();
    this.#answering.set(peer, channel);
    const allowance = new Allowance(this.#deps.clock, { perSecond: asksPerSecond, burst: asksBurst });
    let answering = 0;
    const answer = async (question: LeaseQuestion): Promise<void> => {
      answering += 1;
      try {
        const said = await this.#events.asked(peer, question);
        if (said !== undefined && this.#answering.get(peer) === channel) channel.send(encodeLeaseFrame(said));
      } catch (error) {
        if (!isHelixFlowError(error)) throw error;
        this.#deps.log.debug('lease.unanswered', { peer, code: error.code });
      } finally {
        answering -= 1;
      }
    };
    this.#receive(channel, {
      frame: (frame) => {
        if (!isQuestion(frame)) throw violation('an answer to nothing');
        if (answering >= answeringMax || !allowance.take(1)) throw violation('too many questions');
        void answer(frame);
      },
      closed: () => {
        if (this.#answering.get(peer) === channel) this.#answering.delete(peer);
      },
    });
  }

  #receive(channel: Channel, on: { readonly frame: (frame: LeaseFrame) => void; readonly closed: () => void }): void {
    channel.receive({
      frame: (bytes) => {
        try {
          const frame = parseLeaseFrame(bytes);
          if (frame !== undefined) on.frame(frame);
        } catch (error) {
          const failure = toHelixFlowError(error, (cause) => {
            throw cause;
          });
          this.#deps.log.warn('lease.violation', { peer: channel.connection.peer, code: failure.code });
          channel.abort(failure);
          void channel.connection.close();
        }
      },
      closed: on.closed,
      drained: () => {},
    });
  }

  #connectionTo(peer: PeerId): Connection | undefined {
    return [...this.#gateways.keys()].findLast((connection) => connection.peer === peer && connection.isOpen);
  }

  isReachable(peer: PeerId): boolean {
    return this.#connectionTo(peer) !== undefined;
  }

  gateways(): readonly PeerId[] {
    return [...new Set([...this.#gateways.keys()].map(({ peer }) => peer))];
  }

  async ask(peer: PeerId, question: LeaseQuestion): Promise<Channel | undefined> {
    const channel = this.#asking.get(peer) ?? (await (this.#opening.get(peer) ?? this.#open(peer)));
    if (channel === undefined || !channel.connection.isOpen) return undefined;
    channel.send(encodeLeaseFrame(question));
    return channel;
  }

  channelTo(peer: PeerId): Channel | undefined {
    return this.#asking.get(peer);
  }

  #open(peer: PeerId): Promise<Channel | undefined> {
    const opening = this.#tryOpen(peer).finally(() => this.#opening.delete(peer));
    this.#opening.set(peer, opening);
    return opening;
  }

  async #tryOpen(peer: PeerId): Promise<Channel | undefined> {
    const connection = this.#connectionTo(peer);
    if (connection === undefined || this.#stop.signal.aborted) return undefined;
    try {
      using deadline = this.#deps.clock.deadline(openTimeoutMs, this.#stop.signal);
      const channel = await connection.open(LEASE_PROTOCOL, deadline.signal);
      this.#asking.set(peer, channel);
      this.#receive(channel, {
        frame: (frame) => {
          if (isQuestion(frame)) throw violation('a question where answers are due');
          this.#events.told(peer, frame);
        },
        closed: () => {
          if (this.#asking.get(peer) === channel) this.#asking.delete(peer);
        },
      });
      return channel;
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.debug('lease.unopened', { peer, code: error.code });
      return undefined;
    }
  }

  tell(peer: PeerId, answer: LeaseAnswer): void {
    this.#answering.get(peer)?.send(encodeLeaseFrame(answer));
  }

  close(): void {
    this.#stop.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'shutting down' }));
    for (const channel of this.#answering.values()) channel.end();
    for (const channel of this.#asking.values()) channel.end();
  }
}

/** Installs the protocol on `deps.network`; create it before the network's `start`. */
export const createLeaseWire = (deps: LeaseWireDeps, events: LeaseWireEvents): LeaseWire => new Wire(deps, events);
