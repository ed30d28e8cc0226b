/** All sessions of one process: opens and accepts them, and keeps one per peer (design §4). */

import { type ErrorCode, HelixFlowError } from '../errors.ts';
import type { Role } from '../grants.ts';
import type { PeerId, ProcessId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { SharedLimits } from '../messages/hello.ts';
import { SESSION_PROTOCOL } from '../messages/session.ts';
import type { TabFrame } from '../messages/tab.ts';
import type { Channel, Clock, Connection, Contact, Log, Network } from '../ports.ts';
import { type Ms, ms } from '../units.ts';
import { chooseSession } from './choose.ts';
import { watchIntervalMs } from './heartbeat.ts';
import type { ServedAttempt } from './incoming.ts';
import { Session } from './session.ts';

/** What the process hears of its sessions. `ready` and `gone` come once for each session that was ever current. */
export interface SessionsEvents {
  /** The session is the one to use with its peer. */
  ready(session: Session): void;
  /** The session takes no new attempts: it was replaced, said goodbye, or closed. */
  gone(session: Session): void;
  /** An offer, load or liveness of a current session changed (at a gateway). */
  changed(session: Session): void;
  /** A request came in (at a node), on a current session or on one that is leaving. */
  opened(session: Session, attempt: ServedAttempt): void;
  /** The gateway holds our offer (at a node). */
  offered(session: Session, revision: number): void;
  /** The gateway is connected with these others (at a node). */
  gateways(session: Session, contacts: readonly Contact[]): void;
  /** A frame of the tab with this peer, on a current session or on one that is leaving. */
  tab(session: Session, frame: TabFrame): void;
}

/** The sessions of one process, one to use per peer. */
export interface Sessions {
  /** The session to use with `peer`, if there is one. */
  get(peer: PeerId): Session | undefined;
  /** Every current session, oldest first. */
  all(): readonly Session[];
  /** True when a session with `peer` is current or being opened. */
  has(peer: PeerId): boolean;
  /** True while a session lives on `connection`, current or not. */
  livesOn(connection: Connection): boolean;
  /**
   * Opens a session on an admitted connection; resolves when its channel is open, settled or not.
   * @throws HelixFlowError CHANNEL_CLOSED, DEADLINE_EXCEEDED
   */
  open(connection: Connection): Promise<void>;
  /** Says goodbye on every session; resolves when all of them have ended, as their attempts do. */
  leave(code: ErrorCode): Promise<void>;
  /** Ends every session at once. */
  close(): void;
}

interface SessionsDeps {
  readonly network: Network;
  readonly clock: Clock;
  readonly log: Log;
}

interface SessionsOptions {
  readonly role: Role;
  readonly process: ProcessId;
  /** What the hello of `connection` agreed on; undefined when no session with its peer makes sense. */
  readonly agreed: (connection: Connection) => SharedLimits | undefined;
}

class KeptSessions implements Sessions {
  readonly #deps: SessionsDeps;
  readonly #options: SessionsOptions;
  readonly #events: SessionsEvents;
  readonly #current = new Map<PeerId, Session>();
  /** Every session that is not closed yet. */
  readonly #living = new Map<PeerId, Set<Session>>();
  readonly #opening = new Map<PeerId, number>();
  /** Called when no session is left. */
  #whenNone: (() => void)[] = [];
  #serial = 0;
  /** Nodes ask their gateways seldom: that keeps NAT bindings open, and requests come from there. */
  readonly #watching: { readonly idleMs?: () => Ms };

  constructor(deps: SessionsDeps, options: SessionsOptions, events: SessionsEvents) {
    this.#deps = deps;
    this.#options = options;
    this.#events = events;
    this.#watching = options.role === 'gateway' ? { idleMs: () => watchIntervalMs(this.#current.size) } : {};
    const handler = { beforeAdmission: false, frameMaxBytes: limits.frameMaxBytes };
    deps.network.handle(SESSION_PROTOCOL, handler, (channel) => this.#add(channel, false));
  }

  get(peer: PeerId): Session | undefined {
    return this.#current.get(peer);
  }

  all(): readonly Session[] {
    return [...this.#current.values()];
  }

  has(peer: PeerId): boolean {
    return this.#opening.has(peer) || this.#held(peer).length > 0;
  }

  livesOn(connection: Connection): boolean {
    return [...(this.#living.get(connection.peer) ?? [])].some((session) => session.connection === connection);
  }

  async open(connection: Connection): Promise<void> {
    const { peer } = connection;
    this.#opening.set(peer, (this.#opening.get(peer) ?? 0) + 1);
    using deadline = this.#deps.clock.deadline(ms(limits.helloTimeoutMs + limits.sessionSettleMs));
    try {
      this.#add(await connection.open(SESSION_PROTOCOL, deadline.signal), true);
    } finally {
      const left = (this.#opening.get(peer) ?? 1) - 1;
      if (left > 0) this.#opening.set(peer, left);
      else this.#opening.delete(peer);
    }
  }

  async leave(code: ErrorCode): Promise<void> {
    for (const session of this.#everyLiving()) session.leave(code);
    if (this.#living.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#whenNone.push(resolve);
    });
  }

  close(): void {
    const error = new HelixFlowError('CHANNEL_CLOSED', { reason: 'shutting down' });
    for (const session of this.#everyLiving()) session.abort(error);
  }

  #everyLiving(): Session[] {
    return [...this.#living.values()].flatMap((sessions) => [...sessions]);
  }

  /** Our serials on the sessions with `peer` that are worth keeping. */
  #held(peer: PeerId): number[] {
    const siblings = [...(this.#living.get(peer) ?? [])];
    return siblings.filter((session) => session.isStaying && !session.isStale).map((session) => session.serial);
  }

  #add(channel: Channel, isOurs: boolean): void {
    const agreed = this.#options.agreed(channel.connection);
    if (agreed === undefined) {
      channel.abort(new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a session with a peer of the same role' }));
      return;
    }
    const { peer } = channel.connection;
    this.#serial += 1;
    const { role, process } = this.#options;
    const start = { serial: this.#serial, holds: this.#held(peer) };
    const session = new Session(
      channel,
      this.#deps.clock,
      { self: this.#deps.network.self, role, process, isOurs, start, limits: agreed, ...this.#watching },
      {
        started: (started) => this.#settle(started),
        opened: this.#events.opened,
        changed: (changed) => {
          if (this.#current.get(changed.peer) === changed) this.#events.changed(changed);
        },
        offered: this.#events.offered,
        gateways: this.#events.gateways,
        tab: this.#events.tab,
        // What cut off one peer may have cut off others, which an idle session would show only much later.
        suspected: (silent) => this.#probeAllBut(silent),
        left: (left) => this.#drop(left),
        closed: (closed, error) => this.#closed(closed, error),
      },
    );
    const siblings = this.#living.get(peer);
    if (siblings === undefined) this.#living.set(peer, new Set([session]));
    else siblings.add(session);
  }

  /** The session has started: it becomes the current one, or makes room for the one that is. */
  #settle(session: Session): void {
    const older = this.#current.get(session.peer);
    const facts = session.facts;
    if (facts === undefined) return;
    if (older?.facts !== undefined) {
      if (chooseSession(older.facts, facts) !== facts) {
        session.leave('SESSION_REPLACED');
        return;
      }
      this.#drop(older);
      if (older.facts.process === facts.process && !older.isStale) older.leave('SESSION_REPLACED');
      else older.abort(new HelixFlowError('SESSION_REPLACED', {}));
    }
    this.#current.set(session.peer, session);
    this.#deps.log.info('session.ready', { peer: session.peer, ours: facts.isOurs });
    this.#events.ready(session);
  }

  #probeAllBut(silent: Session): void {
    for (const session of this.#current.values()) if (session !== silent) session.probe();
  }

  #drop(session: Session): void {
    if (this.#current.get(session.peer) !== session) return;
    this.#current.delete(session.peer);
    this.#events.gone(session);
  }

  #closed(session: Session, error: HelixFlowError | undefined): void {
    const siblings = this.#living.get(session.peer);
    siblings?.delete(session);
    if (siblings?.size === 0) this.#living.delete(session.peer);
    this.#drop(session);
    this.#deps.log.info('session.closed', { peer: session.peer, code: error?.code });
    if (this.#living.size === 0) for (const resolve of this.#whenNone.splice(0)) resolve();
    const other = this.#current.get(session.peer);
    if (other !== undefined && other.connection !== session.connection) void session.connection.close();
  }
}

/** Installs the session protocol on `deps.network`; call before its `start`. */
export const createSessions = (deps: SessionsDeps, options: SessionsOptions, events: SessionsEvents): Sessions =>
  new KeptSessions(deps, options, events);
