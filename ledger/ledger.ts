/** The ledger of one peer: its feeds, what they come to, and their exchange with others. */

import type { Role, Succession } from '../protocol/grants.ts';
import type { AuthorId, EpochId, IssuerId, MeshId, PeerId } from '../protocol/ids.ts';
import type { IssuerRecord } from '../protocol/mesh.ts';
import type { PeerInfo } from '../protocol/peer/hello.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import type { Cancel, Clock, Connection, Log, Network, Random, SigningKey, Store, Tokens } from '../protocol/ports.ts';
import type { UnixMs } from '../protocol/units.ts';
import type { Audit } from './audit.ts';
import type { Block, BlockPlace, ForkProof, OpenBlock } from './block.ts';
import type { Entry } from './entry.ts';
import type { EntryPlace, EpochHead, HeldEntry, OpenReport } from './feeds.ts';
import type { Standing, StandingChange } from './standing.ts';

export interface LedgerPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly network: Network;
  readonly store: Store;
  readonly tokens: Tokens;
  readonly log: Log;
}

export interface LedgerOptions {
  readonly role: Role;
  readonly meshId: MeshId;
  /** This peer's identity; a gateway's own feed is signed with it. */
  readonly key: SigningKey;
  /** What this gateway shows in its hello; proves that it may write. Undefined until it is a member. */
  readonly credentials: () => { readonly certificate: string; readonly membership: string } | undefined;
  /** The issuer's key, where this gateway holds it. */
  readonly issuer?: IssuerRecord;
  readonly roots: Roots;
  /** Told of forks; nothing is told without it. */
  readonly audit?: Audit;
  /**
   * Whether others are asked what this process wrote before, until which nothing is signed; when it has written, unless
   * this says otherwise. False for one that nobody has ever heard of, and for a command, which has no connections;
   * true for an issuer whose store may know less than others do, as after a restore.
   */
  readonly recovers?: boolean;
}

/** The newest that is known of an issuer. */
export interface Freshness {
  /** The issuer vouched for everything held here at this moment of its clock; undefined when it never did. */
  readonly asOfMs: UnixMs | undefined;
  /** A heartbeat from further ahead than `limits.clockSkewMaxMs` came and was not counted. */
  readonly hasFutureHeartbeat: boolean;
}

/** What `status` shows. */
export interface LedgerStatus {
  readonly authors: number;
  readonly blocks: number;
  readonly open: OpenReport;
  readonly frozen: readonly AuthorId[];
  /** Where each frozen author has forked; what a `lift` names. */
  readonly forks?: readonly BlockPlace[];
  readonly issuers: readonly {
    readonly issuer: IssuerId;
    /** The gateway that holds its key, as its newest heartbeat says. */
    readonly holder: PeerId | undefined;
    readonly asOfMs: UnixMs | undefined;
    readonly isRevoked: boolean;
    /** The newest block of its feed that is held here; what a handover names. */
    readonly newest?: { readonly epoch: EpochId; readonly number: number };
    /** Whom it took over from by a handover. */
    readonly succeeds?: Succession;
    /** The issuer that has its authority now, when the root has handed it over. */
    readonly succeededBy?: IssuerId;
  }[];
  /** Whether this process may sign: `ready`, or still asking others what it wrote before. */
  readonly writing: 'ready' | 'recovering' | 'none';
}

/**
 * Installs `/helixflow/ledger/1` on the network; create it before the network's `start`, and `open` it before anything
 * is answered. Give it every admitted connection.
 */
export interface Ledger {
  readonly standing: Standing;
  readonly roots: Roots;
  /** Reads and checks what is on disk. A second call does nothing. @throws HelixFlowError STORE_FAILED */
  open(): Promise<OpenReport>;
  /** A connection was admitted: exchanges begin on it. */
  admitted(connection: Connection, info: PeerInfo): void;
  /** Neither banned, nor admitted by an issuer that the root took back. */
  isMember(membership: { readonly peer: PeerId; readonly issuer: IssuerId }): boolean;
  /** How fresh this peer is, for keys of this issuer. An own issuer is always fresh. */
  freshness(issuer: IssuerId): Freshness;
  /** True where all is held that handovers name of the feeds of this issuer and its successors; so too without any. */
  holdsBefore(issuer: IssuerId): boolean;
  /** The author whose entries count for an issuer's grants: itself, then those that succeeded it, oldest first. */
  authorsOf(issuer: IssuerId): readonly AuthorId[];
  /** Where an issuer's key is held, as its newest heartbeat says. */
  holderOf(issuer: IssuerId): PeerId | undefined;
  /**
   * Appends to the issuer's feed, or to this gateway's own. Waits for recovery, at most `limits.recoveryWaitMs`.
   * @throws HelixFlowError as `OwnFeed.append`; ISSUER_MISSING; LEDGER_UNREADY when closing.
   */
  append(as: 'issuer' | 'gateway', entries: readonly Entry[]): Promise<readonly EntryPlace[]>;
  /** Calls `listener` with every change of the standing, and (kind `roots`) of who the root has named. */
  onChange(listener: (change: StandingChange | { readonly kind: 'roots' }) => void): Cancel;
  /** Calls `listener` with every entry that is, or becomes, held; those on disk are told by `open`, so register before. */
  onEntry(listener: (held: HeldEntry) => void): Cancel;
  /** Calls `listener` with every block that is added to the disk from now on, before the `append` that made it resolves. */
  onBlock(listener: (block: Block | OpenBlock) => void): Cancel;
  /** The epochs held here, each as far as it has no hole. */
  heads(): readonly EpochHead[];
  /** As `Feeds.read`: blocks of an epoch from `from` on, up to `maxBytes` of them and at least one if held. */
  read(author: AuthorId, epoch: EpochId, from: number, maxBytes: number): Promise<readonly (Block | OpenBlock)[]>;
  /** The author of this gateway's own feed, or the issuer's, and the epoch that it writes now; undefined before its first entry. */
  own(as?: 'issuer' | 'gateway'): { readonly author: AuthorId; readonly epoch: EpochId | undefined } | undefined;
  /** Opens the epoch of this gateway's own feed, where nothing was written yet. @throws HelixFlowError as `append` */
  begin(): Promise<EpochId>;
  /** True where this process holds this author's key. */
  isOwn(author: AuthorId): boolean;
  /** Two headers of one place were seen: keeps the proof where it is news, and tells everyone. */
  report(proof: ForkProof): Promise<void>;
  status(): LedgerStatus;
  /** Ends exchanges and writing; what was appended is on disk when it resolves. */
  close(): Promise<void>;
}
