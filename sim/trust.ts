/** Who may, watched from outside: keys are made and revoked, members are banned, and every gateway must follow. */

import { authorIdOf } from '../ledger/block.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { toHex } from '../protocol/crypto.ts';
import { isHelixFlowError } from '../protocol/errors.ts';
import { issuerIdOf, signCertificate } from '../protocol/grants.ts';
import type { AccountId, AuthorId, KeyId, OwnerId } from '../protocol/ids.ts';
import { createIdentity, issueCredentials } from '../protocol/mesh.ts';
import { peerIdOf } from '../protocol/peer/identity.ts';
import { unixMs } from '../protocol/units.ts';
import { type BanCounts, Bans, type Times, timesOf } from './bans.ts';
import type { Violation } from './checkers.ts';
import type { SimRandom } from './random.ts';
import type { GatewaySite, Site, Sites } from './sites.ts';
import { Traitor } from './traitor.ts';
import type { World } from './world.ts';

/** What a scenario asks of the issuer while it runs. */
export interface TrustPlan {
  readonly revocationsPerMinute: number;
  /** Nodes that come as members, and are banned while nothing is broken. */
  readonly guests: number;
  /** While nothing is broken, every gateway refuses the key or member within this time after its issuer has resolved. */
  readonly calmWithinMs: number;
  /** After the faults an issuer shows one feed to half of the gateways, and after this time another to the rest. */
  readonly forkSettleMs: number;
}

/** How long revocations took to be known: one number for each revocation and gateway, while nothing was broken. */
export interface TrustCounts extends Times {
  readonly revoked: number;
  readonly bans: BanCounts;
  /** From the moment when the second feed was first shown to the last gateway's proof. */
  readonly forkProvenMs: number | undefined;
}

interface Revoked {
  readonly key: KeyId;
  /** When the issuer's own disk held it. */
  readonly atMs: number;
  readonly phase: 'calm' | 'faults';
  /** Gateways that know of it. */
  readonly knownAtMs: Map<string, number>;
}

const lookEveryMs = 50;

/** All revocations of a run. */
export class Trust {
  readonly #world: World;
  readonly #sites: Sites;
  readonly #plan: TrustPlan;
  readonly #random: SimRandom;
  readonly #violate: (violation: Violation) => void;
  readonly #author: AuthorId;
  readonly #revoked: Revoked[] = [];
  #traitor: Traitor | undefined;
  readonly #provenMs = new Map<string, number>();
  readonly #bans: Bans;

  constructor(world: World, sites: Sites, plan: TrustPlan, violate: (violation: Violation) => void) {
    this.#world = world;
    this.#sites = sites;
    this.#plan = plan;
    this.#violate = violate;
    this.#random = world.kernel.random.fork('trust');
    this.#author = authorIdOf(sites.mesh.issuer.key.publicKey);
    this.#bans = new Bans(world, sites, plan.calmWithinMs, violate);
    sites.onBooted((site) => this.#watch(site));
    sites.onKilled((site) => {
      if (site === sites.gateways[0]) this.#issuerKilled();
    });
  }

  #watch(site: Site): void {
    if (site.role !== 'gateway') return;
    const { ledger } = site.gateway ?? {};
    ledger?.onChange((change) => {
      if (change.kind === 'key') this.#seen(site, change.key);
    });
  }

  #seen({ machine }: GatewaySite, key: KeyId): void {
    const revoked = this.#revoked.find((one) => one.key === key);
    if (revoked !== undefined && !revoked.knownAtMs.has(machine.name)) {
      revoked.knownAtMs.set(machine.name, this.#world.kernel.nowMs);
    }
  }

  /** What had left nobody's disk but the issuer's may be gone with it: a backup may take its place. */
  #issuerKilled(): void {
    for (let at = this.#revoked.length - 1; at >= 0; at -= 1) {
      if ((this.#revoked[at] as Revoked).knownAtMs.size <= 1) this.#revoked.splice(at, 1);
    }
  }

  /** Makes and revokes keys at random moments until `untilMs`. */
  revokeAround(untilMs: number, phase: Revoked['phase']): void {
    const { kernel } = this.#world;
    const next = (): void => {
      const delayMs = (120_000 / this.#plan.revocationsPerMinute) * this.#random.float();
      if (kernel.nowMs + delayMs >= untilMs) return;
      kernel.schedule(delayMs, () => {
        void this.#revokeOne(phase);
        next();
      });
    };
    next();
  }

  /** Bans every guest until `untilMs`. */
  banAround(untilMs: number): void {
    this.#bans.banAround(untilMs);
  }

  async #revokeOne(phase: Revoked['phase']): Promise<void> {
    const [site] = this.#sites.gateways;
    const ports = site?.machine.ports;
    const ledger = site?.gateway?.ledger;
    if (site === undefined || ports === undefined || ledger === undefined || ports.lifeline.isPaused) return;
    const key = toHex(this.#random.bytes(8)) as KeyId;
    const revoked: Revoked = { key, atMs: 0, phase, knownAtMs: new Map() };
    try {
      await this.#append(ledger, key);
    } catch (error) {
      // Its process or disk is in trouble: whoever asked was told so, and nothing was promised.
      if (isHelixFlowError(error)) return;
      throw error;
    }
    const atMs = this.#world.kernel.nowMs;
    this.#revoked.push({ ...revoked, atMs });
    for (const gateway of this.#sites.gateways) {
      if (this.#knows(gateway, key)) this.#seen(gateway, key);
    }
  }

  async #append(ledger: Ledger, key: KeyId): Promise<void> {
    const account = 'simulated' as AccountId;
    const terms = { models: [], limits: {} };
    await ledger.append('issuer', [{ kind: 'key', key, account, role: 'user', gateways: [], terms }]);
    await ledger.append('issuer', [{ kind: 'revoke', key, fromMs: unixMs(0), cut: false }]);
  }

  #knows({ gateway }: GatewaySite, key: KeyId): boolean {
    return gateway?.ledger.standing.key(key, this.#author)?.revoked !== undefined;
  }

  /** Nothing has been broken so far: whatever is older than its time is known everywhere. */
  checkCalm(): void {
    for (const { key, atMs, knownAtMs, phase } of this.#revoked) {
      if (phase !== 'calm') continue;
      for (const { machine } of this.#sites.gateways) {
        const tookMs = (knownAtMs.get(machine.name) ?? this.#world.kernel.nowMs) - atMs;
        if (tookMs > this.#plan.calmWithinMs) {
          this.#break('revoked in time', `${machine.name} took ${Math.round(tookMs)} ms to refuse ${key}`);
        }
      }
    }
    this.#bans.checkCalm();
  }

  /** Names a second issuer, whose key a liar holds, and lets it lie. */
  async betray(): Promise<void> {
    const { mesh } = this.#sites;
    const machine = this.#world.machine('traitor', mesh.mesh.meshId);
    const ports = machine.boot();
    const signing = { tokens: ports.tokens, nowMs: ports.clock.wallMs() };
    const key = createIdentity(ports.random.fork('issuer'));
    const { meshId } = mesh.mesh;
    const named = { meshId, issuer: issuerIdOf(key.publicKey), publicKey: key.publicKey };
    const certificate = await signCertificate(named, mesh.root.key, signing);
    const member = { peer: machine.peer, role: 'gateway', owner: 'traitor' as OwnerId } as const;
    const gateways = this.#sites.gateways.map((site) => ({
      peer: site.machine.peer,
      addresses: [site.machine.host.address],
    }));
    const traitor = new Traitor(ports, {
      mesh: mesh.mesh,
      credentials: await issueCredentials(mesh, member, signing),
      key,
      certificate,
      first: { kind: 'author', role: 'issuer', peer: machine.peer, certificate, membership: '' },
      // Somebody who is not there: what counts is that the halves are told different things.
      differs: (branch) => [
        { kind: 'ban', peer: peerIdOf(key.publicKey), ban: (branch === 'left' ? '0' : '1').repeat(32) },
      ],
      gateways,
      nowMs: () => this.#world.kernel.nowMs,
    });
    this.#traitor = traitor;
    this.#lookForProof(traitor.author);
    await traitor.start(this.#plan.forkSettleMs);
  }

  /** Looks often enough to tell seconds from each other. */
  #lookForProof(author: AuthorId): void {
    const { kernel } = this.#world;
    for (const { machine, gateway } of this.#sites.gateways) {
      const isNew = gateway?.ledger.status().frozen.includes(author) === true && !this.#provenMs.has(machine.name);
      if (isNew) this.#provenMs.set(machine.name, kernel.nowMs);
    }
    if (this.#provenMs.size < this.#sites.gateways.length)
      kernel.schedule(lookEveryMs, () => this.#lookForProof(author));
  }

  /** All faults are over: every gateway knows the same, nothing that was promised is lost, and no honest author has forked. */
  checkSettled(): void {
    const traitors = this.#traitor === undefined ? [] : [this.#traitor.author];
    for (const site of this.#sites.gateways) {
      const lost = this.#revoked.filter(({ key }) => !this.#knows(site, key));
      for (const { key } of lost) this.#break('revocations arrive', `${site.machine.name} takes ${key}`);
      const frozen = site.gateway?.ledger.status().frozen ?? [];
      for (const author of frozen) {
        if (!traitors.includes(author)) this.#break('no honest fork', `${site.machine.name} has ${author} as forked`);
      }
      for (const author of traitors) {
        if (!frozen.includes(author)) this.#break('forks are proven', `${site.machine.name} still follows ${author}`);
      }
    }
    const states = new Set(this.#sites.gateways.map((site) => stateOf(site)));
    this.#bans.checkSettled();
    if (states.size > 1) this.#break('all know the same', `${states.size} different states`);
  }

  #break(check: string, detail: string): void {
    this.#violate({ atMs: this.#world.kernel.nowMs, check, detail });
  }

  counts(): TrustCounts {
    const took = this.#revoked
      .filter(({ phase }) => phase === 'calm')
      .flatMap(({ atMs, knownAtMs }) => [...knownAtMs.values()].map((knownMs) => knownMs - atMs));
    const shownMs = this.#traitor?.shownMs;
    return {
      revoked: this.#revoked.length,
      ...timesOf(took),
      bans: this.#bans.counts(),
      forkProvenMs: shownMs === undefined ? undefined : Math.round(Math.max(...this.#provenMs.values()) - shownMs),
    };
  }
}

/** What a gateway has learnt, as one text. */
function stateOf({ gateway }: GatewaySite): string {
  const standing = gateway?.ledger.standing;
  const sorted = (items: readonly unknown[]): string[] => items.map((item) => JSON.stringify(item)).sort();
  return JSON.stringify([
    sorted(standing?.keys() ?? []),
    sorted(standing?.accounts() ?? []),
    sorted(standing?.members() ?? []),
    sorted([...(standing?.bans() ?? [])]),
  ]);
}
