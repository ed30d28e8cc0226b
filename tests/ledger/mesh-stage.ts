/** Ledgers of gateways and nodes on simulated machines that are connected as a test says, all of them admitted. */

import { authorIdOf, type Block, type BlockStart, noHash, signBlock } from '../../ledger/block.ts';
import { createLedger } from '../../ledger/create-ledger.ts';
import { type AuthorEntry, type Entry, encodeEntry } from '../../ledger/entry.ts';
import type { Ledger, LedgerOptions } from '../../ledger/ledger.ts';
import type { Credentials, Role } from '../../protocol/grants.ts';
import { issuerIdOf } from '../../protocol/grants.ts';
import type { AuthorId, EpochId, KeyId, OwnerId, PeerId, ProcessId } from '../../protocol/ids.ts';
import { createMesh, type IssuerRecord, issueCredentials, type NewMesh } from '../../protocol/mesh.ts';
import { ourLimits } from '../../protocol/messages/hello.ts';
import {
  encodeLedgerFrame,
  LEDGER_PROTOCOL,
  type LedgerFrame,
  parseLedgerFrame,
} from '../../protocol/messages/ledger.ts';
import { createRoots } from '../../protocol/peer/create-roots.ts';
import type { PeerInfo } from '../../protocol/peer/hello.ts';
import type { Channel, Clock, Connection } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';
import { epochMs } from '../../sim/clock.ts';
import { createSimTokens } from '../../sim/tokens.ts';
import { type Machine, type SimPorts, World } from '../../sim/world.ts';

const tokens = createSimTokens({ mode: 'real' });
const signing = { tokens, nowMs: unixMs(epochMs) };

/** A machine, and the ledger of the process that runs there. */
export class Site {
  readonly role: Role;
  readonly machine: Machine;
  readonly credentials: Credentials;
  readonly options: Partial<LedgerOptions>;
  ledger!: Ledger;
  ports!: SimPorts;

  constructor(role: Role, machine: Machine, credentials: Credentials, options: Partial<LedgerOptions>) {
    this.role = role;
    this.machine = machine;
    this.credentials = credentials;
    this.options = options;
  }

  get peer(): PeerId {
    return this.machine.peer;
  }

  get author(): AuthorId {
    return authorIdOf(this.machine.key.publicKey);
  }
}

/** A peer whose side of the protocol the test speaks by hand. */
export interface Puppet {
  readonly connection: Connection;
  readonly channel: Channel;
  readonly got: LedgerFrame[];
  send(...frames: readonly (LedgerFrame | Uint8Array)[]): void;
  last<T extends LedgerFrame['type']>(type: T): (LedgerFrame & { readonly type: T }) | undefined;
}

export class LedgerMesh implements AsyncDisposable {
  readonly world: World;
  readonly mesh: NewMesh;
  readonly sites: Site[] = [];
  /** Told of every process before its network starts, and of every connection that it admits. */
  onBoot: (site: Site) => void = () => {};
  onAdmitted: (site: Site, connection: Connection, info: PeerInfo) => void = () => {};
  readonly #roles = new Map<PeerId, Role>();

  private constructor(world: World, mesh: NewMesh) {
    this.world = world;
    this.mesh = mesh;
  }

  static async create(seed = 7): Promise<LedgerMesh> {
    const world = new World({ seed, tokens: 'real' });
    const clock = { wallMs: () => unixMs(epochMs) } as Clock;
    const random = world.kernel.random.fork('mesh');
    return new LedgerMesh(world, await createMesh({ tokens, random, clock }, { name: 'stage', network: 'lan' }));
  }

  get issuer(): AuthorId {
    return authorIdOf(this.mesh.issuer.key.publicKey);
  }

  get issuerId() {
    return issuerIdOf(this.mesh.issuer.key.publicKey);
  }

  /** Adds a machine and starts its ledger; the first gateway of a test usually holds the issuer's key. */
  async add(role: Role, options: Partial<LedgerOptions> = {}): Promise<Site> {
    const site = await this.#site(role, options);
    await this.boot(site);
    return site;
  }

  async #site(role: Role, options: Partial<LedgerOptions>): Promise<Site> {
    const { meshId } = this.mesh.mesh;
    const machine = this.world.machine(`${role}-${this.sites.length}`, meshId);
    const member = { peer: machine.peer, role, owner: 'owner' as OwnerId };
    const site = new Site(role, machine, await issueCredentials(this.mesh, member, signing), options);
    this.#roles.set(machine.peer, role);
    this.sites.push(site);
    return site;
  }

  /** A gateway that holds the issuer's key. */
  addIssuer(issuer: IssuerRecord = this.mesh.issuer): Promise<Site> {
    return this.add('gateway', { issuer });
  }

  /** Starts a process on the site's machine, with the disk of the last one. */
  async boot(site: Site): Promise<void> {
    const { mesh } = this.mesh;
    const ports = site.machine.boot();
    site.ports = ports;
    const roots = createRoots({ tokens: ports.tokens }, mesh);
    const options = { role: site.role, meshId: mesh.meshId, key: site.machine.key, roots };
    site.ledger = createLedger(ports, { ...options, credentials: () => site.credentials, ...site.options });
    ports.network.onConnection((connection) => {
      connection.admit();
      site.ledger.admitted(connection, this.#infoOf(connection.peer));
      this.onAdmitted(site, connection, this.#infoOf(connection.peer));
    });
    this.onBoot(site);
    await this.run(ports.network.start());
    await this.run(roots.take({ kind: 'issuer', token: this.mesh.issuer.certificate }));
    await this.run(site.ledger.open());
  }

  #infoOf(peer: PeerId): PeerInfo {
    const { meshId } = this.mesh.mesh;
    const role = this.#roles.get(peer) ?? 'gateway';
    const grant = { meshId, issuer: this.issuerId, peer, role, owner: 'owner' as OwnerId };
    return {
      membership: { ...grant, expiresMs: unixMs(epochMs + 86_400_000) },
      process: '11'.repeat(16) as ProcessId,
      version: 1,
      features: new Set(),
      limits: ourLimits,
      addresses: [],
    };
  }

  /** Connects two sites, the first one dialling. */
  async link(from: Site, to: Site): Promise<Connection> {
    const { address } = to.machine.host;
    return await this.run(from.ports.network.connect(to.peer, [address], new AbortController().signal));
  }

  /** One more connection, as no honest peer dials it: that takes the one that there is. */
  linkAgain(from: Site, to: Site): Connection {
    const way = { listener: to.ports.network, address: to.machine.host.address, via: undefined };
    const outbound = this.world.fabric.connect(from.ports.network, way);
    const { other } = outbound;
    if (other === undefined) throw new Error('no other end');
    outbound.admit();
    other.admit();
    to.ledger.admitted(other, this.#infoOf(from.peer));
    this.onAdmitted(to, other, this.#infoOf(from.peer));
    return outbound;
  }

  /** Connects every gateway with every other, and each node with each gateway. */
  async linkAll(): Promise<void> {
    for (const [at, site] of this.sites.entries()) {
      for (const other of this.sites.slice(0, at)) {
        if (site.role === 'gateway' || other.role === 'gateway') await this.link(site, other);
      }
    }
  }

  /** A member that dials `to`, and whose exchange the test speaks. */
  async puppet(to: Site, role: Role = 'gateway'): Promise<Puppet & { readonly site: Site }> {
    const site = await this.#site(role, {});
    const ports = site.machine.boot();
    site.ports = ports;
    ports.network.handle(LEDGER_PROTOCOL, { beforeAdmission: false, frameMaxBytes: 65_536 }, () => {});
    ports.network.onConnection((connection) => connection.admit());
    await this.run(ports.network.start());
    const connection = await this.link(site, to);
    const channel = await this.run(connection.open(LEDGER_PROTOCOL, new AbortController().signal));
    const got: LedgerFrame[] = [];
    channel.receive({
      frame: (bytes) => {
        const frame = parseLedgerFrame(bytes);
        if (frame !== undefined) got.push(frame);
      },
      closed: () => {},
      drained: () => {},
    });
    return {
      site,
      connection,
      channel,
      got,
      send: (...frames) => {
        for (const frame of frames) channel.send(frame instanceof Uint8Array ? frame : encodeLedgerFrame(frame));
      },
      last: (type) => got.findLast((frame): frame is LedgerFrame & { type: typeof type } => frame.type === type),
    };
  }

  kill(site: Site): void {
    site.machine.kill();
  }

  /** Lets virtual time go by; fails with whatever broke a promise meanwhile. */
  async pass(passMs: number): Promise<void> {
    const { kernel } = this.world;
    await kernel.run(kernel.nowMs + passMs);
    if (kernel.failure !== undefined) throw kernel.failure.error;
  }

  async until(condition: () => boolean, withinMs = 30_000): Promise<void> {
    const endMs = this.world.kernel.nowMs + withinMs;
    while (!condition()) {
      if (this.world.kernel.nowMs >= endMs) throw new Error(`not within ${withinMs} ms: ${condition}`);
      await this.pass(1);
    }
  }

  async run<T>(work: Promise<T>): Promise<T> {
    let isSettled = false;
    const settled = work.finally(() => {
      isSettled = true;
    });
    settled.catch(() => {});
    await this.until(() => isSettled, 120_000);
    return await settled;
  }

  /** Appends and waits until it is on disk there. */
  append(site: Site, as: 'issuer' | 'gateway', entries: readonly Entry[]) {
    return this.run(site.ledger.append(as, entries));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const site of this.sites) if (site.machine.ports !== undefined) site.machine.kill();
    await this.pass(1_000);
  }
}

let drawn = 0;
const drawHex = (bytes: number): string => {
  drawn += 1;
  return drawn.toString(16).padStart(2 * bytes, '0');
};

/** An open entry. */
export const banOf = (peer: PeerId): Entry => ({ kind: 'ban', peer, ban: drawHex(16) });
/** One that only gateways get. */
export const revocationOf = (key: KeyId): Entry => ({ kind: 'revoke', key, fromMs: unixMs(epochMs), cut: false });
export const keyNumber = (number: number): KeyId => number.toString(16).padStart(16, '0') as KeyId;

/** A feed written by hand, as by an author that keeps to no rule. */
export function writeBlocks(
  mesh: LedgerMesh,
  by: IssuerRecord,
  blocks: readonly (readonly Entry[])[],
  from: { readonly epoch: EpochId; readonly number: number; readonly previous: Uint8Array } = {
    epoch: 'ee'.repeat(16) as EpochId,
    number: 0,
    previous: noHash,
  },
): Block[] {
  const { meshId } = mesh.mesh.mesh;
  let { number, previous } = from;
  return blocks.map((entries) => {
    const author = authorIdOf(by.key.publicKey);
    const place: BlockStart = {
      author,
      epoch: from.epoch,
      generation: 0,
      number,
      previous,
      timeMs: unixMs(epochMs + number),
    };
    const block = signBlock(place, entries.map(encodeEntry), { meshId, key: by.key });
    number += 1;
    previous = block.head.hash;
    return block;
  });
}

export const authorEntryOf = (by: IssuerRecord, peer: PeerId): AuthorEntry => ({
  kind: 'author',
  role: 'issuer',
  peer,
  certificate: by.certificate,
  membership: '',
});
