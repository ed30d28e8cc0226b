/** A node's tabs on a disk that can be copied and can die, and gateways whose statements a test writes by hand. */

import { authorIdOf, type Block, type ForkProof, noHash, signBlock } from '../../ledger/block.ts';
import { encodeEntry } from '../../ledger/entry.ts';
import type { UsageLine } from '../../ledger/line.ts';
import { createNodeTabs } from '../../ledger/node-tabs.ts';
import { freePrice } from '../../ledger/price.ts';
import type { Prices } from '../../ledger/prices.ts';
import {
  addTotals,
  type ClaimEntry,
  type CountersignEntry,
  isClaimed,
  isCountersigned,
  noTotals,
  parseUsage,
  type RefusedLine,
  type StatementEntry,
  statementHash,
  type TabTotals,
} from '../../ledger/statement.ts';
import type { NodeTabs, OpenWork, WorkEnd, WorkLink, WorkStart } from '../../ledger/work.ts';
import { type Counted, nothingCounted } from '../../protocol/counting.ts';
import { sha256, toHex } from '../../protocol/crypto.ts';
import type { EpochId, MeshId, ModelDigest, PeerId, ProcessId, RequestId, Tag } from '../../protocol/ids.ts';
import { merklePath } from '../../protocol/merkle.ts';
import type { ClaimFrame, CountersignFrame, StatementFrame } from '../../protocol/messages/tab.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { ban, Disk, DiskStore, keyNamed, silentLog } from './feed-stage.ts';

export const meshId = 'ab'.repeat(32) as MeshId;
export const nodeKey = keyNamed('the node');
export const nodePeer = peerIdOf(nodeKey.publicKey);

const hexNamed = (name: string, bytes: number): string => toHex(sha256(name).subarray(0, bytes));
export const runNamed = (name: string): ProcessId => hexNamed(`run ${name}`, 16) as ProcessId;
export const model = 'tiny';
export const digest = hexNamed('digest', 32) as ModelDigest;
const caller = { day: 20_000, account: hexNamed('account', 8) as Tag, key: hexNamed('key', 8) as Tag };

/** Nothing has a price. */
export const noPrices: Pick<Prices, 'byId' | 'allows'> = {
  byId: () => undefined,
  allows: ({ id }) => id === '',
};

export interface NodeParts {
  readonly store?: DiskStore;
  readonly clock?: ManualClock;
  readonly prices?: Pick<Prices, 'byId' | 'allows'>;
}

/** An attempt at the node, whose counts a test moves. */
export interface StagedWork {
  readonly start: WorkStart;
  readonly work: OpenWork;
  counted: Counted;
  acknowledgedTokens: number;
  /** So many tokens, four bytes each, were sent; of the last ones nothing is acknowledged. */
  send(tokens: number, unacknowledged?: number): void;
}

/** One process of a node. */
export class NodeStage {
  readonly clock: ManualClock;
  readonly store: DiskStore;
  readonly tabs: NodeTabs;
  readonly forks: ForkProof[] = [];

  private constructor({ store = new DiskStore(new Disk()), clock = new ManualClock(), prices = noPrices }: NodeParts) {
    this.clock = clock;
    this.store = store;
    const ledger = {
      report: async (proof: ForkProof) => {
        this.forks.push(proof);
      },
    };
    this.tabs = createNodeTabs(
      { clock, store, log: silentLog, ledger, prices },
      { meshId, self: nodePeer, key: nodeKey },
    );
  }

  static async open(parts: NodeParts = {}): Promise<NodeStage> {
    const stage = new NodeStage(parts);
    await stage.tabs.open();
    return stage;
  }

  begin(gateway: StagedGateway, serial: number, more: Partial<WorkStart> = {}): StagedWork {
    const start: WorkStart = {
      gateway: gateway.peer,
      run: gateway.run,
      serial,
      request: requestOf(gateway.run, serial),
      model,
      digest,
      price: '',
      bodyBytes: 4_000,
      sent: () => staged.counted,
      acknowledgedTokens: () => staged.acknowledgedTokens,
      ...more,
    };
    const staged: StagedWork = {
      start,
      counted: nothingCounted,
      acknowledgedTokens: 0,
      send(tokens, unacknowledged = 0) {
        staged.counted = { tokens, bytes: 4 * tokens, hasIds: true };
        staged.acknowledgedTokens = Math.max(staged.acknowledgedTokens, tokens - unacknowledged);
      },
      work: { end: (end) => begun.end(end) },
    };
    const begun = this.tabs.begin(start);
    return staged;
  }

  /** An attempt that was answered whole, with that many tokens. */
  whole(gateway: StagedGateway, serial: number, tokens = 20, more: Partial<WorkStart> = {}): StagedWork {
    const work = this.begin(gateway, serial, more);
    work.send(tokens, tokens);
    work.work.end(doneWith(tokens));
    return work;
  }

  /** Lets everything go on that needs no time. */
  async settle(turns = 8): Promise<void> {
    for (let turn = 0; turn < turns; turn += 1) await this.clock.turn();
  }

  codeFor(gateway: StagedGateway): string | undefined {
    return this.tabs.refusal(gateway.peer)?.code;
  }
}

export const doneWith = (completionTokens: number, more: Partial<WorkEnd & { kind: 'done' }> = {}): WorkEnd => ({
  kind: 'done',
  promptTokens: 100,
  cachedTokens: 10,
  completionTokens,
  ...more,
});

export const requestOf = (run: ProcessId, serial: number): RequestId =>
  hexNamed(`request ${run} ${serial}`, 16) as RequestId;

/** A gateway's signature, epoch and chains; what it states is up to the test. */
export class StagedGateway {
  readonly key;
  readonly peer: PeerId;
  readonly epoch: EpochId;
  readonly run: ProcessId;
  readonly link: StagedLink;
  block = 0;
  previousBlock: Uint8Array = noHash;
  number = 0;
  previous: Uint8Array = new Uint8Array(32);
  totals: TabTotals = noTotals;

  constructor(name = 'a gateway', run = 'first') {
    this.key = keyNamed(name);
    this.peer = peerIdOf(this.key.publicKey);
    this.run = runNamed(`${name} ${run}`);
    this.epoch = hexNamed(`epoch ${name} ${run}`, 16) as EpochId;
    this.link = new StagedLink(this.peer, this.run);
  }

  /** One that goes on from here on a branch of its own. */
  branch(): StagedGateway {
    return Object.assign(new StagedGateway(), this);
  }

  line(serial: number, more: Partial<UsageLine> = {}): UsageLine {
    return {
      run: this.run,
      serial,
      first: serial,
      request: requestOf(more.run ?? this.run, serial),
      model,
      digest,
      caller,
      price: freePrice,
      payer: 'account',
      startMs: unixMs(1_700_000_001_000),
      firstMs: ms(5),
      durationMs: ms(50),
      promptTokens: 100,
      cachedTokens: 10,
      completionTokens: 20,
      nodeTokens: 20,
      outcome: 'done',
      ...more,
    };
  }

  /** The next statement of the tab with the node. */
  state(lines: readonly UsageLine[], more: Partial<StatementEntry> = {}): StatementEntry {
    const entry: StatementEntry = {
      kind: 'statement',
      node: nodePeer,
      number: this.number,
      previous: this.previous,
      run: this.run,
      lines,
      running: [],
      progress: [],
      totals: addTotals(this.totals, lines),
      ...more,
    };
    this.number = entry.number + 1;
    this.previous = statementHash(encodeEntry(entry));
    this.totals = entry.totals;
    return entry;
  }

  /** A block with this entry among others. */
  sign(entry: StatementEntry): Block {
    const place = {
      author: authorIdOf(this.key.publicKey),
      epoch: this.epoch,
      generation: 0,
      number: this.block,
      previous: this.previousBlock,
      timeMs: unixMs(1_700_000_000_000 + this.block),
    };
    const entries = [encodeEntry(ban(this.block)), encodeEntry(entry), encodeEntry(ban(this.block + 1_000_000))];
    const block = signBlock(place, entries, { meshId, key: this.key });
    this.block += 1;
    this.previousBlock = block.head.hash;
    return block;
  }

  frame(entry: StatementEntry): StatementFrame {
    return frameOf(this.sign(entry));
  }

  /** States these lines to the node. */
  send(node: NodeStage, lines: readonly UsageLine[], more: Partial<StatementEntry> = {}): StatementFrame {
    const frame = this.frame(this.state(lines, more));
    node.tabs.received(this.link, frame);
    return frame;
  }

  /** What the node has said to it so far: reasons by index, for each statement. */
  get words(): readonly (readonly RefusedLine[])[] {
    return this.link.countersigns(this.peer).map(({ refused }) => refused);
  }
}

export const frameOf = ({ head, entries }: Block): StatementFrame => ({
  type: 'statement',
  header: head.bytes,
  signature: head.signature,
  index: 1,
  entry: entries[1] ?? new Uint8Array(),
  path: merklePath(entries, 1),
});

/** A session with a gateway; notes what it is told. */
export class StagedLink implements WorkLink {
  readonly peer: PeerId;
  readonly peerProcess: ProcessId;
  readonly frames: (CountersignFrame | ClaimFrame)[] = [];

  constructor(peer: PeerId, peerProcess: ProcessId) {
    this.peer = peer;
    this.peerProcess = peerProcess;
  }

  sendTab(frame: CountersignFrame | ClaimFrame): boolean {
    this.frames.push(frame);
    return true;
  }

  /** Signatures are checked. */
  countersigns(gateway: PeerId): CountersignEntry[] {
    return this.frames.flatMap(({ entry: bytes }) => {
      const entry = parseUsage(bytes);
      return entry.kind === 'countersign' && isCountersigned(entry, { meshId, gateway }) ? [entry] : [];
    });
  }

  claims(): ClaimEntry[] {
    return this.frames.flatMap(({ entry: bytes }) => {
      const entry = parseUsage(bytes);
      return entry.kind === 'claim' && isClaimed(entry, meshId) ? [entry] : [];
    });
  }
}
