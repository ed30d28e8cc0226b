/** The doors to the real world: types only. Each has a real adapter, a simulated one, and a contract suite that both pass. */

import type { HelixFlowError } from './errors.ts';
import type { IssuerId, MeshId, ModelDigest, PeerId } from './ids.ts';
import type { ChatRequest } from './messages/chat.ts';
import type { Ms, UnixMs } from './units.ts';

/** Takes back a timer, a listener or an advertisement. Calling it twice does nothing. */
export type Cancel = () => void;

/** A limit in time that can be taken back. */
export interface Deadline extends Disposable {
  /** Aborts with a `HelixFlowError` DEADLINE_EXCEEDED, or with the parent's reason. */
  readonly signal: AbortSignal;
}

/** Time; the only source of it. */
export interface Clock {
  /** Time since an arbitrary origin; never goes back. For durations and deadlines. */
  nowMs(): Ms;
  /** The wall clock; may jump. For moments that leave this process. */
  wallMs(): UnixMs;
  /** Resolves after `delay`; rejects with `signal.reason` if that aborts first. */
  sleep(delay: Ms, signal?: AbortSignal): Promise<void>;
  /** Calls `fire` once after `delay`, unless cancelled. Never keeps the process alive by itself. */
  timer(delay: Ms, fire: () => void): Cancel;
  /** A signal that aborts after `delay` or with `parent`; dispose it to free the timer. */
  deadline(delay: Ms, parent?: AbortSignal): Deadline;
  /** Resolves after everything that is ready to be read now has been read: one full turn of the event loop. */
  turn(): Promise<void>;
}

/** Chance. `fork` gives each component its own stream, so that a new draw in one never shifts another. */
export interface Random {
  /** Uniform integer in [0, exclusiveMax); `exclusiveMax` from 1 to 2^32. */
  int(exclusiveMax: number): number;
  /** Uniform in [0, 1). */
  float(): number;
  /** `count` random bytes. The real adapter's are fit for keys. */
  bytes(count: number): Uint8Array;
  fork(label: string): Random;
}

/** What a channel tells its owner. Calls arrive one at a time, never before `receive` returns. */
export interface ChannelEvents {
  /** One whole frame, at most `frameMaxBytes` long; valid only until the call returns, so copy what is kept. */
  frame(bytes: Uint8Array): void;
  /**
   * The channel is gone; nothing follows. `undefined` after a clean `end` of both sides' writing, which
   * is no proof that the peer had finished: a cut connection may look clean (design §4).
   */
  closed(error: HelixFlowError | undefined): void;
  /** Bytes waiting to be written fell below the high-water mark after `send` had returned false. */
  drained(): void;
}

/** A framed, ordered, reliable byte channel to one peer, on one connection, for one protocol. */
export interface Channel {
  readonly connection: Connection;
  readonly protocol: string;
  /**
   * Queues one frame; all frames of one turn of the event loop leave as one write.
   * The bytes belong to the channel afterwards. Does nothing on a closed channel.
   * @returns false when more than `limits.channelHighWaterBytes` wait; `drained` will follow.
   */
  send(frame: Uint8Array): boolean;
  /** Sets the owner, once. Frames that came earlier are handed over first. */
  receive(events: ChannelEvents): void;
  /** Writes what is queued, then closes our writing side. */
  end(): void;
  /** Closes both sides at once; `closed` is called with `error`. What is queued may be lost. */
  abort(error: HelixFlowError): void;
}

/**
 * How a connection came about: `direct`; `reversed`, which is direct and was dialled by the other side of a relayed one,
 * since the dialler of that could not; `relayed`, through a third peer that sees nothing but ciphertext.
 */
export type ConnectionPath = 'direct' | 'reversed' | 'relayed';

/** One authenticated, encrypted connection to one peer. */
export interface Connection {
  /** Unique in this process. */
  readonly id: number;
  readonly peer: PeerId;
  readonly direction: 'inbound' | 'outbound';
  readonly path: ConnectionPath;
  /** The other side's address in text form; for logs and `mesh peers` only. */
  readonly remoteAddress: string;
  readonly isOpen: boolean;
  /** True after `admit`. */
  readonly isAdmitted: boolean;
  /** Opens every handler and the directory to this peer. Until then only `beforeAdmission` protocols pass. */
  admit(): void;
  /**
   * Opens a channel. Protocols other than `beforeAdmission` ones wait for the other side's admission.
   * @throws HelixFlowError CHANNEL_CLOSED when the peer refuses or is gone.
   */
  open(protocol: string, signal: AbortSignal): Promise<Channel>;
  /** Calls `listener` once when the connection is gone (at once if it is). */
  onClose(listener: () => void): void;
  /** Closes the connection and every channel on it. */
  close(): Promise<void>;
  /** As `close`, but nothing more is read, served or written meanwhile: for a peer that is a member no more. */
  abort?(): void;
}

export interface HandlerOptions {
  /** True only for hello and admit: reachable by peers that are not (yet) members. */
  readonly beforeAdmission: boolean;
  /** The longest frame accepted; a longer one closes the channel with FRAME_TOO_LARGE. */
  readonly frameMaxBytes: number;
}

/** Connections to other peers, by their identity. */
export interface Network {
  readonly self: PeerId;
  /**
   * Where others can reach this peer, as multiaddrs in text form without the peer id: its own first, then those through
   * the relays that it has reserved with; may change.
   */
  addresses(): readonly string[];
  connections(): readonly Connection[];
  /** Called for each new connection of either direction, before it is admitted. One listener. */
  onConnection(listener: (connection: Connection) => void): void;
  /**
   * Dials a peer, at most `limits.peerAddressesMax` addresses. A connection that there is is given; a relayed one only
   * where no address is direct.
   * @throws HelixFlowError CONNECT_FAILED; ADDRESS_REFUSED when no address may be dialled.
   */
  connect(peer: PeerId, addresses: readonly string[], signal: AbortSignal): Promise<Connection>;
  /**
   * Whether the peer answers at this address of its own, and proves that it is the one: dials it beside any connection
   * that there is, and closes that at once. Nobody is told of it here. False for what may not be dialled.
   */
  canDial(at: { readonly peer: PeerId; readonly address: string }, signal: AbortSignal): Promise<boolean>;
  /**
   * Asks the peer of a direct, admitted connection to pass connections of other members on to this one. From then on
   * `addresses` tells the way through it, until that connection closes or the peer does not renew it.
   * @param lost Called once when it is over, unless the network closes.
   * @throws HelixFlowError RELAY_REFUSED when the peer is no relay or has no room.
   */
  reserve(connection: Connection, lost: () => void, signal: AbortSignal): Promise<void>;
  /** Serves a protocol; both sides name the same `frameMaxBytes`. Set before `start`. */
  handle(protocol: string, options: HandlerOptions, accept: (channel: Channel) => void): void;
  /** Starts to listen and to answer. @throws HelixFlowError PORT_IN_USE */
  start(): Promise<void>;
  close(): Promise<void>;
}

/** A peer and where it may be reached. */
export interface Contact {
  readonly peer: PeerId;
  readonly addresses: readonly string[];
}

/** Who might serve what. A hint, never the truth (design §1). Works only among admitted peers. */
export interface Directory {
  /** Tells that this peer provides `key`; repeated by the adapter until withdrawn. */
  provide(key: string): Cancel;
  /**
   * Peers that said they provide `key`, each at most once, as they are found; never this peer itself.
   * Ends when the lookup is complete. @throws HelixFlowError DIRECTORY_UNAVAILABLE when nobody could be asked.
   */
  find(key: string, signal: AbortSignal): AsyncIterable<Contact>;
  /** Puts this peer's signed advert (`messages/advert.ts`). @throws HelixFlowError DIRECTORY_UNAVAILABLE */
  putAdvert(advert: Uint8Array, signal: AbortSignal): Promise<void>;
  /** The newest valid advert of `peer` that could be found. */
  getAdvert(peer: PeerId, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** The peer is a member no more: nothing that it left here is told to anybody. */
  forget?(peer: PeerId): void;
  /** How many peers the directory could ask at this moment. */
  size(): number;
  close(): Promise<void>;
}

/** One change of a batch. */
export type StoreOp =
  | { readonly type: 'put'; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: Uint8Array };

/** Keys from `gte` up to, without, `lt`; backwards with `reverse`. */
export interface StoreRange {
  readonly gte: Uint8Array;
  readonly lt: Uint8Array;
  readonly limit?: number;
  readonly reverse?: boolean;
}

/** An ordered map of bytes on disk; keys compare byte by byte. One process at a time. */
export interface Store {
  get(key: Uint8Array): Promise<Uint8Array | undefined>;
  range(range: StoreRange): AsyncIterable<readonly [key: Uint8Array, value: Uint8Array]>;
  /**
   * Applies all of `ops` or none. With `sync`, resolves only when they survive a power cut.
   * @throws HelixFlowError STORE_FAILED; after that the store refuses everything.
   */
  batch(ops: readonly StoreOp[], options: { readonly sync: boolean }): Promise<void>;
  /**
   * Writes the files of a range anew, without what was deleted or replaced there; absent where nothing of that stays.
   * @throws HelixFlowError STORE_FAILED
   */
  purge?(range: Pick<StoreRange, 'gte' | 'lt'>): Promise<void>;
  close(): Promise<void>;
}

/** One model as an engine serves it. */
export interface EngineModel {
  /** As clients write it; 1 to `limits.modelNameMaxChars` characters. */
  readonly name: string;
  readonly digest: ModelDigest;
  /** How the digest came about: hashed here, declared by the operator, or a name (design §5). */
  readonly digestKind: 'weights' | 'declared' | 'synthetic';
  /** Prompt and completion together, in tokens. */
  readonly contextTokens: number;
  /** From what a cut answer could be carried on by this engine. */
  readonly continuation: 'tokens' | 'text' | 'none';
  /** Engine, version and where it computes, for people: `llama.cpp b7421, CPU, 1 thread`. */
  readonly build: string;
}

/** Where an engine takes up an answer that another one of the same digest had begun (design §5, splice). */
export interface Resume {
  /** The ids of all pieces received, in order; empty where the engine told none. */
  readonly tokenIds: readonly number[];
  /** The text of all pieces received: whole UTF-8, and never told again. May end in the middle of the last id's text. */
  readonly text: string;
  /**
   * The completion tokens that both came to; they count for `maxTokens`, also where they are more than the ids: the node
   * is paid for no more than what is left.
   */
  readonly tokens: number;
}

/** What an engine is asked for. */
export interface GenerateRequest {
  readonly model: string;
  readonly chat: ChatRequest;
  /**
   * Goes on from here: the pieces and the counts of the answer are those of what comes after it. Only for models whose
   * `continuation` is not `none`; one of `text` needs no ids.
   */
  readonly resume?: Resume;
}

/** A piece of an answer. Text is whole UTF-8, with stop strings already held back. */
export interface EngineDelta {
  readonly text: string;
  /** The ids behind `text`, in order; empty where the engine tells none. */
  readonly tokenIds: readonly number[];
  /** On the first piece, where the engine has counted the prompt by then. */
  readonly promptTokens?: number;
  /**
   * True once the answer depends on something that its text does not show (hidden reasoning, half a tool call), on the
   * first piece after that: nobody can go on with it elsewhere.
   */
  readonly isOpaque?: boolean;
}

/** How an answer ended. Token counts are the engine's own. */
export interface EngineDone {
  readonly finish: 'stop' | 'length';
  readonly promptTokens: number;
  /** Prompt tokens that were not computed again. */
  readonly cachedTokens: number;
  /**
   * Every token generated by this call, the end token included; never more than the bytes of its deltas and one
   * (design §6). What was resumed from is not counted again.
   */
  readonly completionTokens: number;
  /** From the start of the work to the first token. */
  readonly prefillMs: Ms;
  /** From the first token to the last. */
  readonly decodeMs: Ms;
}

/** What an engine is doing now. */
export interface EngineStats {
  readonly active: number;
  readonly slots: number;
  /** Decoding speed lately, over all slots; 0 before the first answer. */
  readonly tokensPerSecond: number;
  /**
   * Grows with all work done: prompt tokens computed, tokens generated, answers ended. Absent where the engine cannot
   * tell; an engine that works on something and does not grow is stuck.
   */
  readonly progress?: number;
}

/** Something that turns a chat into text. Loaded by its factory, which also says what it serves. */
export interface Engine {
  readonly kind: 'llama' | 'openai' | 'synthetic' | 'simulated';
  /** What it serves now; empty while it is down (a crashed child process that is being restarted). */
  models(): readonly EngineModel[];
  /** Answers that can be generated at the same time. */
  readonly slots: number;
  /**
   * Generates one answer. `emit` gets each piece in order; when it returns a promise the engine waits for
   * it before it goes on with this answer (others go on). Aborting `signal` stops the work, also in prefill,
   * and rejects with `signal.reason`; the slot is free when the promise settles.
   * @throws HelixFlowError CONTEXT_LENGTH_EXCEEDED, REQUEST_UNSUPPORTED, ENGINE_REFUSED, ENGINE_FAILED, NODE_MODEL_MISSING;
   * RESUME_REFUSED when it cannot go on from `resume`: its ids do not stand for its text, or this model goes on from nothing.
   */
  generate(
    request: GenerateRequest,
    emit: (delta: EngineDelta) => Promise<void> | undefined,
    signal: AbortSignal,
  ): Promise<EngineDone>;
  stats(): EngineStats;
  /** Calls `listener` whenever `models()` changes. */
  onChange(listener: () => void): Cancel;
  close(): Promise<void>;
}

/** The kinds of signed token; the kind is pinned as the token's `typ`. */
export type TokenKind = 'issuer' | 'membership' | 'invite' | 'key' | 'revocation' | 'lift';

/** An Ed25519 key pair: 32 bytes of seed, 32 bytes of public key. */
export interface SigningKey {
  readonly publicKey: Uint8Array;
  readonly seed: Uint8Array;
}

/** What a token says, once verified or before it is signed. */
export interface TokenClaims {
  /** Who signed: an issuer id, or the mesh id for a certificate signed by the root. */
  readonly iss: IssuerId | MeshId;
  /** The mesh the token is good for. */
  readonly aud: MeshId;
  readonly sub: string;
  /** Seconds since the epoch. */
  readonly iat: number;
  /** Seconds since the epoch; absent for a certificate without end. */
  readonly exp?: number;
  readonly [claim: string]: unknown;
}

/** Signed tokens: JWTs with EdDSA, and nothing else. */
export interface Tokens {
  sign(kind: TokenKind, claims: TokenClaims, key: SigningKey): Promise<string>;
  /** Who says to have signed, unverified; undefined when the text is no token of this kind. */
  peekIssuer(kind: TokenKind, token: string): string | undefined;
  /**
   * Checks signature, kind, issuer, mesh and expiry.
   * @param nowMs Wall time to judge expiry by; 60 s of skew are tolerated for `iat` only.
   * @throws HelixFlowError TOKEN_INVALID, with reason `expired` when that is the only fault.
   */
  verify(
    kind: TokenKind,
    token: string,
    expected: {
      readonly publicKey: Uint8Array;
      readonly iss: string;
      readonly aud: MeshId;
      readonly nowMs: UnixMs;
      /** The caller judges `exp` by itself: a token that has expired is given like any other. */
      readonly ignoresExpiry?: boolean;
    },
  ): Promise<TokenClaims>;
}

/** Structured fields of a log line; never a prompt, an answer, a key or a token. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

/** Lines for the operator: an event name and fields. */
export interface Log {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields, error?: unknown): void;
  /** A log whose lines all carry `fields`. */
  with(fields: LogFields): Log;
}
