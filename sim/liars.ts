/** Members that lie from some moment on: production code, whose words are changed on their way out. */

import { encodeEntry } from '../ledger/entry.ts';
import type { Ledger } from '../ledger/ledger.ts';
import type { UsageLine } from '../ledger/line.ts';
import {
  claimAttemptsMax,
  encodeUsage,
  parseUsage,
  type StatementEntry,
  signClaim,
  signCountersign,
  statementHash,
} from '../ledger/statement.ts';
import { toHex } from '../protocol/crypto.ts';
import type { MeshId, PeerId, ProcessId, RequestId } from '../protocol/ids.ts';
import type { CountersignFrame } from '../protocol/messages/tab.ts';
import type { EngineDone } from '../protocol/ports.ts';
import { unixMs } from '../protocol/units.ts';
import { epochMs } from './clock.ts';
import type { SimEngine } from './engine.ts';
import type { Fault } from './faults.ts';
import { type GatewayLie, type NodeLie, restate, type Tip } from './lies.ts';
import type { SimRandom } from './random.ts';
import type { GatewaySite, NodeSite, Site, Sites } from './sites.ts';
import { TwoFaces } from './two-faces.ts';
import type { World } from './world.ts';

/** What a machine lies about, and since when. */
export interface Liar {
  readonly site: Site;
  readonly lie: GatewayLie | NodeLie;
  /** Of what it says. */
  readonly share: number;
  readonly sinceMs: number;
}

type LyingFault = Extract<Fault, { readonly kind: 'lyingNode' | 'lyingGateway' }>;

/** Longer statements would not hold what is repeated. */
const repeatBelow = 64;
const claimEveryMs = 10_000;
/** What a node that inflates says of what it did. */
const inflation = 10;
const padding = 4;

/** All liars of a run. They lie to its end: nobody trusts them again before. */
export class Liars {
  readonly #world: World;
  readonly #meshId: MeshId;
  readonly #sites: Sites;
  readonly #random: SimRandom;
  readonly #liars = new Map<Site, Liar>();

  constructor(world: World, sites: Sites) {
    this.#world = world;
    this.#sites = sites;
    this.#meshId = sites.mesh.mesh.meshId;
    this.#random = world.kernel.random.fork('liars');
    sites.onBooted((site) => {
      if (site.role === 'gateway') this.#installGateway(site);
      else this.#installNode(site);
    });
  }

  all(): readonly Liar[] {
    return [...this.#liars.values()];
  }

  of(site: Site): Liar | undefined {
    return this.#liars.get(site);
  }

  isHonest(peer: PeerId): boolean {
    return !this.all().some(({ site }) => site.machine.peer === peer);
  }

  /** From now on; a machine has one lie. */
  begin({ lie, share }: LyingFault, site: Site): void {
    if (this.#liars.has(site)) return;
    this.#liars.set(site, { site, lie, share, sinceMs: this.#world.kernel.nowMs });
    if (site.role === 'node' && lie === 'claim') this.#claimLater(site);
  }

  #lied(site: Site, times = 1): void {
    this.#world.counts.add(site.role === 'node' ? 'lyingNode' : 'lyingGateway', times);
  }

  #isLied({ share }: Liar, serial: number): boolean {
    return ((serial * 2_654_435_761) >>> 0) / 2 ** 32 < share;
  }

  #installGateway(site: GatewaySite): void {
    const ledger = site.gateway?.ledger;
    if (ledger === undefined) return;
    const chains = new Chains();
    const isTwoFaced = (): boolean => this.#liars.get(site)?.lie === 'faces';
    const faces = new TwoFaces(site, this.#meshId, isTwoFaced);
    const append = ledger.append.bind(ledger);
    const lying: Ledger['append'] = async (as, entries) => {
      const said = entries.map((entry) => (entry.kind === 'statement' ? this.#restate(site, entry, chains) : entry));
      const places = await append(as, said);
      for (const [at, entry] of entries.entries()) {
        const place = places[at];
        if (isTwoFaced() && entry.kind === 'statement' && place !== undefined) faces.show(entry, place);
      }
      return places;
    };
    ledger.append = lying;
  }

  /** The chain is that of what is really stated, from the first statement on. */
  #restate(site: GatewaySite, entry: StatementEntry, chains: Chains): StatementEntry {
    const liar = this.#liars.get(site);
    const isLied = ({ serial }: Pick<UsageLine, 'serial'>): boolean => liar !== undefined && this.#isLied(liar, serial);
    const said = restate(entry, {
      lie: (liar?.lie ?? 'repeat') as GatewayLie,
      isLied,
      earlier: liar === undefined || entry.lines.length > repeatBelow ? [] : chains.earlier(entry),
      tip: chains.tip(entry),
    });
    if (liar !== undefined) this.#lied(site, JSON.stringify(said.lines) === JSON.stringify(entry.lines) ? 0 : 1);
    chains.keep(said);
    return said;
  }

  #installNode(site: NodeSite): void {
    const { node, engine } = site;
    if (node === undefined || engine === undefined) return;
    this.#installEngine(site, engine);
    const { tabs } = node;
    const [ready, received] = [tabs.ready.bind(tabs), tabs.received.bind(tabs)];
    const lines = new Map<string, number>();
    tabs.received = (link, frame) => {
      const entry = parseUsage(frame.entry);
      if (entry.kind === 'statement') lines.set(toHex(statementHash(frame.entry)), entry.lines.length);
      received(link, frame);
    };
    tabs.ready = (link) => {
      const send = link.sendTab.bind(link);
      link.sendTab = (frame) =>
        send(frame.type === 'claim' ? frame : this.#refusing(site, link.peer, { frame, lines }));
      ready(link);
    };
  }

  #installEngine(site: NodeSite, engine: SimEngine): void {
    const real = engine.generate.bind(engine);
    engine.generate = async (request, emit, signal) => {
      const lie = this.#liars.get(site)?.lie;
      const done = await real(
        request,
        (delta) => {
          if (lie === 'pad') {
            this.#lied(site);
            return emit({ ...delta, tokenIds: delta.tokenIds.flatMap((id) => Array<number>(padding).fill(id)) });
          }
          if (lie !== 'prompt' || delta.promptTokens === undefined) return emit(delta);
          return emit({ ...delta, promptTokens: delta.promptTokens * inflation });
        },
        signal,
      );
      return this.#inflated(site, lie, done);
    };
  }

  #inflated(site: NodeSite, lie: Liar['lie'] | undefined, done: EngineDone): EngineDone {
    if (lie === 'inflate' || lie === 'pad') {
      this.#lied(site);
      return { ...done, completionTokens: done.completionTokens * inflation };
    }
    if (lie !== 'prompt') return done;
    this.#lied(site);
    return { ...done, promptTokens: done.promptTokens * inflation };
  }

  /** Says of every line that it is wrong. */
  #refusing(
    site: NodeSite,
    gateway: PeerId,
    { frame, lines }: { readonly frame: CountersignFrame; readonly lines: ReadonlyMap<string, number> },
  ): CountersignFrame {
    const entry = parseUsage(frame.entry);
    if (this.#liars.get(site)?.lie !== 'refuse' || entry.kind !== 'countersign') return frame;
    const count = lines.get(toHex(entry.statement)) ?? 0;
    this.#lied(site, count);
    const refused = Array.from({ length: count }, (_, index) => ({ index, reason: 'count' }) as const);
    const { signature: _, ...unsigned } = entry;
    const signed = signCountersign({ ...unsigned, refused }, { meshId: this.#meshId, gateway }, site.machine.key);
    return { type: 'countersign', entry: encodeUsage(signed) };
  }

  #claimLater(site: NodeSite): void {
    this.#world.kernel.schedule(claimEveryMs, () => {
      this.#claim(site);
      this.#claimLater(site);
    });
  }

  /** Of every gateway, to every gateway. */
  #claim({ machine, node }: NodeSite): void {
    if (machine.ports?.lifeline.isPaused !== false || node === undefined) return;
    const random = this.#random.fork('claim');
    const hex = (bytes: number): string => toHex(random.bytes(bytes));
    for (const about of this.#sites.gateways) {
      const attempts = Array.from({ length: claimAttemptsMax }, () => ({
        run: hex(16) as ProcessId,
        serial: 1 + random.int(1_000),
        request: hex(16) as RequestId,
        startMs: unixMs(epochMs),
        promptTokens: 1_000_000,
        completionTokens: 1_000_000,
      }));
      const facts = { node: machine.peer, gateway: about.machine.peer, attempts, timeMs: unixMs(epochMs) } as const;
      const entry = encodeUsage(signClaim({ kind: 'claim', ...facts }, this.#meshId, machine.key));
      for (const session of node.member.sessions.all()) session.sendTab({ type: 'claim', entry });
      this.#world.counts.add('lyingNode', 1);
    }
  }
}

/** What one process has stated, by node. */
class Chains {
  readonly #tips = new Map<string, Tip>();
  readonly #lines = new Map<PeerId, readonly UsageLine[]>();

  tip({ node, number }: StatementEntry): Tip | undefined {
    return number === 0 ? undefined : this.#tips.get(`${node} ${number - 1}`);
  }

  /** A few of those that it stated last, with anything to pay. */
  earlier({ node, lines }: StatementEntry): readonly UsageLine[] {
    const now = new Set(lines.map(({ run, serial }) => `${run}.${serial}`));
    return (this.#lines.get(node) ?? []).filter(({ run, serial }) => !now.has(`${run}.${serial}`));
  }

  keep(entry: StatementEntry): void {
    const { node, number, totals, lines } = entry;
    this.#tips.set(`${node} ${number}`, { hash: statementHash(encodeEntry(entry)), totals });
    this.#tips.delete(`${node} ${number - 64}`);
    if (lines.length > 0) this.#lines.set(node, lines.slice(-8));
  }
}
