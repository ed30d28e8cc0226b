/** All tabs of one node: what is on disk at the start, statements in their order, writes, the time that passes. */

import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { EpochId, MeshId, PeerId, ProcessId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { StatementFrame } from '../protocol/messages/tab.ts';
import type { Cancel, Clock, Log, SigningKey, Store } from '../protocol/ports.ts';
import { ms, unixMs } from '../protocol/units.ts';
import { createFeedWriter, type FeedWriter } from './feed-writer.ts';
import type { Ledger } from './ledger.ts';
import type { Prices } from './prices.ts';
import type { NodeTabs, OpenWork, WorkLink, WorkStart, WorkStatus } from './work.ts';
import { Claims } from './work-claims.ts';
import { type ProvenStatement, violation } from './work-frame.ts';
import {
  readGateway,
  readKept,
  readSeen,
  readWork,
  readWorkKey,
  type WorkRowKind,
  workKeys,
  workRowKinds,
} from './work-rows.ts';
import { type TabRecords, type TabShared, WorkTab } from './work-tab.ts';
import { watchEveryMs } from './work-waiting.ts';

export interface NodeTabsPorts {
  readonly clock: Clock;
  readonly store: Store;
  readonly log: Log;
  readonly ledger: Pick<Ledger, 'report'>;
  readonly prices: Pick<Prices, 'byId' | 'allows'>;
}

export interface NodeTabsOptions {
  readonly meshId: MeshId;
  readonly self: PeerId;
  readonly key: SigningKey;
}

/** Ends of attempts share a write within this time. */
const writeWithinMs = 200;
/** How long a statement waits for a price that it names. */
const priceWaitMs = 5_000;
const priceLookMs = 250;
/** Statements of one gateway that wait: twice those that it may have in flight. */
const queueMax = 2 * limits.statementsInFlightMax;
const gatewaysMax = limits.authorsMax;
const batchMaxBytes = 4_194_304;

interface Queued {
  readonly frame: StatementFrame;
  /** Undefined until there was time to look at it. */
  proven: ProvenStatement | undefined;
  readonly link: WorkLink;
  readonly untilMs: number;
}

type Mutable = {
  -readonly [Key in keyof TabRecords]: TabRecords[Key] extends readonly (infer Item)[] ? Item[] : TabRecords[Key];
};

class Tabs implements NodeTabs {
  readonly #ports: NodeTabsPorts;
  readonly #options: NodeTabsOptions;
  readonly #shared: TabShared;
  readonly #writer: FeedWriter;
  readonly #claims: Claims;
  readonly #tabs = new Map<PeerId, WorkTab>();
  readonly #links = new Set<WorkLink>();
  readonly #queues = new Map<WorkTab, Queued[]>();
  /** Tabs that have something to write, and those that are in the writer's queue. */
  readonly #changed = new Set<WorkTab>();
  readonly #submitted = new Set<WorkTab>();
  #hasFailed = false;
  #isClosed = false;
  #cancelWrite: Cancel | undefined;
  #cancelWatch: Cancel | undefined;
  #cancelLook: Cancel | undefined;
  #forgottenMs = unixMs(0);
  #hasForgotten = false;

  constructor(ports: NodeTabsPorts, options: NodeTabsOptions) {
    this.#ports = ports;
    this.#options = options;
    this.#writer = createFeedWriter(ports, { batchMaxBytes });
    this.#claims = new Claims(ports.clock, options);
    this.#forgottenMs = ports.clock.wallMs();
    this.#shared = this.#share();
  }

  #share(): TabShared {
    const { clock, log, prices, ledger } = this.#ports;
    const { meshId, self, key } = this.#options;
    const forgottenMs = () => this.#forgottenMs;
    const hasForgotten = () => this.#hasForgotten;
    return {
      clock,
      log,
      meshId,
      self,
      key,
      get forgottenMs() {
        return forgottenMs();
      },
      get hasForgotten() {
        return hasForgotten();
      },
      isPriceRight: ({ price, model, startMs }) => prices.allows(price, { model, node: self, atMs: startMs }),
      isPriceHeld: (id) => prices.byId(id) !== undefined,
      changed: (tab, isUrgent) => this.#note(tab, isUrgent),
      forked: (proof) => {
        log.error('tab.forked', { author: proof.a.header.author, number: proof.a.header.number });
        ledger.report(proof).catch((error: unknown) => {
          if (!isHelixFlowError(error)) throw error;
          log.warn('tab.unreported', { code: error.code });
        });
      },
    };
  }

  async open(): Promise<void> {
    const found = await this.#read();
    for (const records of found.values()) {
      const { record } = records;
      if (record === undefined || this.#tabs.size >= gatewaysMax) continue;
      this.#tabs.set(record.gateway, new WorkTab(record.gateway, this.#shared, records));
    }
    // What ran when the last process ended is forgotten; gateways may be ahead by a little.
    this.#hasForgotten = found.size > 0;
    if (this.#hasForgotten) this.#forgottenMs = unixMs(this.#forgottenMs + limits.clockSkewMaxMs);
    this.#watchOn();
  }

  async #read(): Promise<Map<string, Mutable>> {
    const found = new Map<string, Mutable>();
    let damaged = 0;
    for (const kind of Object.keys(workRowKinds) as WorkRowKind[]) {
      const gte = Uint8Array.of(...workKeys.gte, workRowKinds[kind]);
      const lt = Uint8Array.of(...workKeys.gte, workRowKinds[kind] + 1);
      for await (const [key, row] of this.#ports.store.range({ gte, lt })) {
        if (!this.#readRow(found, key, row)) damaged += 1;
      }
    }
    if (damaged > 0) this.#ports.log.warn('tab.damaged', { rows: damaged });
    return found;
  }

  /** @returns false for a row of which a byte has changed; it says nothing, and is written over in time. */
  #readRow(found: Map<string, Mutable>, key: Uint8Array, row: Uint8Array): boolean {
    const place = readWorkKey(key);
    if (place === undefined) return false;
    const { kind, peer, id, number } = place;
    const records = found.get(peer) ?? { record: undefined, works: [], kept: [], pieces: [] };
    found.set(peer, records);
    const run = id as ProcessId;
    if (kind === 'gateway') {
      records.record = readGateway(key, row);
      return records.record !== undefined;
    }
    if (kind === 'work') return add(records.works, readWork(key, row, { run, serial: number }));
    if (kind === 'kept') return add(records.kept, readKept(key, row, { epoch: id as EpochId, number }));
    const bits = readSeen(key, row);
    return add(records.pieces, bits && { run, number, bits });
  }

  #tabOf(gateway: PeerId): WorkTab {
    const known = this.#tabs.get(gateway);
    if (known !== undefined) return known;
    const tab = new WorkTab(gateway, this.#shared, { record: undefined, works: [], kept: [], pieces: [] });
    this.#tabs.set(gateway, tab);
    return tab;
  }

  #isFull(gateway: PeerId): boolean {
    return this.#tabs.size >= gatewaysMax && !this.#tabs.has(gateway);
  }

  refusal(gateway: PeerId): HelixFlowError<'TAB_UNCOVERED'> | undefined {
    const refusedMs = this.#hasFailed || this.#isFull(gateway) ? 0 : this.#tabs.get(gateway)?.refusedMs();
    return refusedMs === undefined ? undefined : new HelixFlowError('TAB_UNCOVERED', { ageMs: refusedMs });
  }

  begin(start: WorkStart): OpenWork {
    const work = this.#tabOf(start.gateway).begin(start);
    this.#watchOn();
    return work;
  }

  ready(link: WorkLink): void {
    if (this.#isFull(link.peer)) return;
    this.#links.add(link);
    const tab = this.#tabOf(link.peer);
    // All that the gateway has no word on comes again, in order.
    this.#queues.delete(tab);
    tab.ready(link);
  }

  gone(link: WorkLink): void {
    this.#links.delete(link);
    this.#tabs.get(link.peer)?.gone(link);
  }

  received(link: WorkLink, frame: StatementFrame): void {
    if (this.#hasFailed || this.#isFull(link.peer)) return;
    const tab = this.#tabOf(link.peer);
    const queue = this.#queues.get(tab) ?? [];
    if (queue.length >= queueMax) throw violation('more of them than may be in flight');
    // Whoever sends faster than anybody needs to is answered more slowly.
    const proven = tab.mayProve() ? tab.prove(frame) : undefined;
    queue.push({ frame, proven, link, untilMs: this.#ports.clock.nowMs() + priceWaitMs });
    this.#queues.set(tab, queue);
    this.#pump(tab, queue);
  }

  /** Takes statements in their order, as far as their prices are known and the disk keeps up. */
  #pump(tab: WorkTab, queue: Queued[]): void {
    const nowMs = this.#ports.clock.nowMs();
    for (let next = queue[0]; next !== undefined && !tab.isWriting; next = queue[0]) {
      if (next.proven === undefined && tab.mayProve()) next.proven = tab.prove(next.frame);
      const { proven } = next;
      if (proven === undefined || (nowMs < next.untilMs && tab.lacksPrice(proven))) {
        this.#look();
        return;
      }
      queue.shift();
      tab.take(proven, next.link);
    }
    if (queue.length === 0) this.#queues.delete(tab);
  }

  #pumpAll(): void {
    for (const [tab, queue] of this.#queues) {
      try {
        this.#pump(tab, queue);
      } catch (error) {
        if (!isHelixFlowError(error)) throw error;
        this.#queues.delete(tab);
        this.#ports.log.warn('tab.violated', { gateway: tab.gateway, reason: error.message });
      }
    }
  }

  #look(): void {
    this.#cancelLook ??= this.#ports.clock.timer(ms(priceLookMs), () => {
      this.#cancelLook = undefined;
      this.#pumpAll();
    });
  }

  #note(tab: WorkTab, isUrgent: boolean): void {
    if (this.#isClosed) return;
    this.#changed.add(tab);
    if (isUrgent) this.#submit(tab);
    else {
      this.#cancelWrite ??= this.#ports.clock.timer(ms(writeWithinMs), () => {
        this.#cancelWrite = undefined;
        for (const one of this.#changed) this.#submit(one);
      });
    }
  }

  #submit(tab: WorkTab): void {
    if (this.#submitted.has(tab) || this.#hasFailed) return;
    this.#submitted.add(tab);
    this.#writer.submit(() => {
      this.#submitted.delete(tab);
      this.#changed.delete(tab);
      const { ops, done } = tab.takeChanges();
      return {
        ops,
        done: () => {
          done();
          this.#pumpAll();
        },
        failed: (error) => {
          if (!this.#hasFailed) this.#ports.log.error('tab.unwritten', { code: error.code });
          this.#hasFailed = true;
        },
      };
    });
  }

  #watchOn(): void {
    if (this.#cancelWatch !== undefined || [...this.#tabs.values()].every(({ waiting }) => waiting.isIdle)) return;
    this.#cancelWatch = this.#ports.clock.timer(ms(watchEveryMs), () => {
      this.#cancelWatch = undefined;
      const links = [...this.#links];
      for (const tab of this.#tabs.values()) {
        tab.watch();
        this.#claims.send(tab, links);
      }
      this.#watchOn();
    });
  }

  status(): readonly WorkStatus[] {
    return [...this.#tabs.values()].map((tab) => tab.status());
  }

  hasUnsent(): boolean {
    return [...this.#tabs.values()].some((tab) => tab.hasUnsent);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelWatch?.();
    this.#cancelLook?.();
    this.#cancelWrite?.();
    for (const tab of this.#tabs.values()) if (!tab.waiting.isIdle) this.#changed.add(tab);
    for (const tab of this.#changed) this.#submit(tab);
    await this.#writer.close();
  }
}

function add<T>(list: T[], item: T | undefined): boolean {
  if (item !== undefined) list.push(item);
  return item !== undefined;
}

/** Makes the tabs of one node; `open` them before its sessions begin. */
export const createNodeTabs = (ports: NodeTabsPorts, options: NodeTabsOptions): NodeTabs => new Tabs(ports, options);
