/** How fresh this peer is for each issuer: the newest heartbeat whose blocks are all held (design §6). */

import { decodeValue, encodeValue, type Value } from '../protocol/codec.ts';
import { isHelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, MeshId, PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { type HeartbeatFrame, parseHeartbeat } from '../protocol/messages/ledger.ts';
import type { Clock, Log, SigningKey, Store } from '../protocol/ports.ts';
import { Reader } from '../protocol/reader.ts';
import { authorIdOf, type BlockPlace } from './block.ts';
import type { EpochHead, Feeds, HeldEntry } from './feeds.ts';
import {
  type Afters,
  headsToName,
  isCovered,
  isHeartbeatSigned,
  isHeldBefore,
  type KnownBeat,
  signHeartbeat,
} from './heartbeat.ts';
import type { Freshness } from './ledger.ts';
import type { Beat, BeatOutcome } from './replicate.ts';
import { type EpochKey, keyOf } from './replicate-wire.ts';

export interface FreshnessDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly feeds: Feeds;
}

export interface FreshnessOptions {
  readonly meshId: MeshId;
  /** Authors whose heartbeats are kept: issuers that the root has named. */
  readonly isIssuer: (author: AuthorId) => boolean;
}

/** The heartbeats of all issuers. */
export interface Beats {
  /** Reads what was kept; what does not check is left out. Call it before `Feeds.open`. @throws HelixFlowError STORE_FAILED */
  load(): Promise<void>;
  /** The feeds are open: from now on it is judged what is covered. */
  ready(): void;
  /** Judges a heartbeat that came. */
  take(frame: HeartbeatFrame): BeatOutcome;
  /** Signs a heartbeat for what is held now of an issuer whose key is here. */
  sign(key: SigningKey, holder: PeerId): Beat;
  /** The newest of each issuer, to pass on. */
  newest(): readonly Beat[];
  /** An entry became known: where epochs go on from is read off the first of each. */
  entry(held: HeldEntry): void;
  /** A block was added to this author's feed: what waited for it may count now. */
  grown(author: AuthorId): void;
  /** True when this block and all before it are held, those of the epochs before among them. */
  holds(place: BlockPlace): boolean;
  /** By the issuer's own heartbeats alone. */
  of(author: AuthorId): Freshness;
  holderOf(author: AuthorId): PeerId | undefined;
  /** Judges no more; nothing touches the store once it resolves. */
  close(): Promise<void>;
}

const encoder = new TextEncoder();
const prefix = 'beat/';
const range = { gte: encoder.encode(prefix), lt: encoder.encode('beat0') };
/** Heartbeats that one issuer may have waiting for their blocks. */
const waitingMax = 16;
/** Heartbeats closer together than this are one: nobody needs more, and each costs a signature check. */
const stepMinMs = 1_000;

interface IssuerBeats {
  readonly author: AuthorId;
  /** The newest whose blocks are all held. */
  covered: KnownBeat | undefined;
  /** Newer ones, oldest first. */
  waiting: KnownBeat[];
  hasFuture: boolean;
  isJudging: boolean;
  hasGrown: boolean;
}

class IssuersBeats implements Beats {
  readonly #deps: FreshnessDeps;
  readonly #options: FreshnessOptions;
  readonly #issuers = new Map<AuthorId, IssuerBeats>();
  readonly #afters = new Map<EpochKey, ReturnType<Afters['get']>>();
  readonly #running = new Set<Promise<void>>();
  #isReady = false;

  constructor(deps: FreshnessDeps, options: FreshnessOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  #of(author: AuthorId): IssuerBeats {
    let known = this.#issuers.get(author);
    if (known === undefined) {
      known = { author, covered: undefined, waiting: [], hasFuture: false, isJudging: false, hasGrown: false };
      this.#issuers.set(author, known);
    }
    return known;
  }

  async load(): Promise<void> {
    for await (const [, value] of this.#deps.store.range(range)) {
      for (const frame of readRow(value)) this.take(frame);
    }
  }

  ready(): void {
    this.#isReady = true;
    for (const state of this.#issuers.values()) this.#judge(state);
  }

  take(frame: HeartbeatFrame): BeatOutcome {
    const { clock, log } = this.#deps;
    const heartbeat = parseOrNothing(frame);
    if (heartbeat === undefined) return { kind: 'invalid' };
    const { issuer: author, timeMs, holder } = heartbeat;
    if (!this.#options.isIssuer(author)) return { kind: 'ignored' };
    const state = this.#of(author);
    const beat = { author, timeMs, frame };
    const newestMs = newestOf(state)?.timeMs;
    if (newestMs !== undefined && timeMs < newestMs + stepMinMs) return { kind: 'known', beat };
    if (!isHeartbeatSigned(frame, author, this.#options.meshId)) return { kind: 'invalid' };
    // It would vouch, once its time has come, for a moment that its issuer never saw.
    if (timeMs > clock.wallMs() + limits.clockSkewMaxMs) {
      if (!state.hasFuture) log.warn('heartbeat.future', { author, aheadMs: timeMs - clock.wallMs() });
      state.hasFuture = true;
      return { kind: 'ignored' };
    }
    state.hasFuture = false;
    if (state.waiting.length === waitingMax) state.waiting.pop();
    state.waiting.push({ frame, heartbeat, timeMs, holder });
    this.#judge(state);
    return { kind: 'new', beat };
  }

  sign(key: SigningKey, holder: PeerId): Beat {
    const { feeds, clock } = this.#deps;
    const author = authorIdOf(key.publicKey);
    const timeMs = clock.wallMs();
    const heads = feeds.heads().filter((head: EpochHead) => head.author === author);
    const heartbeat = { holder, timeMs, heads: headsToName(heads, this.#afters) };
    const frame = signHeartbeat(heartbeat, { meshId: this.#options.meshId, key });
    this.take(frame);
    return { author, timeMs, frame };
  }

  newest(): readonly Beat[] {
    return [...this.#issuers.values()].flatMap((state) => {
      const beat = newestOf(state);
      return beat === undefined ? [] : [{ author: state.author, timeMs: beat.timeMs, frame: beat.frame }];
    });
  }

  entry({ entry, place }: HeldEntry): void {
    if (entry.kind === 'author' && place.number === 0 && place.index === 0) this.#afters.set(keyOf(place), entry.after);
  }

  grown(author: AuthorId): void {
    const state = this.#issuers.get(author);
    if (state !== undefined) this.#judge(state);
  }

  /** Finds the newest that is covered; again, when something came meanwhile. */
  #judge(state: IssuerBeats): void {
    state.hasGrown = true;
    if (state.isJudging || !this.#isReady) return;
    state.isJudging = true;
    const running = this.#judgeAll(state);
    this.#running.add(running);
    void running.finally(() => this.#running.delete(running));
  }

  async #judgeAll(state: IssuerBeats): Promise<void> {
    try {
      while (state.hasGrown && this.#isReady) {
        state.hasGrown = false;
        await this.#judgeOnce(state);
      }
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.warn('heartbeat.not-judged', { author: state.author, code: error.code });
    } finally {
      state.isJudging = false;
    }
  }

  async close(): Promise<void> {
    this.#isReady = false;
    await Promise.all(this.#running);
  }

  async #judgeOnce(state: IssuerBeats): Promise<void> {
    for (const beat of state.waiting.toReversed()) {
      if (!(await isCovered(beat.heartbeat, this.#deps.feeds, this.#afters))) continue;
      state.covered = beat;
      state.waiting = state.waiting.filter(({ timeMs }) => timeMs > beat.timeMs);
      break;
    }
    await this.#keep(state);
  }

  /** Not urgent: a crash may lose the newest, and others bring it again. */
  async #keep({ author, covered, waiting }: IssuerBeats): Promise<void> {
    const newest = waiting.at(-1);
    const kept = [covered, newest].flatMap((beat) => (beat === undefined ? [] : [beat.frame]));
    const value = encodeValue(kept.map(({ bytes, signature }): Value => [bytes, signature]));
    await this.#deps.store.batch([{ type: 'put', key: encoder.encode(prefix + author), value }], { sync: false });
  }

  holds(place: BlockPlace): boolean {
    return isHeldBefore(place, this.#deps.feeds, this.#afters);
  }

  of(author: AuthorId): Freshness {
    const state = this.#issuers.get(author);
    return { asOfMs: state?.covered?.timeMs, hasFutureHeartbeat: state?.hasFuture === true };
  }

  holderOf(author: AuthorId): PeerId | undefined {
    const state = this.#issuers.get(author);
    return state && newestOf(state)?.holder;
  }
}

const newestOf = ({ covered, waiting }: IssuerBeats): KnownBeat | undefined => waiting.at(-1) ?? covered;

function parseOrNothing(frame: HeartbeatFrame): KnownBeat['heartbeat'] | undefined {
  try {
    return parseHeartbeat(frame.bytes);
  } catch (error) {
    if (isHelixFlowError(error, 'FRAME_MALFORMED')) return undefined;
    throw error;
  }
}

/** Whatever a damaged row still says; each heartbeat is checked by its signature. */
function readRow(value: Uint8Array): readonly HeartbeatFrame[] {
  try {
    return new Reader([decodeValue(value)], 'heartbeats').list(2, (row) => {
      const r = new Reader(row, 'heartbeat');
      return { type: 'heartbeat', bytes: r.bytes(limits.frameMaxBytes), signature: r.bytes(64, 64) };
    });
  } catch (error) {
    if (isHelixFlowError(error, 'FRAME_MALFORMED')) return [];
    throw error;
  }
}

/** Keeps heartbeats in `deps.store`, below `beat/`. */
export const createBeats = (deps: FreshnessDeps, options: FreshnessOptions): Beats => new IssuersBeats(deps, options);
