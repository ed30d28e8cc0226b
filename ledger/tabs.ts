/** Tabs at a gateway: lines made durable, stated, signed, and countersigned by their nodes (design §6). */

import type { HelixFlowError } from '../protocol/errors.ts';
import type { ModelDigest, PeerId, ProcessId, RequestId, Tag } from '../protocol/ids.ts';
import type { ClaimFrame, CountersignFrame, StatementFrame } from '../protocol/messages/tab.ts';
import type { Ms, UnixMs } from '../protocol/units.ts';
import type { Caller, LineOutcome, Payer } from './line.ts';
import type { Price } from './price.ts';
import type { RefusedLine } from './statement.ts';

/** An attempt that goes out to a node. */
export interface AttemptStart {
  readonly node: PeerId;
  readonly request: RequestId;
  /** Serial of the request's first attempt; undefined when this is it. */
  readonly first?: number;
  readonly model: string;
  readonly digest: ModelDigest;
  readonly caller: Caller;
  readonly price: Price;
  /** Of the money lease that it is paid from. */
  readonly lease?: Tag;
  readonly payer: Payer;
}

/** How it ended; counts as in `UsageLine`. */
export interface AttemptEnd {
  readonly outcome: Exclude<LineOutcome, 'running'>;
  /** From the start to the first content; 0 when none came. */
  readonly firstMs: Ms;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly nodeTokens?: number;
}

/** A running attempt, from `begin` to its line. */
export interface OpenLine {
  /** Goes out with the `open` frame. */
  readonly serial: number;
  readonly startMs: UnixMs;
  /** How many tokens have been received so far; stated when the attempt runs for long. Cheap: called for each piece. */
  received(completionTokens: number): void;
  /**
   * Writes the line. `durable` is called once, in a later turn: without an error once the line would survive a power
   * cut. Later calls do nothing.
   */
  end(end: AttemptEnd, durable: (error?: HelixFlowError<'STORE_FAILED'>) => void): void;
  /** The attempt never left this process: it leaves no line. */
  drop(): void;
}

/** A session with a node, as far as tabs need one. */
export interface TabLink {
  readonly peer: PeerId;
  /** @returns false when the channel is backed up; the frame is on its way all the same. */
  sendTab(frame: StatementFrame): boolean;
}

/** One tab, for `status` and metrics. */
export interface TabStatus {
  readonly node: PeerId;
  /** Attempts without a line yet. */
  readonly running: number;
  /** Lines that no statement holds yet. */
  readonly unstated: number;
  /** Statements without a countersignature, younger and older than `limits.attestWaitMs`. */
  readonly waiting: number;
  readonly unattested: number;
  readonly statements: number;
  readonly lines: number;
  readonly refused: number;
}

/** What a node refused, and what others claim of this gateway. */
export interface TabEvents {
  refused?(node: PeerId, lines: readonly RefusedLine[]): void;
  claimed?(node: PeerId, about: PeerId, attempts: number): void;
}

/** All tabs of one gateway process. Statements go out by themselves: each second, and at every 256 lines. */
export interface GatewayTabs {
  readonly run: ProcessId;
  /** Reads what is on disk: lines that were never stated are stated. Call after `Ledger.open`. @throws HelixFlowError STORE_FAILED */
  open(): Promise<void>;
  /** Why no new work may begin: lines cannot be written; undefined while they can. */
  refusal(): HelixFlowError<'USAGE_UNRECORDED'> | undefined;
  begin(start: AttemptStart): OpenLine;
  /** A session with a node became the one to use: what it has not countersigned is sent again. */
  ready(link: TabLink): void;
  gone(link: TabLink): void;
  /** What a node said. @throws HelixFlowError FRAME_MALFORMED, PROTOCOL_VIOLATION: end the session. */
  received(node: PeerId, frame: CountersignFrame | ClaimFrame): void;
  status(): readonly TabStatus[];
  /** States what is left, as far as this process may sign, and waits until it is on disk. */
  close(): Promise<void>;
}
