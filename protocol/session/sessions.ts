/** All sessions of one process: opens and accepts them, and keeps one per peer (design §4). */

import { type ErrorCode, HelixFlowError } from '../errors.ts';
import type { Role } from '../grants.ts';
import type { PeerId, ProcessId } from '../ids.ts';
import { limits } from '../limits.ts';
import { SESSION_PROTOCOL } from '../messages/session.ts';
import type { Channel, Clock, Connection, Log, Network } from '../ports.ts';
import { ms } from '../units.ts';
import { chooseSession } from './choose.ts';
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
}

export interface Sessions {
  /** The session to use with `peer`, if there is one. */
  get(peer: PeerId): Session | undefined;
  /** Every current session, oldest first. */
  all(): readonly Session[];
  /** True when a session with `peer` is current or being opened. */
  has(peer: PeerId): boolean;
  /**
   * Opens a session on an admitted connection; resolves when its channel is open, settled or not.
   * @throws HelixFlowError CHANNEL_CLOSED, DEADLINE_EXCEEDED
   */
  open(connection: Connection): Promise<void>;
  /** Says goodbye on every session; they end as their attempts do. */
  leave(code: ErrorCode): void;
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
  /** Whether a session with `connection`'s peer makes sense: the peer has the other role. */
  readonly accepts: (connection: Connection) => boolean;
}

/** Installs the session protocol on `deps.network`; call before its `start`. */
export function createSessions(deps: SessionsDeps, options: SessionsOptions, events: SessionsEvents): Sessions {
  const { network, clock, log } = deps;
  const current = new Map<PeerId, Session>();
  /** Every session that is not closed yet. */
  const living = new Map<PeerId, Set<Session>>();
  const opening = new Map<PeerId, number>();
  let serial = 0;

  const holds = (peer: PeerId): boolean => [...(living.get(peer) ?? [])].some((session) => !session.isStale);

  const everyLiving = (): Session[] => [...living.values()].flatMap((sessions) => [...sessions]);

  const drop = (session: Session): void => {
    if (current.get(session.peer) !== session) return;
    current.delete(session.peer);
    events.gone(session);
  };

  const settle = (session: Session): void => {
    const held = current.get(session.peer);
    const heldFacts = held?.facts;
    const facts = session.facts;
    if (facts === undefined) return;
    if (held !== undefined && heldFacts !== undefined && chooseSession(heldFacts, facts) === heldFacts) {
      session.leave('SESSION_REPLACED');
      return;
    }
    if (held !== undefined) {
      drop(held);
      if (heldFacts?.process === facts.process && !held.isStale) held.leave('SESSION_REPLACED');
      else held.abort(new HelixFlowError('SESSION_REPLACED', {}));
    }
    current.set(session.peer, session);
    log.info('session.ready', { peer: session.peer, ours: facts.isOurs });
    events.ready(session);
  };

  const closed = (session: Session, error: HelixFlowError | undefined): void => {
    const siblings = living.get(session.peer);
    siblings?.delete(session);
    if (siblings?.size === 0) living.delete(session.peer);
    drop(session);
    log.info('session.closed', { peer: session.peer, code: error?.code });
    const other = current.get(session.peer);
    if (other !== undefined && other.connection !== session.connection) void session.connection.close();
  };

  const add = (channel: Channel, isOurs: boolean): void => {
    serial += 1;
    const { peer } = channel.connection;
    const start = { serial, isAlone: !holds(peer) };
    const session: Session = new Session(
      channel,
      clock,
      { self: network.self, role: options.role, process: options.process, isOurs, start },
      {
        started: settle,
        opened: events.opened,
        changed: (changed) => {
          if (current.get(changed.peer) === changed) events.changed(changed);
        },
        offered: events.offered,
        left: drop,
        closed,
      },
    );
    const siblings = living.get(peer);
    if (siblings === undefined) living.set(peer, new Set([session]));
    else siblings.add(session);
  };

  network.handle(SESSION_PROTOCOL, { beforeAdmission: false, frameMaxBytes: limits.frameMaxBytes }, (channel) => {
    if (options.accepts(channel.connection)) add(channel, false);
    else channel.abort(new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a session with a peer of the same role' }));
  });

  const open = async (connection: Connection): Promise<void> => {
    const { peer } = connection;
    opening.set(peer, (opening.get(peer) ?? 0) + 1);
    using deadline = clock.deadline(ms(limits.helloTimeoutMs + limits.sessionSettleMs));
    try {
      add(await connection.open(SESSION_PROTOCOL, deadline.signal), true);
    } finally {
      const left = (opening.get(peer) ?? 1) - 1;
      if (left > 0) opening.set(peer, left);
      else opening.delete(peer);
    }
  };

  return {
    get: (peer) => current.get(peer),
    all: () => [...current.values()],
    has: (peer) => opening.has(peer) || holds(peer),
    open,
    leave: (code) => {
      for (const session of everyLiving()) session.leave(code);
    },
    close: () => {
      for (const session of everyLiving())
        session.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'shutting down' }));
    },
  };
}
