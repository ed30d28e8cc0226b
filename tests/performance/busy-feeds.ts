/** Feeds as busy gateways leave them: statements of lines by many callers, each with its node's countersignature. */

import { type Block, type BlockHeader, noHash, signBlock } from '../../ledger/block.ts';
import { type AuthorEntry, type Entry, encodeEntry } from '../../ledger/entry.ts';
import type { Caller, UsageLine } from '../../ledger/line.ts';
import type { Price } from '../../ledger/price.ts';
import {
  addTotals,
  type CountersignEntry,
  noTotals,
  type StatementEntry,
  signCountersign,
  statementHash,
  type TabTotals,
} from '../../ledger/statement.ts';
import { keyFromSeed, sha256, toHex } from '../../protocol/crypto.ts';
import type {
  AuthorId,
  EpochId,
  MeshId,
  ModelDigest,
  PeerId,
  PriceId,
  ProcessId,
  RequestId,
  Tag,
} from '../../protocol/ids.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import type { SigningKey } from '../../protocol/ports.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { SimRandom } from '../../sim/random.ts';

const dayMs = 86_400_000;
const hexNamed = (name: string, bytes: number): string => toHex(sha256(name).subarray(0, bytes));
const many = <T>(count: number, make: (at: number) => T): T[] => Array.from({ length: count }, (_, at) => make(at));

/** One that works for few accounts much, and for many a little. */
export class Callers {
  readonly #random: SimRandom;
  readonly #callers: readonly Caller[];

  constructor(random: SimRandom, day: number, keys = 1_000) {
    this.#random = random;
    const tagOf = (name: string): Tag => hexNamed(`${name} ${day}`, 8) as Tag;
    this.#callers = many(keys, (at) => ({ day, account: tagOf(`account ${at % 300}`), key: tagOf(`key ${at}`) }));
  }

  draw(): Caller {
    const at = Math.floor(this.#callers.length * this.#random.float() ** 3);
    return this.#callers[at] as Caller;
  }
}

interface TabEnd {
  readonly number: number;
  readonly previous: Uint8Array;
  readonly totals: TabTotals;
}

interface BusyNode {
  readonly key: SigningKey;
  readonly peer: PeerId;
  readonly model: string;
  readonly digest: ModelDigest;
  readonly price: Price;
  end: TabEnd;
}

function busyNode(at: number): BusyNode {
  const key = keyFromSeed(sha256(`busy node ${at}`));
  const model = `model-${at % 12}`;
  return {
    key,
    peer: peerIdOf(key.publicKey),
    model,
    digest: hexNamed(model, 32) as ModelDigest,
    price: { id: hexNamed(model, 8) as PriceId, prompt: 1_000_000, cached: 100_000, completion: 3_000_000 },
    end: { number: 0, previous: new Uint8Array(32), totals: noTotals },
  };
}

export interface BusyFeed {
  readonly meshId: MeshId;
  readonly key: SigningKey;
  readonly author: AuthorId;
  readonly first: AuthorEntry;
  readonly lines: number;
  readonly linesPerStatement: number;
  /** Each states its lines in every block. */
  readonly nodes: number;
}

/** One block a second: a statement for each node, and the words of nodes on those of the second before. */
export function* busyBlocks(feed: BusyFeed): Generator<Block> {
  const { meshId, key, author, linesPerStatement } = feed;
  const random = new SimRandom(`busy ${author}`);
  const startMs = Date.now() - dayMs;
  const callers = new Callers(random, Math.floor(startMs / dayMs));
  const nodes = many(feed.nodes, (at) => busyNode(at));
  const epoch = hexNamed(`epoch ${author}`, 16) as EpochId;
  const run = hexNamed(`run ${author}`, 16) as ProcessId;
  const gateway = peerIdOf(key.publicKey);
  let serial = 0;
  let previous: Uint8Array = noHash;
  let words: CountersignEntry[] = [];

  const lineAt = (node: BusyNode, atMs: number): UsageLine => {
    serial += 1;
    const completionTokens = random.int(500);
    const isCancelled = random.int(50) === 0;
    return {
      run,
      serial,
      first: serial,
      request: toHex(random.bytes(16)) as RequestId,
      model: node.model,
      digest: node.digest,
      caller: callers.draw(),
      price: node.price,
      payer: 'account',
      startMs: unixMs(atMs + random.int(1_000)),
      firstMs: ms(20 + random.int(500)),
      durationMs: ms(200 + random.int(20_000)),
      promptTokens: 20 + random.int(4_000),
      cachedTokens: random.int(20),
      completionTokens,
      nodeTokens: completionTokens,
      outcome: isCancelled ? 'cancelled' : 'done',
    };
  };
  const state = (node: BusyNode, atMs: number, count: number): StatementEntry => {
    const lines = many(count, () => lineAt(node, atMs));
    const totals = addTotals(node.end.totals, lines);
    const { number, previous: before } = node.end;
    return {
      kind: 'statement',
      ...{ node: node.peer, number, previous: before, run, lines, running: [], progress: [], totals },
    };
  };
  for (let number = 0; serial < feed.lines || words.length > 0; number += 1) {
    const atMs = startMs + number * 1_000;
    const timeMs = unixMs(atMs + 1_000);
    const said: CountersignEntry[] = [];
    const entries: Entry[] = number === 0 ? [feed.first] : [];
    const encoded: Uint8Array[] = [];
    for (const node of serial < feed.lines ? nodes : []) {
      const entry = state(node, atMs, Math.min(linesPerStatement, feed.lines - serial));
      const bytes = encodeEntry(entry);
      const hash = statementHash(bytes);
      node.end = { number: entry.number + 1, previous: hash, totals: entry.totals };
      encoded.push(bytes);
      const word = { kind: 'countersign', node: node.peer, epoch, number: entry.number } as const;
      said.push(signCountersign({ ...word, statement: hash, refused: [], timeMs }, { meshId, gateway }, node.key));
      if (serial >= feed.lines) break;
    }
    const header: Omit<BlockHeader, 'root' | 'count' | 'openCount'> = {
      ...{ author, epoch, number, generation: 0, previous, timeMs },
    };
    const block = signBlock(header, [...entries.map(encodeEntry), ...encoded, ...words.map(encodeEntry)], {
      meshId,
      key,
    });
    previous = block.head.hash;
    words = said;
    yield block;
  }
}
