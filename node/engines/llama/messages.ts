/** What the engine and its child process say to each other, over Node's IPC channel. Both run the same version. */

import type { ErrorCode, ErrorDetails } from '../../../protocol/errors.ts';
import type { ChatRequest } from '../../../protocol/messages/chat.ts';
import type { EngineDelta, EngineDone, Resume } from '../../../protocol/ports.ts';

/** The sha256 of one weights file, good as long as size and time of the file stay the same. */
export interface FileHash {
  readonly path: string;
  readonly bytes: number;
  readonly modifiedMs: number;
  readonly sha256: string;
}

export interface LoadRequest {
  readonly modelPath: string;
  readonly slots: number | undefined;
  readonly contextTokens: number | undefined;
  readonly gpu: 'auto' | 'off';
  readonly threads: number | undefined;
  /** Hashes that need not be computed again. */
  readonly known: readonly FileHash[];
}

export interface Loaded {
  readonly weights: readonly FileHash[];
  readonly chatTemplate: string;
  readonly contextTokens: number;
  readonly slots: number;
  readonly build: string;
}

export interface WireError {
  readonly code: ErrorCode;
  readonly details: ErrorDetails[ErrorCode];
}

export type ToChild =
  | { readonly type: 'load'; readonly load: LoadRequest }
  | { readonly type: 'generate'; readonly id: number; readonly chat: ChatRequest; readonly resume: Resume | undefined }
  | { readonly type: 'cancel'; readonly id: number }
  /** The consumer has taken `count` more deltas. */
  | { readonly type: 'taken'; readonly id: number; readonly count: number };

export type FromChild =
  | { readonly type: 'loaded'; readonly loaded: Loaded }
  | { readonly type: 'refused'; readonly error: WireError }
  | ({ readonly type: 'delta'; readonly id: number } & EngineDelta)
  /** Tokens computed or generated since the last such message, over all answers. */
  | { readonly type: 'worked'; readonly tokens: number }
  | { readonly type: 'done'; readonly id: number; readonly done: EngineDone }
  | { readonly type: 'failed'; readonly id: number; readonly error: WireError };

/** While it works, the child says so at most this often, for all answers together. */
export const workedIntervalMs = 250;
/** Deltas that the child may be ahead of the consumer of one answer. */
export const windowDeltas = 128;
/** After this many taken deltas the child is told. */
export const takenDeltas = 32;
