/** Every feed this peer holds: blocks checked, stored and chained, its own written, forks proven and frozen. */

import type { AuthorId, EpochId, MeshId } from '../protocol/ids.ts';
import type { Clock, Log, Random, SigningKey, Store } from '../protocol/ports.ts';
import type { UnixMs } from '../protocol/units.ts';
import type { Block, BlockPlace, ForkProof, OpenBlock, SignedHeader } from './block.ts';
import type { AuthorEntry, Entry } from './entry.ts';

/** Where an entry stands; later ones of one author outrank earlier ones: by generation, epoch, number, index. */
export interface EntryPlace extends BlockPlace {
  readonly generation: number;
  readonly index: number;
  /** When its block was signed, by its author's clock. */
  readonly timeMs: number;
  /** The author has forked in this epoch, at or before this block: what it gives back does not count (design §6). */
  readonly isAfterFork: boolean;
}

/** How far this peer holds an epoch without a hole. */
export interface EpochHead {
  readonly author: AuthorId;
  readonly epoch: EpochId;
  readonly generation: number;
  /** Of the last block before the first hole. */
  readonly number: number;
  readonly head: SignedHeader;
}

/**
 * What became of a block: `new` is on disk (synced); `known` was there before; `gap` lacks the one before it, or follows
 * another one than is held (whoever has it has the other one too: asking for number − 1 finds the fork);
 * `forked` contradicts one that is held (the proof is kept); `frozen` comes from an author that has forked;
 * `refused` has an author that may not write, or none of the places that are left for authors and epochs; `invalid` is none.
 */
export type Acceptance = 'new' | 'known' | 'gap' | 'forked' | 'frozen' | 'refused' | 'invalid';

/** An entry that has just become known, or was found at the start. */
export interface HeldEntry {
  readonly entry: Entry;
  /** As its author wrote it; what its hash is made of. */
  readonly bytes: Uint8Array;
  readonly place: EntryPlace;
}

export interface FeedsEvents {
  /**
   * Every entry, once; epochs and authors in any order, those of an epoch in theirs (what fills a hole comes after what
   * follows the hole, which counts all along). Called before `accept` resolves.
   */
  entry(held: HeldEntry): void;
  /** A block was added to the disk: pass it on. `block` of a node's own feeds holds open entries only. */
  added(block: Block | OpenBlock): void;
  /**
   * An author has forked; comes once for each epoch, and again when it turns out to have forked earlier in it: pass it on.
   * The entries after the fork are then told again, with `isAfterFork`.
   */
  forked(proof: ForkProof): void;
}

export interface FeedsDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface FeedsOptions {
  readonly meshId: MeshId;
  /** `all`: whole blocks (gateways). `open`: headers, and open entries with their proofs (nodes). */
  readonly holds: 'all' | 'open';
  /**
   * Whether this author may write, judged by the first entry of an epoch (its tokens are checked here).
   * `atMs` is the time of that entry's block: what has expired since was good then.
   */
  readonly mayWrite: (author: AuthorId, first: AuthorEntry, atMs: UnixMs) => Promise<boolean>;
  /** Authors that the root has named: proofs about them are the last to make room for others. */
  readonly isNamed?: (author: AuthorId) => boolean;
}

/** What `Feeds.open` found on disk. */
export interface OpenReport {
  readonly blocks: number;
  readonly entries: number;
  /** Blocks that do not check, by place; they are asked for again. */
  readonly damaged: readonly (BlockPlace & { readonly reason: string })[];
}

/** The feeds of one process. All writing is serialised; reading is not. */
export interface Feeds {
  /**
   * Checks every chain on disk: hashes, Merkle roots, the newest signature of each epoch; tells every good entry.
   * Damaged blocks become holes. Call once, before anything else.
   * @throws HelixFlowError STORE_FAILED
   */
  open(): Promise<OpenReport>;
  /** One for each epoch that has a block 0, in a stable order. */
  heads(): readonly EpochHead[];
  headOf(author: AuthorId, epoch: EpochId): EpochHead | undefined;
  /** Of the epochs of an author, the one with the highest generation (then epoch id). */
  newestOf(author: AuthorId): EpochHead | undefined;
  /** The header at this place, if it is held. */
  headerAt(place: BlockPlace): Promise<SignedHeader | undefined>;
  /**
   * Checks a block that came from elsewhere and stores it, synced. Never throws for what a peer sent. Blocks handed over
   * without waiting for the one before share a sync: hand over a whole window, in order, then wait for all.
   * @throws HelixFlowError STORE_FAILED; LEDGER_UNREADY after `close`.
   */
  accept(block: Block | OpenBlock): Promise<Acceptance>;
  /** Blocks of an epoch from `from` on, whole ones at a gateway, up to `maxBytes` of them and at least one if held. */
  read(author: AuthorId, epoch: EpochId, from: number, maxBytes: number): Promise<readonly (Block | OpenBlock)[]>;
  /**
   * Checks and keeps a proof from elsewhere; one about an author of whom nothing is held counts (and is told to `forked`)
   * from that author's first block on.
   * @returns true when it is valid and new. @throws HelixFlowError as `accept`.
   */
  acceptProof(proof: ForkProof): Promise<boolean>;
  proofs(): readonly ForkProof[];
  isFrozen(author: AuthorId): boolean;
  /** The root lifts the freeze: other epochs than this one may grow again. @throws HelixFlowError as `accept`. */
  lift(author: AuthorId, epoch: EpochId): Promise<void>;
  /** Opens a feed of this process; its epoch begins with the first `append`. */
  write(key: SigningKey, first: (after: EpochHead | undefined) => AuthorEntry): OwnFeed;
  /** Ends writing; what was appended before is on disk when it resolves. The store stays with its owner. */
  close(): Promise<void>;
}

/** The one writer of one author in this process. */
export interface OwnFeed {
  readonly author: AuthorId;
  /** Undefined until something was written. */
  readonly epoch: EpochId | undefined;
  /**
   * Signs and stores entries as one part of one block; those of one turn (and of a write under way) share a block and
   * its sync; more than a block holds become several, stored all or none. Resolves with their places once they would
   * survive a power cut; only then is the block told to `added`.
   * @throws HelixFlowError STORE_FAILED; FEED_FROZEN when this author has forked; FRAME_TOO_LARGE for an entry;
   *   LEDGER_UNREADY after `close`, and when the author has used up its epochs; and what `first` throws.
   */
  append(entries: readonly Entry[]): Promise<readonly EntryPlace[]>;
  /** Opens the epoch, where nothing was written yet: its first entry goes out alone. @throws HelixFlowError as `append` */
  begin(): Promise<EpochId>;
}
