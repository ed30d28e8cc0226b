/** Replication over `/helixflow/ledger/1`: who is told what, and which exchanges there are (design §6). */

import { HelixFlowError, isHelixFlowError, toHelixFlowError } from '../protocol/errors.ts';
import type { Role } from '../protocol/grants.ts';
import type { AuthorId, MeshId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { type HeartbeatFrame, LEDGER_PROTOCOL } from '../protocol/messages/ledger.ts';
import type { PeerInfo } from '../protocol/peer/hello.ts';
import type { Roots, RootToken } from '../protocol/peer/roots.ts';
import type { Cancel, Channel, Clock, Connection, Log, Network, Random } from '../protocol/ports.ts';
import { ms, type UnixMs } from '../protocol/units.ts';
import type { Block, ForkProof, OpenBlock } from './block.ts';
import type { Feeds } from './feeds.ts';
import { Exchange, type ExchangeWorld } from './replicate-exchange.ts';
import { Outbox } from './replicate-outbox.ts';
import { Wants } from './replicate-wants.ts';
import { type EpochKey, keyOf, nameOf, wholeOf } from './replicate-wire.ts';

export interface ReplicationDeps {
  readonly network: Network;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly feeds: Feeds;
  readonly roots: Roots;
}

export interface ReplicationOptions {
  readonly role: Role;
  readonly meshId: MeshId;
  /** Authors whose keys this process holds. */
  readonly own: ReadonlySet<AuthorId>;
  /** True for authors whom the root has named: nodes are told of no others. */
  readonly isIssuer: (author: AuthorId) => boolean;
  /** True for authors of whom no new block is taken now: gateways that are banned. Tell `reconsider` when that changes. */
  readonly isMuted: (author: AuthorId) => boolean;
}

export interface ReplicationEvents {
  /** A heartbeat came; one that is `new` is passed on. */
  beat(frame: HeartbeatFrame): BeatOutcome;
  /** Somebody has told or given something, or is gone. */
  progressed(): void;
}

/** A heartbeat as it is passed on. */
export interface Beat {
  /** Its issuer's. */
  readonly author: AuthorId;
  readonly timeMs: UnixMs;
  readonly frame: HeartbeatFrame;
}

/** What became of a heartbeat that came. `ignored`: of no issuer that is known, or from the future. */
export type BeatOutcome =
  | { readonly kind: 'new' | 'known'; readonly beat: Beat }
  | { readonly kind: 'ignored' }
  | { readonly kind: 'invalid' };

/** All exchanges of one process. */
export interface Replication {
  /** A connection was admitted: the exchange begins on it. */
  admitted(connection: Connection, info: PeerInfo): void;
  /** A block is on disk. */
  added(block: Block | OpenBlock): void;
  forked(proof: ForkProof): void;
  /** The root has said something new. */
  said(token: RootToken): void;
  /** This process signed a heartbeat, or found it on disk. */
  beat(beat: Beat): void;
  /** Freezes were lifted, or issuers named: what was given up is asked for again. */
  reconsider(): void;
  /** Peers that have named all they hold, and those whose answer is still awaited. */
  answers(): { readonly whole: number; readonly awaited: number };
  /** True while somebody has told of blocks of this author that are not held here. */
  lacks(author: AuthorId): boolean;
  close(): void;
}

/** Exchanges with one peer: two that dialled each other, and some whose end nobody has noticed yet. Each takes up memory. */
const exchangesPerPeerMax = 4;
/** Peers that a new block is pushed to; the others are told of it, and ask. */
const pushesMax = 4;
/** What came from others is told on after this long, and up to three times it: most have heard by then. */
const lazyMs = 250;
/** How often an exchange says in two numbers what it has told, half to three halves of it. */
const tallyMs = 45_000;
/** Longer than the longest time between two tallies: whoever is silent for this long is gone. */
const silentMs = 180_000;
const openTimeoutMs = ms(10_000);
const reopenFirstMs = 1_000;
const reopenMaxMs = 60_000;

const options = { beforeAdmission: false, frameMaxBytes: limits.frameMaxBytes };

class Replicator implements Replication {
  readonly #deps: ReplicationDeps;
  readonly #options: ReplicationOptions;
  readonly #events: ReplicationEvents;
  readonly #wants: Wants;
  readonly #world: ExchangeWorld;
  readonly #infos = new Map<Connection, PeerInfo>();
  /** Opened by a peer whose admission we have not heard of yet. */
  readonly #early = new Map<Connection, Channel>();
  readonly #exchanges = new Map<Connection, Exchange>();
  readonly #beats = new Map<AuthorId, Beat>();
  readonly #stop = new AbortController();
  #isFlushing = false;
  #isFilling = false;

  constructor(deps: ReplicationDeps, replication: ReplicationOptions, events: ReplicationEvents) {
    this.#deps = deps;
    this.#options = replication;
    this.#events = events;
    const { feeds, clock, log } = deps;
    this.#wants = new Wants(feeds);
    this.#world = {
      feeds,
      clock,
      log,
      wants: this.#wants,
      role: replication.role,
      meshId: replication.meshId,
      said: async (token) => void (await deps.roots.take(token)),
      beat: (frame, from) => this.#heardBeat(frame, from),
      isWanted: (key, from) => {
        const { author } = nameOf(key);
        return (from.role === 'gateway' && !replication.isMuted(author)) || replication.own.has(author);
      },
      progressed: () => this.#progressed(),
      restart: ({ outbox }) => outbox.restart(feeds.heads().map(keyOf)),
    };
    deps.network.handle(LEDGER_PROTOCOL, options, (channel) => this.#accept(channel));
  }

  admitted(connection: Connection, info: PeerInfo): void {
    if (this.#stop.signal.aborted) return;
    this.#infos.set(connection, info);
    connection.onClose(() => {
      this.#infos.delete(connection);
      this.#early.delete(connection);
      this.#progressed();
    });
    const early = this.#early.get(connection);
    if (early !== undefined) {
      this.#early.delete(connection);
      this.#accept(early);
    } else if (connection.direction === 'outbound' && this.#exchangesWith(info)) {
      void this.#open(connection, info, reopenFirstMs);
    }
  }

  #exchangesWith({ membership }: PeerInfo): boolean {
    return this.#options.role === 'gateway' || membership.role === 'gateway';
  }

  #accept(channel: Channel): void {
    const { connection } = channel;
    const info = this.#infos.get(connection);
    const isOutOfPlace =
      connection.direction === 'outbound' ||
      this.#exchanges.has(connection) ||
      this.#early.has(connection) ||
      (info !== undefined && !this.#exchangesWith(info));
    if (isOutOfPlace) {
      channel.abort(new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'an exchange out of place' }));
      void connection.close();
    } else if (info === undefined) this.#early.set(connection, channel);
    else this.#begin(channel, info);
  }

  async #open(connection: Connection, info: PeerInfo, retryMs: number): Promise<void> {
    const { clock, random, log } = this.#deps;
    try {
      using deadline = clock.deadline(openTimeoutMs, this.#stop.signal);
      this.#begin(await connection.open(LEDGER_PROTOCOL, deadline.signal), info);
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      log.debug('ledger.unopened', { peer: connection.peer, code: error.code });
      this.#reopen(connection, info, retryMs * (0.5 + random.float()));
    }
  }

  #reopen(connection: Connection, info: PeerInfo, delayMs: number): void {
    if (!connection.isOpen || this.#stop.signal.aborted) return;
    this.#deps.clock.timer(ms(delayMs), () => {
      const isIdle = connection.isOpen && !this.#exchanges.has(connection) && !this.#stop.signal.aborted;
      if (isIdle) void this.#open(connection, info, Math.min(2 * delayMs, reopenMaxMs));
    });
  }

  #begin(channel: Channel, info: PeerInfo): void {
    const { connection } = channel;
    const exchange = new Exchange(channel, info.membership.role, (made) => this.#outboxOf(made), this.#world);
    this.#exchanges.set(connection, exchange);
    this.#makeRoom(connection);
    const cancelTally = this.#tallyAfter(exchange);
    channel.receive({
      frame: (bytes) => {
        try {
          exchange.frame(bytes);
        } catch (error) {
          exchange.fail(
            toHelixFlowError(error, (cause) => {
              throw cause;
            }),
          );
        }
      },
      closed: () => {
        cancelTally();
        this.#exchanges.delete(connection);
        exchange.over();
        if (connection.direction === 'outbound') this.#reopen(connection, info, reopenFirstMs);
      },
      drained: () => exchange.outbox.drained(),
    });
    this.#greet(exchange);
  }

  #makeRoom({ peer }: Connection): void {
    const known = [...this.#exchanges.keys()].filter((connection) => connection.peer === peer);
    for (const oldest of known.slice(0, -exchangesPerPeerMax)) void oldest.close();
  }

  #outboxOf(exchange: Exchange): Outbox {
    const { role } = exchange;
    return new Outbox(exchange.channel, this.#deps, {
      to: role,
      shows: (author) => role === 'gateway' || this.#options.isIssuer(author),
      has: (key) => exchange.heard.countOf(key),
    });
  }

  /** Everything that the peer may not know yet. */
  #greet(exchange: Exchange): void {
    const { outbox } = exchange;
    const { roots, feeds } = this.#deps;
    outbox.tokens(roots.tokens());
    outbox.proofs(feeds.proofs());
    outbox.restart(feeds.heads().map(keyOf));
    this.#tellBeats(exchange);
  }

  #tallyAfter(exchange: Exchange): Cancel {
    const { clock, random, log } = this.#deps;
    let cancel: Cancel = () => {};
    const again = (): void => {
      cancel = clock.timer(ms(tallyMs * (0.5 + random.float())), () => {
        if (clock.nowMs() - exchange.heardMs > silentMs) {
          log.info('ledger.silent', { peer: exchange.channel.connection.peer });
          void exchange.channel.connection.close();
          return;
        }
        exchange.outbox.tally();
        again();
      });
    };
    again();
    return () => cancel();
  }

  #heardBeat(frame: HeartbeatFrame, from: Exchange): boolean {
    const outcome = this.#events.beat(frame);
    if (outcome.kind === 'invalid' || outcome.kind === 'ignored') return outcome.kind === 'ignored';
    const { author, timeMs } = outcome.beat;
    from.beats.set(author, Math.max(from.beats.get(author) ?? 0, timeMs));
    if (outcome.kind === 'new') {
      this.#beats.set(author, outcome.beat);
      this.#flushSoon();
    }
    return true;
  }

  beat(beat: Beat): void {
    this.#beats.set(beat.author, beat);
    for (const exchange of this.#exchanges.values()) this.#tellBeats(exchange);
  }

  #tellBeats({ beats, outbox }: Exchange): void {
    for (const { author, timeMs, frame } of this.#beats.values()) {
      if ((beats.get(author) ?? 0) >= timeMs) continue;
      beats.set(author, timeMs);
      outbox.beat(author, frame);
    }
  }

  added(block: Block | OpenBlock): void {
    const { author, epoch, number } = block.head.header;
    const key = keyOf({ author, epoch });
    for (const { outbox } of this.#exchanges.values()) outbox.grown([key]);
    const whole = wholeOf(block);
    if (this.#options.role === 'gateway' && whole !== undefined) this.#push(whole, key, number);
    if (this.#options.own.has(author)) this.#flush();
    else this.#flushSoon();
  }

  /** To a few peers that hold what is before it, drawn anew for each block: those are told by others, too. */
  #push(block: Block, key: EpochKey, number: number): void {
    const lacking = [...this.#exchanges.values()].filter(
      ({ role, heard, pushed, outbox }) =>
        role === 'gateway' && outbox.isWritable && Math.max(heard.countOf(key), pushed.get(key) ?? 0) === number,
    );
    for (let left = pushesMax; left > 0 && lacking.length > 0; left -= 1) {
      const [exchange] = lacking.splice(this.#deps.random.int(lacking.length), 1);
      if (exchange?.outbox.push(block)) exchange.pushed.set(key, number + 1);
    }
  }

  #flush(): void {
    for (const { outbox } of this.#exchanges.values()) outbox.flush();
  }

  #flushSoon(): void {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    this.#deps.clock.timer(ms(lazyMs * (1 + 2 * this.#deps.random.float())), () => {
      this.#isFlushing = false;
      this.#flush();
      for (const exchange of this.#exchanges.values()) this.#tellBeats(exchange);
    });
  }

  forked(proof: ForkProof): void {
    for (const { outbox } of this.#exchanges.values()) outbox.proofs([proof]);
  }

  said(token: RootToken): void {
    for (const { outbox, role } of this.#exchanges.values()) {
      outbox.tokens([token]);
      // Nodes are told of the feeds of those whom the root has just named.
      if (role === 'node') outbox.grown(this.#deps.feeds.heads().map(keyOf));
    }
    this.#flushSoon();
  }

  reconsider(): void {
    for (const exchange of this.#exchanges.values()) exchange.reconsider();
  }

  #progressed(): void {
    if (this.#isFilling) return;
    this.#isFilling = true;
    void this.#deps.clock.turn().then(() => {
      this.#isFilling = false;
      for (const exchange of this.#exchanges.values()) this.#wants.fill(exchange);
      this.#events.progressed();
    });
  }

  answers(): { readonly whole: number; readonly awaited: number } {
    const peers = [...this.#infos].filter(([, info]) => this.#exchangesWith(info));
    const whole = peers.filter(([connection]) => this.#exchanges.get(connection)?.heard.isWhole === true).length;
    return { whole, awaited: peers.length - whole };
  }

  lacks(author: AuthorId): boolean {
    return [...this.#exchanges.values()].some(({ todo, heard }) =>
      [...todo].some((key) => nameOf(key).author === author && heard.countOf(key) > this.#wants.held(key)),
    );
  }

  close(): void {
    this.#stop.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'shutting down' }));
    for (const { channel } of this.#exchanges.values()) channel.end();
  }
}

/** Installs the protocol on `deps.network`; create it before the network's `start`. */
export const createReplication = (
  deps: ReplicationDeps,
  replication: ReplicationOptions,
  events: ReplicationEvents,
): Replication => new Replicator(deps, replication, events);
