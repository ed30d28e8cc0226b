/** The hello on every connection: who is there, is it a member, and what do both sides agree on (design §4). */

import { type ErrorCode, errorText, HelixFlowError, toHelixFlowError } from '../errors.ts';
import type { Credentials, Membership } from '../grants.ts';
import type { MeshId, PeerId, ProcessId } from '../ids.ts';
import { limits } from '../limits.ts';
import {
  addRoots,
  encodeHelloFrame,
  HELLO_PROTOCOL,
  type Hello as HelloFrame,
  ourLimits,
  ourVersions,
  parseHelloFrame,
  type SharedLimits,
  sharedLimits,
} from '../messages/hello.ts';
import type { Cancel, Channel, Clock, Connection, Log, Network, Tokens } from '../ports.ts';
import { ms } from '../units.ts';
import { judgeHello, objectionTo } from './judge.ts';
import type { Roots } from './roots.ts';

/** What the hello of an admitted connection told. */
export interface PeerInfo {
  readonly membership: Membership;
  readonly process: ProcessId;
  /** The newest version that both sides speak. */
  readonly version: number;
  /** Features that both sides have. */
  readonly features: ReadonlySet<string>;
  /** What both sides keep to. */
  readonly limits: SharedLimits;
  /** Where the peer believes that it can be dialled. */
  readonly addresses: readonly string[];
}

export interface HelloDeps {
  readonly network: Network;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly log: Log;
}

export interface HelloOptions {
  readonly meshId: MeshId;
  /** Random, of this run of this process. */
  readonly process: ProcessId;
  /** What to show, read at each hello; undefined while this peer is no member: then it only dials, to be admitted. */
  readonly credentials: () => Credentials | undefined;
  /** What the root has said; hellos carry it both ways. Those whose issuer it took back are no members. */
  readonly roots?: Pick<Roots, 'take' | 'tokens' | 'isRevoked'>;
  /** A gate beyond the signatures: false refuses the member. Asked at each hello, and by `review`. */
  readonly isMember?: (membership: Membership) => boolean;
  readonly features?: readonly string[];
}

export interface HelloEvents {
  /** Each side has accepted the other; the connection is admitted. Comes once per connection at most. */
  admitted(connection: Connection, info: PeerInfo): void;
  /**
   * No hello came about and the connection closes: HELLO_REFUSED when the other side refused, caused by
   * MEMBERSHIP_INVALID when it said so of our membership; else our own reason.
   */
  refused?(connection: Connection, error: HelixFlowError): void;
}

/** The hellos of all connections of one process. */
export interface Hello {
  /** What the hello told; known before any other protocol of the connection is answered, forgotten when it closes. */
  infoOf(connection: Connection): PeerInfo | undefined;
  /**
   * Leaves an inbound connection to the admission in place of a hello; whoever asks bounds its life from then on.
   * @returns false when a hello has begun, or the connection was left to the admission before.
   */
  standAside(connection: Connection): boolean;
  /** Closes the admitted connections of those that are members no more. @returns whose they were. */
  review(): readonly PeerId[];
}

/** A refused peer has this long to read why before the connection closes. */
const refusalGraceMs = ms(1_000);
/** More frames than this in one hello are abuse, known types or not. */
const framesMax = 8;
/** The wall clock may jump, so expiry is looked at this often at least. */
const expiryCheckMaxMs = 3_600_000;

const violation = (reason: string): HelixFlowError => new HelixFlowError('PROTOCOL_VIOLATION', { reason });

function refusedBy({ code, reason }: { readonly code: ErrorCode; readonly reason: string }): HelixFlowError {
  const cause = code === 'MEMBERSHIP_INVALID' ? new HelixFlowError(code, { reason }) : undefined;
  return new HelixFlowError('HELLO_REFUSED', { reason: `${code}: ${reason}` }, { cause });
}

interface World extends HelloDeps {
  readonly options: HelloOptions;
  readonly events: HelloEvents;
}

/** The hello of one connection. */
class Greeting {
  readonly #connection: Connection;
  readonly #world: World;
  #state: 'waiting' | 'aside' | 'greeting' | 'admitted' | 'over' = 'waiting';
  #timer: Cancel;
  #channel: Channel | undefined;
  #frames = 0;
  #helloCame = false;
  #acceptCame = false;
  #info: PeerInfo | undefined;

  constructor(connection: Connection, world: World) {
    this.#connection = connection;
    this.#world = world;
    this.#timer = this.#after(limits.helloTimeoutMs, () => this.#refuse(new HelixFlowError('HELLO_TIMEOUT', {})));
    connection.onClose(() => this.#stop());
  }

  get info(): PeerInfo | undefined {
    return this.#state === 'admitted' ? this.#info : undefined;
  }

  #after(delayMs: number, fire: () => void): Cancel {
    return this.#world.clock.timer(ms(delayMs), fire);
  }

  #stop(): void {
    this.#state = 'over';
    this.#timer();
  }

  /** Takes the first step, where it is ours. */
  start(): void {
    if (this.#state !== 'waiting') return;
    const credentials = this.#world.options.credentials();
    if (this.#connection.direction === 'outbound') {
      if (credentials !== undefined) void this.#open();
      else this.#leaveToAdmission();
    } else if (credentials === undefined) {
      this.#refuse(new HelixFlowError('MEMBERSHIP_INVALID', { reason: 'this peer is no member yet' }));
    }
  }

  /** We are the one to be admitted: `joinMesh` drives the connection, within the time that an admission may take. */
  #leaveToAdmission(): void {
    this.#state = 'aside';
    this.#timer();
    this.#timer = this.#after(limits.admitTimeoutMs, () => this.#close());
  }

  standAside(): boolean {
    if (this.#state !== 'waiting' || this.#connection.direction === 'outbound') return false;
    this.#state = 'aside';
    this.#timer();
    return true;
  }

  async #open(): Promise<void> {
    using deadline = this.#world.clock.deadline(ms(limits.helloTimeoutMs));
    try {
      this.#begin(await this.#connection.open(HELLO_PROTOCOL, deadline.signal));
    } catch (error) {
      const cause = toHelixFlowError(error, () => violation('the hello could not be opened'));
      if (this.#state === 'waiting') this.#refuse(cause);
    }
  }

  /** The other side opened a hello, which only its dialler may: we have begun our own on a connection that we dialled. */
  accept(channel: Channel): void {
    this.#begin(channel);
  }

  #unexpected(channel: Channel): void {
    const error = violation('a hello out of place');
    channel.abort(error);
    if (this.#state !== 'over') this.#refuse(error);
  }

  #begin(channel: Channel): void {
    const credentials = this.#world.options.credentials();
    if (this.#state !== 'waiting' || credentials === undefined) {
      this.#unexpected(channel);
      return;
    }
    this.#state = 'greeting';
    this.#channel = channel;
    channel.receive({
      frame: (bytes) => this.#frame(bytes),
      closed: (error) => this.#closed(error),
      drained: () => {},
    });
    if (this.#connection.direction === 'outbound') this.#show(credentials);
  }

  #show(credentials: Credentials): void {
    this.#channel?.send(encodeHelloFrame(this.#ours(credentials)));
  }

  #ours(credentials: Credentials): HelloFrame {
    const { options, network } = this.#world;
    const addresses = network.addresses().filter((address) => address.length <= limits.addressMaxChars);
    const hello: HelloFrame = {
      type: 'hello',
      versions: ourVersions,
      process: options.process,
      credentials,
      features: options.features ?? [],
      limits: new Map(sharedLimits.map((name) => [name, ourLimits[name]])),
      addresses: addresses.slice(0, limits.peerAddressesMax),
      roots: [],
    };
    return addRoots(hello, options.roots?.tokens() ?? []);
  }

  #closed(error: HelixFlowError | undefined): void {
    if (this.#state === 'over') this.#close();
    if (this.#state !== 'greeting') return;
    this.#refuse(error ?? new HelixFlowError('CHANNEL_CLOSED', { reason: 'the hello ended early' }));
  }

  #frame(bytes: Uint8Array): void {
    if (this.#state === 'over') return;
    this.#frames += 1;
    try {
      if (this.#frames > framesMax) throw violation('too many frames in a hello');
      if (this.#state !== 'greeting') throw violation('a frame after the hello');
      this.#read(bytes);
    } catch (error) {
      this.#refuse(toHelixFlowError(error, () => violation('a frame of the hello')));
      return;
    }
    this.#settle();
  }

  #read(bytes: Uint8Array): void {
    const frame = parseHelloFrame(bytes);
    switch (frame?.type) {
      case 'hello':
        if (this.#helloCame) throw violation('a second hello');
        this.#helloCame = true;
        void this.#check(frame);
        break;
      case 'accept':
        if (!this.#helloCame || this.#acceptCame) throw violation('an accept out of place');
        this.#acceptCame = true;
        break;
      case 'refuse':
        throw refusedBy(frame);
      case undefined:
        // A later version's frame; the hello does not depend on it.
        break;
    }
  }

  async #check(hello: HelloFrame): Promise<void> {
    const { options } = this.#world;
    try {
      this.#info = await judgeHello({ ...hello, peer: this.#connection.peer }, this.#world, options);
    } catch (error) {
      const cause = toHelixFlowError(error, () => violation('the hello could not be checked'));
      if (this.#state === 'greeting') this.#refuse(cause);
      return;
    }
    if (this.#state !== 'greeting') return;
    const credentials = options.credentials();
    // Whoever dialled learns nothing of us before it has shown that it may.
    if (this.#connection.direction === 'inbound' && credentials !== undefined) this.#show(credentials);
    this.#channel?.send(encodeHelloFrame({ type: 'accept' }));
    this.#settle();
  }

  /** Closes an admitted connection whose member is one no more; it is told why at its next hello, should one come. */
  review(): PeerId | undefined {
    if (this.#state !== 'admitted' || this.#info === undefined) return undefined;
    const objection = objectionTo(this.#info.membership, this.#world.options);
    if (objection === undefined) return undefined;
    this.#refuse(objection);
    return this.#connection.peer;
  }

  #settle(): void {
    if (this.#state !== 'greeting' || this.#info === undefined || !this.#acceptCame) return;
    // It may have been taken back since it was checked.
    const objection = objectionTo(this.#info.membership, this.#world.options);
    if (objection !== undefined) {
      this.#refuse(objection);
      return;
    }
    const { log, events } = this.#world;
    this.#state = 'admitted';
    this.#timer();
    this.#watchExpiry(this.#info.membership);
    this.#channel?.end();
    log.debug('hello.admitted', { peer: this.#connection.peer, role: this.#info.membership.role });
    this.#connection.admit();
    events.admitted(this.#connection, this.#info);
  }

  /** A membership that ends, ends its connections; with a renewed one the peer comes back. */
  #watchExpiry(membership: Membership): void {
    if (this.#state !== 'admitted') return;
    const leftMs = membership.expiresMs - this.#world.clock.wallMs();
    if (leftMs <= 0) {
      this.#world.log.info('hello.expired', { peer: this.#connection.peer });
      this.#closeAtOnce();
    } else {
      this.#timer = this.#after(Math.min(leftMs, expiryCheckMaxMs), () => this.#watchExpiry(membership));
    }
  }

  /** Ends the hello, or the connection it admitted. The other side is told why, unless it was the one to refuse. */
  #refuse(error: HelixFlowError): void {
    const { log, events } = this.#world;
    const wasAdmitted = this.#state === 'admitted';
    const { peer, direction, remoteAddress } = this.#connection;
    this.#stop();
    log.info('hello.refused', {
      peer,
      direction,
      remoteAddress,
      code: error.code,
      reason: errorText(error.code, error.details),
    });
    if (wasAdmitted) this.#closeAtOnce();
    else if (this.#channel === undefined || error.code === 'HELLO_REFUSED') this.#close();
    else {
      const reason = 'reason' in error.details ? error.details.reason : errorText(error.code, error.details);
      this.#channel.send(encodeHelloFrame({ type: 'refuse', code: error.code, reason }));
      this.#channel.end();
      this.#timer = this.#after(refusalGraceMs, () => this.#close());
    }
    if (!wasAdmitted) events.refused?.(this.#connection, error);
  }

  #close(): void {
    this.#stop();
    void this.#connection.close();
  }

  /** What was admitted is served until the last moment, unless it is aborted. */
  #closeAtOnce(): void {
    this.#stop();
    if (this.#connection.abort === undefined) this.#close();
    else this.#connection.abort();
  }
}

/**
 * Installs the hello on `deps.network`, as its one listener for connections; call before its `start`.
 * Every connection is then admitted, left to the admission, or closed within `limits.helloTimeoutMs`.
 */
export function createHello(deps: HelloDeps, options: HelloOptions, events: HelloEvents): Hello {
  const world: World = {
    network: deps.network,
    clock: deps.clock,
    tokens: deps.tokens,
    log: deps.log,
    options,
    events,
  };
  const greetings = new Map<number, Greeting>();
  const greetingOf = (connection: Connection): Greeting => {
    const known = greetings.get(connection.id);
    if (known !== undefined) return known;
    const greeting = new Greeting(connection, world);
    greetings.set(connection.id, greeting);
    connection.onClose(() => greetings.delete(connection.id));
    greeting.start();
    return greeting;
  };
  const handler = { beforeAdmission: true, frameMaxBytes: limits.helloMaxBytes };
  deps.network.handle(HELLO_PROTOCOL, handler, (channel) => greetingOf(channel.connection).accept(channel));
  deps.network.onConnection(greetingOf);
  return {
    infoOf: (connection) => greetings.get(connection.id)?.info,
    standAside: (connection) => greetingOf(connection).standAside(),
    review: () => {
      const closed = [...greetings.values()].map((greeting) => greeting.review());
      return [...new Set(closed.filter((peer) => peer !== undefined))];
    },
  };
}
