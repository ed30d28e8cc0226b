/** Whether others can dial this peer: asks gateways to try, and tries for those that ask. */

import { HelixFlowError, isHelixFlowError, toHelixFlowError } from '../errors.ts';
import type { Role } from '../grants.ts';
import type { PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import {
  encodeReachFrame,
  parseReachFrame,
  REACH_PROTOCOL,
  type ReachFrame,
  reachFrameMaxBytes,
} from '../messages/reach.ts';
import type { Channel, Clock, Connection, Log, Network, Random } from '../ports.ts';
import { type Ms, ms } from '../units.ts';
import { isLoopback, isRelayed } from './address.ts';

/** `no`: it announces no address of its own, or none at which any gateway that tried got an answer. */
export type Reachability = 'yes' | 'no' | 'unknown';

interface ReachDeps {
  readonly network: Network;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

interface ReachOptions {
  readonly role: Role;
  /** Open, admitted, direct connections to gateways. */
  readonly gateways: () => readonly Connection[];
}

/** Gateways that are asked before the answer is no. */
const asksMax = 3;
const dialTimeoutMs = ms(3_000);
const askTimeoutMs = ms(limits.peerAddressesMax * dialTimeoutMs + 3_000);
/** Before the first question: the connections of the start come first. */
const settleMs = 2_000;
/** After a no, from one round of questions to the next; doubled each time. */
const againFirstMs = 600_000;
const againMaxMs = 3_600_000;
/** One connection is answered no more often than this. */
const answerEveryMs = 10_000;
/** Tries for others at a time; who asks meanwhile gets no answer. */
const answersMax = 8;

/** Asks and answers; the caller calls `tick` often. Made before the network starts. */
export class Reach {
  readonly #deps: ReachDeps;
  readonly #options: ReachOptions;
  readonly #answered = new WeakMap<Connection, Ms>();
  #answering = 0;
  /** The addresses of its own that it announces, in one text; undefined before the first `tick`. */
  #announced: string | undefined;
  #state: Reachability = 'unknown';
  /** What each gateway that was asked in this round said; undefined for one that did not answer. */
  readonly #said = new Map<PeerId, boolean | undefined>();
  #wasDialled = false;
  #isAsking = false;
  #nextAskMs = 0;
  #waitMs = againFirstMs;

  constructor(deps: ReachDeps, options: ReachOptions) {
    this.#deps = deps;
    this.#options = options;
    if (options.role !== 'gateway') return;
    const handler = { beforeAdmission: false, frameMaxBytes: reachFrameMaxBytes };
    deps.network.handle(REACH_PROTOCOL, handler, (channel) => this.#serve(channel));
  }

  get state(): Reachability {
    if (this.#announced === '') return 'no';
    return this.#state === 'unknown' && this.#wasDialled ? 'yes' : this.#state;
  }

  /** Somebody dialled this peer itself: as good as an answer, while no gateway has given one. */
  dialled(): void {
    this.#wasDialled = true;
  }

  tick(): void {
    const addresses = this.#deps.network.addresses().filter((address) => !isRelayed(address));
    const nowMs = this.#deps.clock.nowMs();
    const announced = addresses.join(' ');
    if (announced !== this.#announced) {
      this.#wasDialled &&= this.#announced === undefined;
      this.#announced = announced;
      this.#said.clear();
      this.#state = 'unknown';
      this.#nextAskMs = nowMs + settleMs * (1 + this.#deps.random.float());
      this.#waitMs = againFirstMs;
    }
    if (announced === '' || this.#isAsking || nowMs < this.#nextAskMs || this.#state === 'yes') return;
    const next = this.#options.gateways().find(({ peer }) => !this.#said.has(peer));
    if (next !== undefined && this.#said.size < asksMax) void this.#ask(next, addresses);
    else if (this.#said.size > 0) this.#roundIsOver(nowMs);
  }

  /** Nobody got through; asked again later, since it may have been mended, and others may have come. */
  #roundIsOver(nowMs: number): void {
    if (this.#state === 'unknown' && [...this.#said.values()].includes(false)) {
      this.#state = 'no';
      const hint = 'open the port, or announce another address; until then others reach it through relays only';
      this.#deps.log.warn('peer.unreachable', { addresses: this.#announced, hint });
    }
    this.#said.clear();
    this.#nextAskMs = nowMs + this.#waitMs * (0.75 + this.#deps.random.float() / 4);
    this.#waitMs = Math.min(2 * this.#waitMs, againMaxMs);
  }

  async #ask(connection: Connection, addresses: readonly string[]): Promise<void> {
    const { clock, log } = this.#deps;
    const { peer } = connection;
    const announced = this.#announced;
    this.#isAsking = true;
    let said: boolean | undefined;
    try {
      using deadline = clock.deadline(askTimeoutMs);
      const channel = await connection.open(REACH_PROTOCOL, deadline.signal);
      const tried = await exchange(channel, { type: 'try', addresses }, deadline.signal);
      said = tried?.type === 'tried' ? tried.addresses.some((address) => addresses.includes(address)) : undefined;
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      log.debug('reach.unanswered', { peer, code: error.code });
    } finally {
      this.#isAsking = false;
    }
    if (announced !== this.#announced) return;
    this.#said.set(peer, said);
    if (said !== true) return;
    if (this.#state === 'no') log.info('peer.reachable', { addresses: announced });
    this.#state = 'yes';
  }

  #serve(channel: Channel): void {
    const { connection } = channel;
    const nowMs = this.#deps.clock.nowMs();
    const lastMs = this.#answered.get(connection);
    const isBusy = this.#answering >= answersMax || (lastMs !== undefined && nowMs - lastMs < answerEveryMs);
    if (isBusy) {
      channel.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'asked too often' }));
      return;
    }
    this.#answered.set(connection, nowMs);
    let isAsked = false;
    channel.receive({
      frame: (bytes) => {
        const frame = parseReachFrame(bytes);
        if (frame?.type !== 'try' || isAsked) return;
        isAsked = true;
        void this.#answer(channel, frame.addresses);
      },
      closed: () => {},
      drained: () => {},
    });
  }

  async #answer(channel: Channel, addresses: readonly string[]): Promise<void> {
    const { network, clock } = this.#deps;
    const { peer, remoteAddress } = channel.connection;
    // Whoever comes from elsewhere is not at this machine: its word would open ports here that nobody else reaches.
    const tried = addresses.filter((address) => !isLoopback(address) || isLoopback(remoteAddress));
    this.#answering += 1;
    const worked: string[] = [];
    try {
      for (const address of tried) {
        using deadline = clock.deadline(dialTimeoutMs);
        if (await network.canDial({ peer, address }, deadline.signal)) worked.push(address);
      }
    } finally {
      this.#answering -= 1;
    }
    channel.send(encodeReachFrame({ type: 'tried', addresses: worked }));
    channel.end();
  }
}

/** Sends a frame and takes the first that comes back; undefined when none does. */
function exchange(channel: Channel, frame: ReachFrame, signal: AbortSignal): Promise<ReachFrame | undefined> {
  return new Promise((resolve) => {
    const giveUp = (): void =>
      channel.abort(
        toHelixFlowError(signal.reason, () => new HelixFlowError('CHANNEL_CLOSED', { reason: 'given up' })),
      );
    const settle = (answer: ReachFrame | undefined): void => {
      signal.removeEventListener('abort', giveUp);
      resolve(answer);
    };
    channel.receive({
      frame: (bytes) => settle(parseReachFrame(bytes)),
      closed: () => settle(undefined),
      drained: () => {},
    });
    channel.send(encodeReachFrame(frame));
    channel.end();
    if (signal.aborted) giveUp();
    else signal.addEventListener('abort', giveUp, { once: true });
  });
}
