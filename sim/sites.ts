/** The mesh under test: production gateways and nodes on simulated machines, started, killed and started again. */

import { createGatewayPeer, type GatewayPeer } from '../gateway/peer.ts';
import { createNode, type MeshNode } from '../node/node.ts';
import type { Credentials, Role } from '../protocol/grants.ts';
import type { OwnerId } from '../protocol/ids.ts';
import { createMesh, issueCredentials, type NewMesh } from '../protocol/mesh.ts';
import { createRoots } from '../protocol/peer/create-roots.ts';
import type { Clock, Contact } from '../protocol/ports.ts';
import { unixMs } from '../protocol/units.ts';
import { epochMs } from './clock.ts';
import { SimEngine } from './engine.ts';
import type { Scenario } from './scenario.ts';
import { createSimTokens } from './tokens.ts';
import type { Machine, World } from './world.ts';

/** The one model that all simulated nodes serve. */
export const simModel = 'sim-model';

const engineOptions = { model: simModel, slots: 4, contextTokens: 8_192, prefillMsPerToken: 0.5, decodeMsPerToken: 20 };
/** Of all machines at the start: a rack that is switched on. */
const bootSpreadMs = 2_000;
const bootstrapGateways = 2;
const callsMax = 10_000;
const queueMax = 32;

/** A machine that runs a gateway. */
export interface GatewaySite {
  readonly role: 'gateway';
  readonly machine: Machine;
  readonly credentials: Credentials;
  gateway: GatewayPeer | undefined;
}

/** A machine that runs a node. */
export interface NodeSite {
  readonly role: 'node';
  readonly machine: Machine;
  readonly credentials: Credentials;
  node: MeshNode | undefined;
  engine: SimEngine | undefined;
}

export type Site = GatewaySite | NodeSite;

/** All machines of a scenario: gateways first, then nodes; faults name them by their place. */
export class Sites {
  readonly gateways: GatewaySite[] = [];
  readonly nodes: NodeSite[] = [];
  /** Members that come for a while and serve nothing; no fault meets them. */
  readonly guests: NodeSite[] = [];
  readonly #world: World;
  readonly #mesh: NewMesh;
  #bootstrap: readonly Contact[] = [];
  readonly #booted: ((site: Site) => void)[] = [];
  readonly #killed: ((site: Site) => void)[] = [];

  private constructor(world: World, mesh: NewMesh) {
    this.#world = world;
    this.#mesh = mesh;
  }

  /** Makes the mesh and the machines, all of them members, none of them running. */
  static async create(world: World, scenario: Scenario): Promise<Sites> {
    const tokens = createSimTokens({ mode: world.tokens });
    const clock = { wallMs: () => unixMs(epochMs) } as Clock;
    const random = world.kernel.random.fork('mesh');
    const mesh = await createMesh({ tokens, random, clock }, { name: 'simulated', network: 'lan' });
    const sites = new Sites(world, mesh);
    const { meshId } = mesh.mesh;
    const admit = (machine: Machine, role: Role): Promise<Credentials> =>
      issueCredentials(
        mesh,
        { peer: machine.peer, role, owner: machine.name as OwnerId },
        { tokens, nowMs: unixMs(epochMs) },
      );
    for (let at = 0; at < scenario.gateways; at += 1) {
      const machine = world.machine(`gateway-${at}`, meshId);
      sites.gateways.push({
        role: 'gateway',
        machine,
        credentials: await admit(machine, 'gateway'),
        gateway: undefined,
      });
    }
    for (let at = 0; at < scenario.nodes; at += 1) {
      const machine = world.machine(`node-${at}`, meshId, at >= scenario.hiddenNodes);
      const credentials = await admit(machine, 'node');
      sites.nodes.push({ role: 'node', machine, credentials, node: undefined, engine: undefined });
    }
    for (let at = 0; at < (scenario.trust?.guests ?? 0); at += 1) {
      const machine = world.machine(`guest-${at}`, meshId);
      const credentials = await admit(machine, 'node');
      sites.guests.push({ role: 'node', machine, credentials, node: undefined, engine: undefined });
    }
    sites.#bootstrap = sites.gateways
      .slice(0, bootstrapGateways)
      .map(({ machine }) => ({ peer: machine.peer, addresses: [machine.host.address] }));
    return sites;
  }

  /** With the secrets of its root and issuer; the first gateway holds the issuer's key. */
  get mesh(): NewMesh {
    return this.#mesh;
  }

  all(): readonly Site[] {
    return [...this.gateways, ...this.nodes];
  }

  /** By the number that faults use. */
  at(number: number): Site | undefined {
    return this.gateways[number] ?? this.nodes[number - this.gateways.length];
  }

  /** Calls `listener` with each process before it sends anything. */
  onBooted(listener: (site: Site) => void): void {
    this.#booted.push(listener);
  }

  onKilled(listener: (site: Site) => void): void {
    this.#killed.push(listener);
  }

  /** Lets all of them start within a little while. */
  bootAll(): void {
    const random = this.#world.kernel.random.fork('boot');
    for (const site of [...this.all(), ...this.guests]) {
      this.#world.kernel.schedule(bootSpreadMs * random.float(), () => this.boot(site));
    }
  }

  /** Guests go for good. */
  dismissGuests(): void {
    for (const guest of this.guests) this.kill(guest, true);
  }

  /** Starts a process on the machine, unless one runs there. */
  boot(site: Site): void {
    if (site.machine.ports !== undefined) return;
    const ports = site.machine.boot();
    const { meshId } = this.#mesh.mesh;
    const { key, peer } = site.machine;
    const bootstrap = this.#bootstrap.filter((contact) => contact.peer !== peer);
    const roots = createRoots(ports, this.#mesh.mesh);
    const options = { meshId, key, credentials: () => site.credentials, bootstrap, roots };
    let start: () => Promise<void>;
    if (site.role === 'gateway') {
      const isIssuer = site === this.gateways[0];
      const issuer = isIssuer ? { issuer: this.#mesh.issuer } : {};
      const admission = { mesh: this.#mesh.mesh };
      site.gateway = createGatewayPeer(ports, { ...options, ...issuer, callsMax, admission });
      start = site.gateway.start;
    } else {
      const { counts } = this.#world;
      site.engine = new SimEngine(ports.clock, counts, { ...engineOptions, salt: '' });
      const owner = site.machine.name;
      const engines = this.guests.includes(site) ? [] : [site.engine];
      site.node = createNode(ports, { ...options, engines, queueMax, owner, hardware: 'simulated' });
      start = site.node.start;
    }
    for (const listener of this.#booted) listener(site);
    start().catch((error: unknown) => this.#startFailed(site, error));
  }

  /** As in a real daemon: a start that fails ends the process, and whatever looks after it starts it again. */
  #startFailed(site: Site, error: unknown): void {
    this.#world.log.unexpected(error);
    this.#world.kernel.schedule(0, () => this.kill(site, true));
    this.#world.kernel.schedule(1_000, () => this.boot(site));
  }

  /** Ends the process at once. */
  kill(site: Site, hasPower: boolean): void {
    if (site.machine.ports === undefined) return;
    for (const listener of this.#killed) listener(site);
    site.machine.kill(hasPower);
    if (site.role === 'gateway') site.gateway = undefined;
    else {
      site.node = undefined;
      site.engine = undefined;
    }
  }
}
