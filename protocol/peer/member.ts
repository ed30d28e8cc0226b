/** A member of a mesh, whatever its role: hello on every connection, sessions with the other role, discovery. */

import { toHex } from '../crypto.ts';
import type { ErrorCode, HelixFlowError } from '../errors.ts';
import type { Credentials, Membership, Role } from '../grants.ts';
import type { MeshId, PeerId, ProcessId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { AdvertModel } from '../messages/advert.ts';
import type { SharedLimits } from '../messages/hello.ts';
import type {
  Cancel,
  Clock,
  Connection,
  Contact,
  Directory,
  Log,
  Network,
  Random,
  SigningKey,
  Store,
  Tokens,
} from '../ports.ts';
import { createSessions, type Sessions, type SessionsEvents } from '../session/sessions.ts';
import { ms } from '../units.ts';
import { createAdvertiser } from './advertise.ts';
import { createPeerBook } from './book.ts';
import { createDiscovery, type Discovery } from './discovery.ts';
import { createHello, type Hello, type PeerInfo } from './hello.ts';
import type { Roots } from './roots.ts';

export interface MemberPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly network: Network;
  readonly directory: Directory;
  readonly store: Store;
  readonly tokens: Tokens;
  readonly log: Log;
}

export interface MemberOptions {
  readonly role: Role;
  readonly meshId: MeshId;
  /** This peer's identity: signs its adverts. */
  readonly key: SigningKey;
  /** What this peer shows in its hello; read at each, so that a renewal takes effect. Undefined until it is a member. */
  readonly credentials: () => Credentials | undefined;
  /** Gateways to dial first. */
  readonly bootstrap: readonly Contact[];
  /** What the root has said; hellos carry it, and whoever it disowns loses its connections. */
  readonly roots?: Roots;
  /** A gate beyond signatures and roots: false refuses the member. `review` when its answer may have changed. */
  readonly isMember?: (membership: Membership) => boolean;
  /** What the advert names. */
  readonly models: () => readonly AdvertModel[];
}

/** A peer of the mesh: hello, sessions and discovery on one network. */
export interface Member {
  /** This run of this process. */
  readonly process: ProcessId;
  readonly sessions: Sessions;
  readonly discovery: Discovery;
  readonly hello: Hello;
  /** Every admitted connection with what its hello told. */
  admitted(): readonly (readonly [Connection, PeerInfo])[];
  /** Calls `listener` with each hello that ended: undefined when it admitted, else as `HelloEvents.refused`. */
  onHello(listener: (connection: Connection, refused: HelixFlowError | undefined) => void): Cancel;
  /**
   * Closes the connections of those that are members no more, and with them their sessions.
   * @param banned One that may not be connected: it is forgotten all the same.
   */
  review(banned?: PeerId): void;
  /**
   * Listens, then joins, then looks for others. `join` makes this peer a member; needed when it is none yet.
   * @throws HelixFlowError PORT_IN_USE, and what `join` throws.
   */
  start(join?: () => Promise<void>): Promise<void>;
  /**
   * Says goodbye on every session and waits until all that was said there has left, at most `limits.sessionSettleMs`:
   * an answer whose last frames are still queued is not finished.
   */
  leave(code: ErrorCode): Promise<void>;
  close(): Promise<void>;
}

/** What a member's owner hears of its connections and sessions. */
export interface MemberEvents extends Omit<SessionsEvents, 'gateways'> {
  /** A member is connected, in either direction; comes once per connection. */
  admitted?(connection: Connection, info: PeerInfo): void;
  /** As `HelloEvents.refused`. */
  refused?(connection: Connection, error: HelixFlowError): void;
}

/** Wires a member over `ports`; nothing is sent before `start`. */
export function createMember(ports: MemberPorts, options: MemberOptions, events: MemberEvents): Member {
  const { network, random } = ports;
  const process = toHex(random.fork('process').bytes(16)) as ProcessId;
  const admitted = new Set<Connection>();
  const listeners = new Set<Parameters<Member['onHello']>[0]>();
  const agreed = (connection: Connection): SharedLimits | undefined => {
    const info = hello.infoOf(connection);
    return info?.membership.role === options.role ? undefined : info?.limits;
  };
  const infos = (): (readonly [Connection, PeerInfo])[] =>
    [...admitted].flatMap((connection) => {
      const info = hello.infoOf(connection);
      return info === undefined ? [] : [[connection, info] as const];
    });
  const otherGateways = (): readonly Contact[] => {
    const known = new Map<PeerId, Contact>();
    for (const [{ peer }, { membership, addresses }] of infos()) {
      if (membership.role === 'gateway' && addresses.length > 0) known.set(peer, { peer, addresses });
    }
    return [...known.values()].slice(0, limits.sessionsPerNodeMax);
  };
  /** Nodes that can only dial out learn of a new gateway from those they have, without waiting for a search. */
  const tellOfGateways = (): void => {
    if (options.role !== 'gateway') return;
    const contacts = otherGateways();
    for (const session of sessions.all()) session.sendGateways(contacts);
  };
  const sessions = createSessions(
    ports,
    { role: options.role, process, agreed },
    {
      ...events,
      ready: (session) => {
        events.ready(session);
        if (options.role === 'gateway') session.sendGateways(otherGateways());
      },
      gateways: (_, contacts) => discovery.heard(contacts),
      gone: (session) => {
        events.gone(session);
        discovery.lost(session.peer);
      },
    },
  );
  const discovery: Discovery = createDiscovery(
    {
      ...ports,
      sessions,
      book: createPeerBook(ports),
      random: random.fork('discovery'),
      advertiser: createAdvertiser(ports, options),
    },
    options,
  );
  const hello: Hello = createHello(
    ports,
    { ...options, process },
    {
      admitted: (connection, info) => {
        admitted.add(connection);
        connection.onClose(() => admitted.delete(connection));
        events.admitted?.(connection, info);
        discovery.admitted(connection, info.membership.role, info.addresses);
        if (info.membership.role === 'gateway') tellOfGateways();
        for (const listener of listeners) listener(connection, undefined);
      },
      refused: (connection, error) => {
        events.refused?.(connection, error);
        for (const listener of listeners) listener(connection, error);
      },
    },
  );
  const review = (banned?: PeerId): void => {
    for (const peer of new Set([...hello.review(), ...(banned === undefined ? [] : [banned])])) {
      discovery.forget(peer);
      ports.directory.forget?.(peer);
    }
  };
  const forgetRoots = options.roots?.onChange(() => review());
  return {
    process,
    sessions,
    discovery,
    hello,
    admitted: infos,
    onHello: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    review,
    start: async (join) => {
      await network.start();
      await join?.();
      await discovery.start();
    },
    leave: async (code) => {
      discovery.stop();
      await Promise.race([sessions.leave(code), ports.clock.sleep(ms(limits.sessionSettleMs))]);
    },
    close: async () => {
      forgetRoots?.();
      discovery.stop();
      sessions.close();
      await network.close();
    },
  };
}
