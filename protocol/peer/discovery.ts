/** Finds the peers of the other role and keeps sessions with them; keeps this peer findable (design §4, §5). */

import { HelixFlowError, isHelixFlowError } from '../errors.ts';
import type { Role } from '../grants.ts';
import type { PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { Cancel, Clock, Connection, Contact, Directory, Log, Network, Random } from '../ports.ts';
import type { Sessions } from '../session/sessions.ts';
import { type Ms, ms } from '../units.ts';
import type { Advertiser } from './advertise.ts';
import type { PeerBook } from './book.ts';
import { Links } from './links.ts';
import { Paths } from './paths.ts';
import type { Reachability } from './reach.ts';
import { type Target, Targets } from './targets.ts';

interface DiscoveryDeps {
  readonly network: Network;
  readonly directory: Directory;
  readonly sessions: Sessions;
  readonly book: PeerBook;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly advertiser: Advertiser;
}

export interface DiscoveryOptions {
  readonly role: Role;
  /** Gateways to dial first: from the invite or the operator. */
  readonly bootstrap: readonly Contact[];
}

/** The loops that find peers and keep this one findable. */
export interface Discovery {
  /** A connection has passed its hello. `addresses` is where the peer says it listens. */
  admitted(connection: Connection, role: Role, addresses: readonly string[]): void;
  /** Somebody trusted named these gateways: they are tried at once. */
  heard(gateways: readonly Contact[]): void;
  /** The session with this peer, or the connection to it, ended: it is tried again soon. */
  lost(peer: PeerId): void;
  /** This peer is a member no more: it is not tried again, unless somebody names it anew. */
  forget(peer: PeerId): void;
  /** Keys to be found under, besides the role's own; replaces the earlier ones. */
  provide(keys: readonly string[]): void;
  /**
   * True once a search has been completed, or there was nobody to ask, and every node that is known has been tried.
   * True in any case some seconds after the start.
   */
  isComplete(): boolean;
  /** Peers known, reached or not. */
  known(): readonly Target[];
  /** Whether others can dial this peer itself. */
  reachable(): Reachability;
  /**
   * An admitted connection to a peer, dialled if there is none.
   * @param contact Its addresses are tried beside those known.
   * @throws HelixFlowError CONNECT_FAILED; ADDRESS_REFUSED; the reason of `signal`.
   */
  reach(contact: Contact, signal: AbortSignal): Promise<Connection>;
  start(): Promise<void>;
  stop(): void;
}

const tickMs = ms(250);
const connectTimeoutMs = ms(5_000);
const searchTimeoutMs = ms(10_000);
/** A peer that finds nobody to ask tries again soon. */
const searchSoonMs = ms(1_000);
/** Between searches: short while the mesh may still be forming or has changed, longer each time when nothing happens. */
const searchMinMs = 5_000;
const searchMaxMs = 120_000;
/** Peers dialled at a time. */
const triesMax = 16;
/** Of the remembered peers this many of the newest are never given up. */
const anchorsMax = 64;
/** A failed put of the advert is tried again after this long. */
const advertRetryMs = ms(10_000);
/** With nobody to ask for this long, the mesh is this peer alone. */
const aloneMs = 3_000;
/** From reaching a node to holding its offer, generously. */
const offerMs = 1_000;
/** A discovery counts as complete this long after the start, whatever is still being tried. */
const settledMs = 15_000;
const roleKey = (role: Role): string => `role:${role}`;
/** What a model is advertised under. */
export const modelKey = (digest: string): string => `model:${digest}`;

class PeerDiscovery implements Discovery {
  readonly #deps: DiscoveryDeps;
  readonly #options: DiscoveryOptions;
  readonly #targets: Targets;
  readonly #links: Links;
  readonly #paths: Paths;
  readonly #trying = new Set<PeerId>();
  readonly #provided = new Map<string, Cancel>();
  readonly #stop = new AbortController();
  #startedMs: Ms;
  #isComplete = false;
  /** The last search asked somebody and ended. */
  #hasSearched = false;
  #isSearching = false;
  #searchWaitMs = searchMinMs;
  #nextSearchMs: Ms;
  #nextAdvertMs: Ms;

  constructor(deps: DiscoveryDeps, options: DiscoveryOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#targets = new Targets(deps.network.self);
    this.#links = new Links(deps.random.fork('links'), deps.clock.nowMs());
    this.#paths = new Paths(
      { ...deps, random: deps.random.fork('paths') },
      {
        role: options.role,
        isGateway: (peer) => this.#targets.get(peer)?.role === 'gateway',
        dial: (contact, role) => this.#dialBack(contact, role),
        moved: () => {
          this.#nextAdvertMs = deps.clock.nowMs();
        },
      },
    );
    this.#startedMs = deps.clock.nowMs();
    this.#nextSearchMs = this.#startedMs;
    this.#nextAdvertMs = this.#startedMs;
  }

  async start(): Promise<void> {
    const { clock, book } = this.#deps;
    this.#startedMs = clock.nowMs();
    for (const contact of this.#options.bootstrap) this.#targets.hear(contact, 'gateway', this.#startedMs, 'anchor');
    for (const [index, known] of (await book.recall()).entries()) {
      this.#targets.hear(known, known.role, this.#startedMs, index < anchorsMax ? 'anchor' : 'hearsay');
    }
    this.#provided.set(roleKey(this.#options.role), this.#deps.directory.provide(roleKey(this.#options.role)));
    this.#tick();
  }

  stop(): void {
    this.#stop.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'shutting down' }));
    for (const withdraw of this.#provided.values()) withdraw();
    this.#provided.clear();
  }

  admitted(connection: Connection, role: Role, addresses: readonly string[]): void {
    const nowMs = this.#deps.clock.nowMs();
    const dialled = connection.direction === 'outbound' ? [connection.remoteAddress] : [];
    const contact = { peer: connection.peer, addresses: addresses.length > 0 ? addresses : dialled };
    this.#targets.hear(contact, role, nowMs, 'self');
    // The directory dials, too. Nobody but this peer will open a session on that, so it is not put off.
    const isAwaited = connection.direction === 'outbound' && !this.#deps.sessions.has(connection.peer);
    if (isAwaited && role !== this.#options.role) this.#targets.connected(connection.peer, nowMs);
    else this.#targets.reached(connection.peer, nowMs);
    void this.#deps.book.remember(contact, role);
    this.#paths.admitted(connection, role, addresses);
    if (!this.#hasSearched) this.#nextSearchMs = nowMs;
  }

  heard(gateways: readonly Contact[]): void {
    const nowMs = this.#deps.clock.nowMs();
    for (const contact of gateways) this.#targets.hear(contact, 'gateway', nowMs, 'hearsay');
  }

  lost(peer: PeerId): void {
    const nowMs = this.#deps.clock.nowMs();
    this.#targets.lost(peer, nowMs, this.#deps.random.float());
    this.#searchWaitMs = searchMinMs;
    this.#nextSearchMs = ms(Math.min(this.#nextSearchMs, nowMs + searchMinMs));
  }

  forget(peer: PeerId): void {
    this.#targets.forget(peer);
    void this.#deps.book.forget(peer);
  }

  provide(keys: readonly string[]): void {
    const wanted = new Set([roleKey(this.#options.role), ...keys]);
    for (const [key, withdraw] of [...this.#provided]) {
      if (wanted.has(key)) continue;
      withdraw();
      this.#provided.delete(key);
    }
    for (const key of wanted) {
      if (!this.#provided.has(key)) this.#provided.set(key, this.#deps.directory.provide(key));
    }
    this.#nextAdvertMs = this.#deps.clock.nowMs();
  }

  isComplete(): boolean {
    if (!this.#isComplete) return false;
    const nowMs = this.#deps.clock.nowMs();
    if (nowMs - this.#startedMs >= settledMs) return true;
    return !this.#targets.all().some((target) => this.#isPending(target, nowMs));
  }

  /** A node that is known, but has had neither a session nor the time to tell what it serves, nor a failed try. */
  #isPending(target: Target, nowMs: Ms): boolean {
    if (target.role !== 'node' || this.#options.role === 'node') return false;
    const { sessions } = this.#deps;
    if (!sessions.has(target.peer)) return target.failures === 0;
    return target.reachedMs !== undefined && nowMs - target.reachedMs < offerMs;
  }

  known(): readonly Target[] {
    return this.#targets.all();
  }

  reachable(): Reachability {
    return this.#paths.reachable;
  }

  #tick(): void {
    if (this.#stop.signal.aborted) return;
    const nowMs = this.#deps.clock.nowMs();
    for (const target of this.#targets.all()) {
      if (this.#wants(target, nowMs)) void this.#try(target);
    }
    if (this.#options.role === 'gateway') this.#link(nowMs);
    this.#paths.tick();
    if (!this.#isSearching && nowMs >= this.#nextSearchMs) void this.#search();
    if (nowMs >= this.#nextAdvertMs && this.#deps.directory.size() > 0) void this.#putAdvert();
    if (!this.#isComplete && nowMs - this.#startedMs >= aloneMs && !this.#hasAnyoneToAsk()) this.#isComplete = true;
    this.#deps.clock.timer(tickMs, () => this.#tick());
  }

  #hasAnyoneToAsk(): boolean {
    return this.#deps.directory.size() > 0 || this.#targets.all().some(({ role }) => role === 'gateway');
  }

  #wants(target: Target, nowMs: Ms): boolean {
    const { sessions } = this.#deps;
    if (this.#trying.size >= triesMax || this.#trying.has(target.peer) || nowMs < target.nextTryMs) return false;
    if (this.#options.role === 'node') {
      if (target.role !== 'gateway' || sessions.has(target.peer)) return false;
      return sessions.all().length + this.#trying.size < limits.sessionsPerNodeMax;
    }
    if (target.role === 'gateway') return false;
    // Nodes dial gateways; a gateway steps in only for one that has not.
    return nowMs - target.foundMs >= limits.gatewayDialDelayMs && !sessions.has(target.peer);
  }

  /** Keeps a gateway's connections to others, through which their entries come. */
  #link(nowMs: Ms): void {
    const isGateway = (peer: PeerId): boolean => this.#targets.get(peer)?.role === 'gateway';
    const links = this.#paths.open().filter(({ peer }) => isGateway(peer));
    const linked = new Set(links.map(({ peer }) => peer));
    const trying = new Set([...this.#trying].filter((peer) => isGateway(peer) && !linked.has(peer)));
    const candidates = this.#targets
      .all()
      .filter(({ peer, nextTryMs }) => isGateway(peer) && !linked.has(peer) && !trying.has(peer) && nowMs >= nextTryMs);
    const dialled = links.filter(({ direction }) => direction === 'outbound').map(({ peer }) => peer);
    const { dial, close } = this.#links.plan({ nowMs, linked, dialled, trying, candidates });
    for (const target of dial) void this.#try(target);
    for (const connection of links) if (connection.peer === close) void connection.close();
  }

  async reach(contact: Contact, signal: AbortSignal): Promise<Connection> {
    const known = this.#targets.get(contact.peer)?.addresses ?? [];
    const addresses = [...new Set([...known, ...contact.addresses])].slice(0, limits.peerAddressesMax);
    return this.#paths.to(contact.peer) ?? (await this.#connect({ peer: contact.peer, addresses }, signal));
  }

  async #dialBack(contact: Contact, role: Role): Promise<boolean> {
    const { sessions, log } = this.#deps;
    let connection: Connection | undefined;
    try {
      connection = await this.#connect(contact);
      if (role !== this.#options.role) await sessions.open(connection);
      log.info('peer.direct', { peer: contact.peer, path: connection.path });
      return true;
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      if (connection !== undefined && sessions.get(contact.peer)?.connection !== connection) void connection.close();
      log.debug('peer.not-direct', { peer: contact.peer, code: error.code });
      return false;
    }
  }

  async #try(target: Target): Promise<void> {
    const { clock, sessions, random, log } = this.#deps;
    const { peer } = target;
    this.#trying.add(peer);
    let connection: Connection | undefined;
    try {
      connection = this.#paths.to(peer) ?? (await this.#connect(target));
      if (target.role !== this.#options.role && !sessions.has(peer)) await sessions.open(connection);
      this.#targets.reached(peer, clock.nowMs());
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      // The other side may have given it up unheard: kept, it would be tried, and fail, for ever.
      if (connection !== undefined && !sessions.has(peer)) void connection.close();
      this.#targets.failed(peer, clock.nowMs(), random.float());
      log.debug('peer.unreached', { peer, code: error.code, failures: target.failures });
    } finally {
      this.#trying.delete(peer);
    }
  }

  /** Dials, and waits for the hello to pass. */
  async #connect(target: Contact, signal: AbortSignal = this.#stop.signal): Promise<Connection> {
    const { clock, network, directory, advertiser } = this.#deps;
    using deadline = clock.deadline(connectTimeoutMs, signal);
    let { addresses } = target;
    if (addresses.length === 0) {
      const advert = await directory.getAdvert(target.peer, deadline.signal);
      addresses = advert === undefined ? [] : advertiser.addressesIn(advert);
    }
    const connection = await network.connect(target.peer, addresses, deadline.signal);
    while (!connection.isAdmitted) {
      if (!connection.isOpen) throw new HelixFlowError('CONNECT_FAILED', { peer: target.peer });
      await clock.sleep(ms(20), deadline.signal);
    }
    return connection;
  }

  /** Drawn, so that peers that started together do not search together for ever. */
  #nextWaitMs(): Ms {
    const waitMs = this.#searchWaitMs * (0.75 + this.#deps.random.float() / 4);
    this.#searchWaitMs = Math.min(2 * this.#searchWaitMs, searchMaxMs);
    return ms(waitMs);
  }

  async #search(): Promise<void> {
    const { clock, directory, log } = this.#deps;
    this.#isSearching = true;
    using deadline = clock.deadline(searchTimeoutMs, this.#stop.signal);
    const roles: readonly Role[] = this.#options.role === 'node' ? ['gateway'] : ['node', 'gateway'];
    let waitMs = searchSoonMs;
    try {
      for (const role of roles) {
        for await (const contact of directory.find(roleKey(role), deadline.signal)) {
          this.#targets.hear(contact, role, clock.nowMs(), 'hearsay');
        }
      }
      // A directory that ran out of time ends its answers early, and says nothing.
      if (deadline.signal.aborted) throw new HelixFlowError('DIRECTORY_UNAVAILABLE', { reason: 'out of time' });
      this.#isComplete = true;
      this.#hasSearched = true;
      waitMs = this.#nextWaitMs();
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      log.debug('search.failed', { code: error.code });
      this.#hasSearched = false;
      this.#searchWaitMs = searchMinMs;
    } finally {
      this.#isSearching = false;
      this.#nextSearchMs = ms(clock.nowMs() + waitMs);
    }
  }

  async #putAdvert(): Promise<void> {
    const { clock, directory, log, advertiser } = this.#deps;
    this.#nextAdvertMs = ms(clock.nowMs() + limits.advertRenewMs);
    using deadline = clock.deadline(searchTimeoutMs, this.#stop.signal);
    try {
      await directory.putAdvert(await advertiser.next(), deadline.signal);
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      log.debug('advert.unput', { code: error.code });
      this.#nextAdvertMs = ms(clock.nowMs() + advertRetryMs);
    }
  }
}

/** Creates the loops; the caller feeds `admitted` and `lost`, and starts them once the network runs. */
export const createDiscovery = (deps: DiscoveryDeps, options: DiscoveryOptions): Discovery =>
  new PeerDiscovery(deps, options);
