/** What is on disk when a process starts: every chain checked, what does not check set aside as a hole. */

import { isSameBytes } from '../protocol/crypto.ts';
import type { MeshId } from '../protocol/ids.ts';
import type { Store, StoreOp } from '../protocol/ports.ts';
import { type Block, type BlockPlace, isFork, isSigned, type OpenBlock, type SignedHeader } from './block.ts';
import { type CheckedBlock, checkContents, sizeOfBlock } from './feed-blocks.ts';
import { checkPruned } from './feed-prune.ts';
import { blockKey, feedKeys, isLiftRow, proofKey, readBlockRow, readKey, readProofRow, rowKinds } from './feed-rows.ts';
import type { FeedState } from './feed-state.ts';
import type { OpenReport } from './feeds.ts';

/** Damage that is told by place; a disk that is worse is told by its first ones. */
const damagedMax = 1_000;
/** Blocks in a row that wait for the signature of the last of them, which vouches for all. */
const vouchedMax = 256;
const vouchedMaxBytes = 262_144;

interface CheckOptions {
  readonly meshId: MeshId;
  readonly holds: 'all' | 'open';
}

type Damage = OpenReport['damaged'][number];

/** One pass over the rows; whoever hands them over ends with `vouch`. */
export class FeedCheck {
  readonly #options: CheckOptions;
  readonly #state: FeedState;
  readonly #good: (block: CheckedBlock) => void;
  readonly damaged: Damage[] = [];
  readonly removals: StoreOp[] = [];
  blocks = 0;
  entries = 0;
  /** The last good block of the epoch at hand, or the last that waits. */
  #last: SignedHeader | undefined;
  #vouched: SignedHeader | undefined;
  /** Good ones so far, whose newest signature is yet to be checked. */
  #waiting: CheckedBlock[] = [];
  #waitingBytes = 0;
  #lastDamaged: BlockPlace | undefined;

  constructor(options: CheckOptions, state: FeedState, good: (block: CheckedBlock) => void) {
    this.#options = options;
    this.#state = state;
    this.#good = good;
  }

  #note({ author, epoch, number }: BlockPlace, reason: string): void {
    this.#lastDamaged = { author, epoch, number };
    if (this.damaged.length < damagedMax) this.damaged.push({ author, epoch, number, reason });
  }

  #drop(key: Uint8Array, reason: string): void {
    this.#note(readKey(key), reason);
    this.removals.push({ type: 'del', key });
  }

  /** A row that holds a fork proof or a lift. */
  takeFork(key: Uint8Array, row: Uint8Array): void {
    const { kind, author, epoch } = readKey(key);
    if (kind === 'lift' && isLiftRow(key, row)) {
      this.#state.lift(author, epoch);
      return;
    }
    const proof = kind === 'proof' ? readProofRow(key, row) : undefined;
    const isAtPlace = proof !== undefined && isSameBytes(proofKey(proof.a.header.author, proof.a.header.epoch), key);
    if (isAtPlace && isFork(proof, this.#options.meshId)) this.#state.setProof(proof);
    else this.#drop(key, kind === 'lift' ? 'lift' : 'proof');
  }

  /** Any other row, in the order of its key. */
  takeBlock(key: Uint8Array, row: Uint8Array): void {
    const place = readKey(key);
    if (place.kind === 'lift' || place.kind === 'proof') return;
    const last = this.#last?.header;
    const isSameEpoch = last?.author === place.author && last.epoch === place.epoch;
    // A damaged table may show a row twice.
    if (isSameEpoch && place.number <= last.number) return;
    const block = place.kind === 'block' ? readBlockRow(key, row) : undefined;
    const pruned = place.kind === 'block' && block === undefined ? checkPruned(key, row) : undefined;
    if (pruned !== undefined) this.#takeChecked(key, pruned, isSameEpoch ? last : undefined);
    else if (block === undefined) this.#drop(key, 'row');
    else this.#takeWhole(key, block, isSameEpoch ? last : undefined);
  }

  #takeWhole(key: Uint8Array, block: Block | OpenBlock, last: BlockPlace | undefined): void {
    const { head } = block;
    if (this.#options.holds === 'all' && !('entries' in block)) {
      this.#note(head.header, 'only its open part');
      return;
    }
    const checked = checkContents(block, head, this.#options.holds);
    if (checked === undefined) this.#drop(key, 'contents');
    else this.#takeChecked(key, checked, last);
  }

  /** A block that is what its header says. */
  #takeChecked(key: Uint8Array, checked: CheckedBlock, last: BlockPlace | undefined): void {
    const { head } = checked;
    if (last?.number !== head.header.number - 1) this.vouch();
    const before = this.#lastIn(head.header);
    const { number, generation, previous } = head.header;
    const isNext = before?.header.number === number - 1;
    const hasGeneration = before === undefined || before.header.generation === generation;
    if (!hasGeneration || (isNext && !isSameBytes(before.hash, previous))) {
      this.#drop(key, 'chain');
      return;
    }
    if (!isNext) this.#noteHole(head.header, before === undefined ? 0 : before.header.number + 1);
    this.#wait(checked);
  }

  /** The last block, if it is of the same epoch. */
  #lastIn({ author, epoch }: BlockPlace): SignedHeader | undefined {
    const last = this.#last;
    return last?.header.author === author && last.header.epoch === epoch ? last : undefined;
  }

  #noteHole({ author, epoch, number }: BlockPlace, from: number): void {
    const known = this.#lastDamaged;
    const isTold = known?.author === author && known.epoch === epoch && known.number >= from && known.number < number;
    if (from < number && !isTold) this.#note({ author, epoch, number: from }, 'missing');
  }

  #wait(checked: CheckedBlock): void {
    this.#waiting.push(checked);
    this.#waitingBytes += sizeOfBlock(checked.block);
    this.#last = checked.head;
    if (this.#waiting.length >= vouchedMax || this.#waitingBytes >= vouchedMaxBytes) this.vouch();
  }

  /** The newest signature that checks vouches, through the hashes, for all blocks before it. */
  vouch(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    while (waiting.length > 0 && !isSigned((waiting.at(-1) as CheckedBlock).head, this.#options.meshId)) {
      this.#drop(blockKey((waiting.pop() as CheckedBlock).head.header), 'signature');
      this.#last = waiting.at(-1)?.head ?? this.#vouched;
    }
    for (const checked of waiting) {
      const epoch = this.#state.begin(checked.head.header);
      epoch.head = epoch.add(checked.head);
      this.blocks += 1;
      this.entries += checked.entries.length;
      this.#good(checked);
      this.#vouched = checked.head;
    }
  }
}

const rangeOf = (kind: number) => ({
  gte: Uint8Array.of(...feedKeys.gte, kind),
  lt: Uint8Array.of(...feedKeys.gte, kind + 1),
});

/**
 * Reads all rows, fills `state`, and hands each block that checks to `good`, in order, forks and lifts being known.
 * Rows that do not check are removed: whoever has their blocks will give them again.
 * @throws HelixFlowError STORE_FAILED
 */
export async function checkFeeds(
  deps: { readonly store: Store; readonly state: FeedState },
  options: CheckOptions,
  good: (block: CheckedBlock) => void,
): Promise<OpenReport> {
  const { store, state } = deps;
  const check = new FeedCheck(options, state, good);
  for (const kind of [rowKinds.lift, rowKinds.proof]) {
    for await (const [key, row] of store.range(rangeOf(kind))) check.takeFork(key, row);
  }
  for await (const [key, row] of store.range(feedKeys)) check.takeBlock(key, row);
  check.vouch();
  if (check.removals.length > 0) await store.batch(check.removals, { sync: false });
  return { blocks: check.blocks, entries: check.entries, damaged: check.damaged };
}
