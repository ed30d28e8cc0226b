/** A gateway whose feed forks: each half of the others is shown other statements, and all of them must find out. */

import { authorIdOf } from '../ledger/block.ts';
import type { UsageLine } from '../ledger/line.ts';
import type { Price } from '../ledger/price.ts';
import { settleAll } from '../ledger/settle.ts';
import type { AttemptFacts } from '../ledger/settlement.ts';
import { addTotals, noTotals, type StatementEntry } from '../ledger/statement.ts';
import { toHex } from '../protocol/crypto.ts';
import type { AuthorId, ModelDigest, OwnerId, ProcessId, RequestId, Tag } from '../protocol/ids.ts';
import { issueCredentials } from '../protocol/mesh.ts';
import { ms, unixMs } from '../protocol/units.ts';
import { epochMs } from './clock.ts';
import { apart } from './links.ts';
import { type Sites, simModel } from './sites.ts';
import { type Branch, Traitor } from './traitor.ts';
import type { World } from './world.ts';

/** Looks often enough to tell seconds from each other. */
const lookEveryMs = 50;
/** Attempts of the left branch, and of the right one; what both tell of they tell differently. */
const serials: Readonly<Record<Branch, readonly number[]>> = { left: [1, 2, 3, 4, 5, 6], right: [4, 5, 6, 7, 8, 9] };
const tokens: Readonly<Record<Branch, number>> = { left: 100, right: 60 };

/** One such gateway, from the moment when it begins to lie. */
export class ForkedFeed {
  readonly author: AuthorId;
  readonly #world: World;
  readonly #sites: Sites;
  readonly #price: Price;
  readonly #start: () => Promise<Traitor>;
  /** When the halves could reach each other again. */
  #contactMs: number | undefined;
  readonly #provenMs = new Map<string, number>();

  constructor(world: World, sites: Sites, price: Price) {
    const { mesh } = sites;
    const machine = world.machine('forked-gateway', mesh.mesh.meshId);
    this.#world = world;
    this.#sites = sites;
    this.#price = price;
    this.author = authorIdOf(machine.key.publicKey);
    this.#start = async () => {
      const ports = machine.boot();
      const member = { peer: machine.peer, role: 'gateway', owner: 'forked' as OwnerId } as const;
      const signing = { tokens: ports.tokens, nowMs: ports.clock.wallMs() };
      const credentials = await issueCredentials(mesh, member, signing);
      const { certificate, membership } = credentials;
      return new Traitor(ports, {
        mesh: mesh.mesh,
        credentials,
        key: machine.key,
        certificate,
        first: { kind: 'author', role: 'gateway', peer: machine.peer, certificate, membership },
        differs: (branch) => [this.#statement(branch)],
        gateways: sites.gateways.map((site) => ({ peer: site.machine.peer, addresses: [site.machine.host.address] })),
        nowMs: () => world.kernel.nowMs,
      });
    };
  }

  /** While the halves cannot reach each other for `apartMs`, each is shown its own branch. */
  async betray(apartMs: number): Promise<void> {
    const { kernel, links } = this.#world;
    const hosts = this.#sites.gateways.map(({ machine }) => machine.host.id);
    const half = Math.ceil(hosts.length / 2);
    const heal = links.add(apart(new Set(hosts.slice(0, half)), new Set(hosts.slice(half))));
    kernel.schedule(apartMs, () => {
      this.#contactMs = kernel.nowMs;
      heal();
    });
    this.#look();
    await (await this.#start()).start(0);
  }

  #look(): void {
    const { kernel } = this.#world;
    const { gateways } = this.#sites;
    for (const { machine, gateway } of gateways) {
      const isNew = gateway?.ledger.status().frozen.includes(this.author) === true;
      if (isNew && !this.#provenMs.has(machine.name)) this.#provenMs.set(machine.name, kernel.nowMs);
    }
    if (this.#provenMs.size < gateways.length) kernel.schedule(lookEveryMs, () => this.#look());
  }

  #statement(branch: Branch): StatementEntry {
    const [node] = this.#sites.nodes;
    const lines = serials[branch].map((serial) => this.#line(serial, tokens[branch]));
    return {
      kind: 'statement',
      node: node?.machine.peer ?? this.#sites.gateways[0]?.machine.peer ?? ('' as never),
      ...{ number: 0, previous: new Uint8Array(32), run: runOf(0), lines, running: [], progress: [] },
      totals: addTotals(noTotals, lines),
    };
  }

  #line(serial: number, completionTokens: number): UsageLine {
    const caller = { day: 0, account: '00'.repeat(8) as Tag, key: '00'.repeat(8) as Tag };
    return {
      ...{ run: runOf(0), serial, first: serial, request: runOf(serial) as string as RequestId, model: simModel },
      ...{ digest: '00'.repeat(32) as ModelDigest, caller, price: this.#price, payer: 'gateway' },
      ...{ startMs: unixMs(epochMs), firstMs: ms(1), durationMs: ms(1), promptTokens: 10, cachedTokens: 0 },
      ...{ completionTokens, nodeTokens: completionTokens, outcome: 'done' },
    };
  }

  /** From the first contact of the halves to the last gateway's proof. */
  get provenMs(): number | undefined {
    if (this.#contactMs === undefined || this.#provenMs.size < this.#sites.gateways.length) return undefined;
    return Math.max(0, Math.round(Math.max(...this.#provenMs.values()) - this.#contactMs));
  }

  /** What is wrong with how all gateways together took it. */
  problems(attempts: readonly AttemptFacts[]): readonly string[] {
    const missing = this.#sites.gateways.filter(({ machine }) => !this.#provenMs.has(machine.name));
    const notProven = missing.map(({ machine }) => `${machine.name} has not found out`);
    const settled = settleAll(attempts.filter(({ author }) => author === this.author));
    const found = settled.map(({ line, completionTokens }) => [line.serial, completionTokens]);
    // Of two lines of one attempt, neither signed by its node, the lower one.
    const union = [...new Set([...serials.left, ...serials.right])];
    const expected = union.map((serial) => [serial, serials.right.includes(serial) ? tokens.right : tokens.left]);
    const isUnion = JSON.stringify(found) === JSON.stringify(expected);
    return isUnion ? notProven : [...notProven, `settled are ${JSON.stringify(found)}`];
  }
}

const runOf = (number: number): ProcessId =>
  toHex(Uint8Array.of(...new Array<number>(15).fill(7), number)) as ProcessId;
