/** What gateway and node have in common as processes: files, network, entry into the mesh, renewal. */

import type { AuditLog } from '../ledger/adapters/audit-files.ts';
import { openLevelStore } from '../ledger/adapters/store-level.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { createLibp2pNetwork } from '../protocol/adapters/network-libp2p.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import { type Credentials, checkCredentials, type Role } from '../protocol/grants.ts';
import type { IssuerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { createIdentity, type IssuerRecord, issueCredentials, issuerOf } from '../protocol/mesh.ts';
import { joinMesh } from '../protocol/peer/admit.ts';
import { createPeerBook } from '../protocol/peer/book.ts';
import { peerIdOf } from '../protocol/peer/identity.ts';
import type { Member } from '../protocol/peer/member.ts';
import { renewMembership } from '../protocol/peer/renew.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import type { Clock, Log, Random, SigningKey, Store, Tokens } from '../protocol/ports.ts';
import { type Ms, ms } from '../protocol/units.ts';
import { choosePort } from './choose-port.ts';
import type { DataDir } from './data-dir.ts';
import { type DatedNetwork, datedNetwork } from './dated-network.ts';
import type { AdmitOwn } from './granting.ts';
import { ledgerView } from './ledger-text.ts';
import { type Entry, enterMesh, ownOwner, renewBelowMs, retirementOf } from './membership.ts';
import { writeJoinedMesh } from './mesh-files.ts';
import { openRoots, recallRoots } from './open-roots.ts';
import { readIdentity, readSettings, writeIdentity, writeMembership, writeSettings } from './peer-files.ts';
import type { MemberStatus, MembershipStatus } from './status.ts';

/** The real world, for everything that runs in this process. */
export interface World {
  readonly clock: Clock;
  readonly random: Random;
  readonly tokens: Tokens;
  readonly log: Log;
  /** The audit log of the data directory. */
  readonly audit: AuditLog;
}

export interface PeerOptions {
  readonly role: Role;
  readonly p2pHost: string;
  /** Undefined: the one that was chosen before, or a new one. */
  readonly p2pPort: number | undefined;
  readonly announce: readonly string[];
  /** Text of an invite. */
  readonly join: string | undefined;
  /** Where a gateway in this process holds the issuer's key: admits, and writes it down. */
  readonly admitOwn?: AdmitOwn | undefined;
}

/** A peer whose files are open and whose network is made, not started. */
export interface PeerRuntime {
  readonly key: SigningKey;
  readonly entry: Entry;
  readonly network: DatedNetwork;
  readonly store: Store;
  readonly p2pPort: number;
  /** What the root has said, as far as this directory's own files tell. */
  readonly roots: Roots;
  /** Others may have heard of this peer: it has met some, or is told of some. */
  readonly knowsOthers: boolean;
  credentials(): Credentials | undefined;
  /**
   * Keeps what the start has settled, then becomes a member if it is none yet, trying until it succeeds. From then on
   * the membership is renewed in its last third.
   * @param signal Ends the trying.
   * @throws HelixFlowError INVITE_INVALID, MEMBERSHIP_INVALID and whatever no repetition would help.
   */
  join(peer: JoinedPeer, signal: AbortSignal): Promise<void>;
  /** @param maxStale An issuer that has been silent for longer is shown as stale. */
  status(peer: JoinedPeer, maxStale: Ms): MemberStatus;
  close(): Promise<void>;
}

/** What a runtime needs of the peer that lives on its network. */
export interface JoinedPeer {
  readonly member: Member;
  readonly ledger: Ledger;
}

const retryMinMs = 1_000;
const retryMaxMs = 30_000;
const renewCheckMs = ms(3_600_000);

/** True for what may be over in a moment: the mesh's gateways are away, or the issuer's is. */
const isPassing = (error: unknown): boolean =>
  isHelixFlowError(error, 'ADMISSION_UNAVAILABLE') || isHelixFlowError(error, 'DEADLINE_EXCEEDED');

class Runtime implements PeerRuntime {
  readonly key: SigningKey;
  readonly entry: Entry;
  readonly network: DatedNetwork;
  readonly store: Store;
  readonly p2pPort: number;
  readonly roots: Roots;
  readonly knowsOthers: boolean;
  readonly #world: World;
  readonly #dir: DataDir;
  readonly #options: PeerOptions;
  readonly #stop = new AbortController();
  #credentials: Credentials | undefined;
  #admittedBy: IssuerId | undefined;
  #expiresMs: number | undefined;
  /** Why a gateway refused the membership last, since none admitted this peer. */
  #refusal: string | undefined;

  constructor(
    world: World,
    dir: DataDir,
    options: PeerOptions,
    parts: Pick<PeerRuntime, 'key' | 'entry' | 'network' | 'store' | 'p2pPort' | 'roots' | 'knowsOthers'>,
  ) {
    this.#world = world;
    this.#dir = dir;
    this.#options = options;
    this.key = parts.key;
    this.entry = parts.entry;
    this.network = parts.network;
    this.store = parts.store;
    this.p2pPort = parts.p2pPort;
    this.roots = parts.roots;
    this.knowsOthers = parts.knowsOthers;
    this.#credentials = parts.entry.credentials;
    this.#admittedBy = parts.entry.admittedBy;
    this.#expiresMs = parts.entry.expiresMs;
  }

  credentials(): Credentials | undefined {
    return this.#credentials;
  }

  async join(peer: JoinedPeer, signal: AbortSignal): Promise<void> {
    const { p2pPort, entry } = this;
    const paths = this.#dir.peer(this.#options.role);
    await writeSettings(paths, { p2pPort, addresses: this.network.addresses(), bootstrap: entry.bootstrap });
    const until = AbortSignal.any([signal, this.#stop.signal]);
    this.#followHellos(peer);
    const issuer = this.#issuerInOffice();
    if (entry.invite !== undefined) await this.#exchange(entry.invite, until);
    else if (issuer !== undefined && this.#isDue()) await this.#admitSelf(issuer);
    this.#watchExpiry(peer);
  }

  /** The issuer whose key is here, while it may admit this peer. */
  #issuerInOffice(): IssuerRecord | undefined {
    const { issuer } = this.entry;
    if (issuer === undefined) return undefined;
    return retirementOf(issuerOf(issuer).issuer, this.roots) === undefined ? issuer : undefined;
  }

  #followHellos({ member }: JoinedPeer): void {
    const unfollow = member.onHello(({ direction, peer }, refused) => {
      if (refused === undefined) this.#refusal = undefined;
      const cause = refused?.cause;
      // Whoever dials us may say anything; those whom we dial are gateways that we know of.
      if (direction !== 'outbound' || !isHelixFlowError(cause, 'MEMBERSHIP_INVALID')) return;
      const isKnown = this.#refusal !== undefined || member.admitted().length > 0;
      this.#refusal = cause.details.reason;
      if (isKnown) return;
      const hint = 'unless another gateway admits this peer, it needs a new invite: --join <token>';
      this.#world.log.warn('membership.refused', { role: this.#options.role, peer, reason: this.#refusal, hint });
    });
    this.#stop.signal.addEventListener('abort', unfollow, { once: true });
  }

  /**
   * Signs at once and writes it down when the ledger lets: before it signs anything else, the issuer asks others what it
   * had written, and it takes a membership to be answered.
   */
  async #admitSelf(issuer: IssuerRecord): Promise<void> {
    const { log } = this.#world;
    const { role } = this.#options;
    await this.#take(await this.#signOwn(issuer));
    const write = async (): Promise<void> => this.#take(await this.#admitOwn(issuer));
    write().catch((error: unknown) => {
      if (!this.#stop.signal.aborted) log.error('membership.not-written', { role }, error);
    });
  }

  async #exchange({ text, content }: NonNullable<Entry['invite']>, signal: AbortSignal): Promise<void> {
    const { clock, tokens, log, random } = this.#world;
    const { meshId } = this.entry.mesh;
    for (let delayMs = retryMinMs; ; delayMs = Math.min(2 * delayMs, retryMaxMs)) {
      try {
        const credentials = await joinMesh(text, { clock, tokens, network: this.network }, { meshId, signal });
        await writeJoinedMesh(this.#dir, content);
        await this.#take(credentials);
        log.info('join.done', { mesh: meshId, role: this.#options.role, isOpen: content.isOpen });
        return;
      } catch (error) {
        const { held } = this.entry;
        if (isHelixFlowError(error, 'INVITE_INVALID') && held !== undefined) {
          log.warn('join.refused', { reason: error.details.reason, kept: 'the membership that there was' });
          return this.#take(held);
        }
        if (!isPassing(error) || signal.aborted) throw error;
        log.warn('join.waiting', { retryMs: delayMs, code: isHelixFlowError(error) ? error.code : undefined });
        await clock.sleep(ms(delayMs * (0.5 + random.float())), signal);
      }
    }
  }

  /** Checks a new membership, keeps it, and shows it from now on. */
  async #take(credentials: Credentials): Promise<void> {
    const { tokens, clock } = this.#world;
    const { meshId } = this.entry.mesh;
    const peer = this.network.self;
    const checking = { tokens, meshId, peer, nowMs: clock.wallMs() };
    const { expiresMs, issuer } = await checkCredentials(credentials, checking);
    await writeMembership(this.#dir.peer(this.#options.role), credentials);
    await this.roots.take({ kind: 'issuer', token: credentials.certificate });
    this.#credentials = credentials;
    this.#admittedBy = issuer;
    this.#expiresMs = expiresMs;
  }

  #isDue(): boolean {
    return (this.#expiresMs ?? 0) - this.#world.clock.wallMs() < renewBelowMs;
  }

  #signOwn(issuer: IssuerRecord): Promise<Credentials> {
    const { tokens, clock } = this.#world;
    const member = { peer: this.network.self, role: this.#options.role, owner: ownOwner };
    return issueCredentials({ mesh: this.entry.mesh, issuer }, member, { tokens, nowMs: clock.wallMs() });
  }

  /** A node without a gateway beside it has nobody to write it down: its issuer's gateway does so at a later renewal. */
  #admitOwn(issuer: IssuerRecord): Promise<Credentials> {
    const { role, admitOwn } = this.#options;
    return admitOwn?.(this.network.self, role) ?? this.#signOwn(issuer);
  }

  #watchExpiry(peer: JoinedPeer): void {
    const { clock, log } = this.#world;
    const cancel = clock.timer(renewCheckMs, () => {
      const { role } = this.#options;
      this.#renew(peer).catch((error: unknown) => log.error('membership.not-renewed', { role }, error));
      this.#watchExpiry(peer);
    });
    this.#stop.signal.addEventListener('abort', cancel, { once: true });
  }

  async #renew({ member, ledger }: JoinedPeer): Promise<void> {
    const { mesh } = this.entry;
    const issuer = this.#issuerInOffice();
    const credentials = this.#credentials;
    if (!this.#isDue() || credentials === undefined) return;
    if (issuer !== undefined) return this.#take(await this.#admitOwn(issuer));
    const deps = { ...this.#world, network: this.network, hello: member.hello };
    const holderOf = ledger.holderOf.bind(ledger);
    const { signal } = this.#stop;
    await this.#take(await renewMembership(deps, { meshId: mesh.meshId, credentials, holderOf, signal }));
    this.#world.log.info('membership.renewed', { role: this.#options.role });
  }

  #membershipStatus(member: Member): MembershipStatus {
    if (this.#credentials === undefined) return { state: 'joining' };
    const isTakenBack = this.#admittedBy !== undefined && this.roots.isRevoked(this.#admittedBy);
    const refusal = isTakenBack ? 'its issuer was taken back' : this.#refusal;
    if (refusal !== undefined && member.admitted().length === 0) return { state: 'refused', reason: refusal };
    if (this.#expiresMs === undefined) return { state: 'valid' };
    const state = this.#expiresMs <= this.#world.clock.wallMs() ? 'lapsed' : 'valid';
    return { state, expires: new Date(this.#expiresMs).toISOString() };
  }

  status({ member, ledger }: JoinedPeer, maxStale: Ms): MemberStatus {
    const nowMs = this.#world.clock.wallMs();
    const own = this.entry.issuer === undefined ? undefined : issuerOf(this.entry.issuer).issuer;
    return {
      peerId: this.network.self,
      addresses: this.network.addresses(),
      reachable: member.discovery.reachable(),
      p2pPort: this.p2pPort,
      membership: this.#membershipStatus(member),
      peers: member.admitted().map(([connection, info]) => ({
        peer: connection.peer,
        role: info.membership.role,
        owner: info.membership.owner,
        direction: connection.direction,
        path: connection.path,
        address: connection.remoteAddress,
        since: new Date(this.network.openedMs(connection)).toISOString(),
      })),
      directoryPeers: this.network.directory.size(),
      ledger: ledgerView(ledger.status(), { nowMs, own, maxStaleMs: maxStale }),
    };
  }

  async close(): Promise<void> {
    this.#stop.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'shutting down' }));
    await this.network.close();
    await this.store.close();
  }
}

/**
 * Opens a peer's files and makes its network. Nothing is sent; a mesh or membership is not written yet.
 * @throws HelixFlowError what `enterMesh` and `openLevelStore` throw; ADDRESS_REFUSED; CONFIG_INVALID
 */
export async function openPeer(world: World, dir: DataDir, options: PeerOptions): Promise<PeerRuntime> {
  const paths = dir.peer(options.role);
  const kept = await readIdentity(paths);
  const key = kept ?? createIdentity(world.random);
  const peer = peerIdOf(key.publicKey);
  const recall = (roots: Roots): Promise<void> => recallRoots(world, paths.store, roots);
  const entry = await enterMesh(world, dir, { role: options.role, peer, join: options.join, recall });
  if (kept === undefined) await writeIdentity(paths, key);
  const wanted = options.p2pPort ?? (await readSettings(paths)).p2pPort ?? 0;
  const p2pPort = await choosePort(options.p2pHost, wanted, world.random);
  const store = await openLevelStore(paths.store);
  try {
    const network = await createLibp2pNetwork(world, {
      seed: key.seed,
      listen: { host: options.p2pHost, port: p2pPort },
      announce: options.announce,
      relayReservationsMax: options.role === 'gateway' ? limits.relayReservationsMax : 0,
      network: entry.mesh.network,
      meshId: entry.mesh.meshId,
    });
    const { mesh, issuer, credentials, invite } = entry;
    const certificate = invite?.content.certificate;
    const roots = await openRoots(world.tokens, { mesh, issuer, credentials, certificate });
    const dated = datedNetwork(network, world.clock);
    const met = await createPeerBook({ ...world, store }).recall();
    const knowsOthers = met.length > 0 || entry.bootstrap.length > 0;
    return new Runtime(world, dir, options, { key, entry, network: dated, store, p2pPort, roots, knowsOthers });
  } catch (error) {
    await store.close();
    throw error;
  }
}
