/** Tabs at a node: what it did for each gateway, checked against what the gateway states of it (design §6). */

import type { Counted } from '../protocol/counting.ts';
import type { HelixFlowError } from '../protocol/errors.ts';
import type { EpochId, ModelDigest, PeerId, PriceId, ProcessId, RequestId } from '../protocol/ids.ts';
import type { ClaimFrame, CountersignFrame, StatementFrame } from '../protocol/messages/tab.ts';
import type { Ms } from '../protocol/units.ts';

/** An attempt that a gateway opened here. */
export interface WorkStart {
  readonly gateway: PeerId;
  /** The gateway's process, and the attempt among those it made. */
  readonly run: ProcessId;
  readonly serial: number;
  readonly request: RequestId;
  readonly model: string;
  readonly digest: ModelDigest;
  readonly price: PriceId | '';
  /** Of the whole body without its resume: the prompt cannot be charged as more. */
  readonly bodyBytes: number;
  /** What was sent so far, and how much of it the gateway says to hold. */
  readonly sent: () => Counted;
  readonly acknowledgedTokens: () => number;
}

/** What the node told of the attempt's end. */
export type WorkEnd =
  | {
      readonly kind: 'done';
      readonly promptTokens: number;
      readonly cachedTokens: number;
      readonly completionTokens: number;
    }
  | { readonly kind: 'cancelled'; readonly promptTokens: number; readonly completionTokens: number }
  | { readonly kind: 'failed' };

export interface OpenWork {
  /** Notes the end; written to disk soon, without waiting. Later calls do nothing. */
  end(end: WorkEnd): void;
}

/** A session with a gateway, as far as tabs need one. */
export interface WorkLink {
  readonly peer: PeerId;
  /** Which of its processes it is. */
  readonly peerProcess?: ProcessId | undefined;
  /** It owes no sign of life: only such time counts as connected. Absent: it never does. */
  readonly isResponsive?: boolean;
  readonly isStale?: boolean;
  sendTab(frame: CountersignFrame | ClaimFrame): boolean;
}

/** One gateway as the node sees it. */
export interface WorkStatus {
  readonly gateway: PeerId;
  readonly running: number;
  /** Ended attempts that no verified statement covers, and the age of the oldest work in connected time. */
  readonly uncovered: number;
  readonly uncoveredMs: Ms;
  readonly statements: number;
  readonly lines: number;
  readonly refused: number;
  readonly claimed: number;
  /** The newest statement that was verified. */
  readonly newest?: { readonly epoch: EpochId; readonly number: number };
}

/** The tabs of one node. */
export interface NodeTabs {
  /** @throws HelixFlowError STORE_FAILED */
  open(): Promise<void>;
  /** Why no new attempt of this gateway is taken now; undefined while they are. */
  refusal(gateway: PeerId): HelixFlowError<'TAB_UNCOVERED'> | undefined;
  begin(start: WorkStart): OpenWork;
  ready(link: WorkLink): void;
  gone(link: WorkLink): void;
  /** Checks a statement, then countersigns it on `link`. @throws HelixFlowError FRAME_MALFORMED, PROTOCOL_VIOLATION: end the session. */
  received(link: WorkLink, frame: StatementFrame): void;
  status(): readonly WorkStatus[];
  /** Words on statements wait for the disk, and are sent once they are there. */
  hasUnsent(): boolean;
  close(): Promise<void>;
}
