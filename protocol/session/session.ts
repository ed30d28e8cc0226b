/** One session between a gateway and a node: its frames in, its frames out, its life (design §4). */

import { type ErrorCode, HelixFlowError, toHelixFlowError } from '../errors.ts';
import type { Role } from '../grants.ts';
import type { PeerId, ProcessId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { SharedLimits } from '../messages/hello.ts';
import {
  encodeSessionFrame,
  type Load,
  type Offer,
  parseSessionFrame,
  type SessionFrame,
  type Start,
} from '../messages/session.ts';
import type { TabFrame } from '../messages/tab.ts';
import type { Cancel, Channel, Clock, Connection, Contact } from '../ports.ts';
import { type Ms, ms } from '../units.ts';
import type { SessionFacts, Started } from './choose.ts';
import type { SessionEvents } from './events.ts';
import { senderOf, unasked } from './frame-rules.ts';
import { Heartbeat } from './heartbeat.ts';
import { IncomingAttempts } from './incoming.ts';
import { OfferIntake } from './offers.ts';
import { type Attempt, type AttemptEvents, type AttemptRequest, OutgoingAttempts } from './outgoing.ts';

export interface SessionOptions {
  readonly self: PeerId;
  /** Ours; the peer has the other one. */
  readonly role: Role;
  readonly process: ProcessId;
  /** We opened the channel. */
  readonly isOurs: boolean;
  /** What our `start` frame says. */
  readonly start: Started;
  /** What both sides agreed on in their hello. */
  readonly limits: SharedLimits;
  /** How often the peer is asked for a sign of life while nothing runs; absent: every `heartbeatIdleMs`. */
  readonly idleMs?: () => Ms;
}

type State = 'starting' | 'open' | 'leaving' | 'closed';

/** One stream to one peer, from its `start` to its end. */
export class Session {
  readonly peer: PeerId;
  readonly connection: Connection;
  readonly #channel: Channel;
  readonly #clock: Clock;
  readonly #options: SessionOptions;
  readonly #events: SessionEvents;
  readonly #heartbeat: Heartbeat;
  readonly #outgoing: OutgoingAttempts;
  readonly #incoming: IncomingAttempts;
  readonly #offers: OfferIntake;
  readonly #cancelSettle: Cancel;
  #state: State = 'starting';
  #hasSentGoodbye = false;
  #hasGoodbye = false;
  #theirs: Start | undefined;
  #cancelLeave: Cancel = () => {};
  #load: Load | undefined;
  #pingNonce = 0;
  #pingSentMs: Ms | undefined;
  #roundTripMs: Ms | undefined;

  constructor(channel: Channel, clock: Clock, options: SessionOptions, events: SessionEvents) {
    this.#channel = channel;
    this.connection = channel.connection;
    this.peer = channel.connection.peer;
    this.#clock = clock;
    this.#options = options;
    this.#events = events;
    this.#outgoing = new OutgoingAttempts(
      { send: (frame) => this.#send(frame), changed: () => this.#count() },
      options.limits,
    );
    this.#incoming = new IncomingAttempts(
      {
        send: (frame) => void this.#send(frame),
        sendBytes: (bytes) => void this.#channel.send(bytes),
        opened: (attempt) => this.#events.opened(this, attempt),
        changed: () => this.#count(),
        timer: (delay, fire) => clock.timer(delay, fire),
      },
      options.limits,
    );
    this.#offers = new OfferIntake(clock, (offer) => this.#offered(offer));
    const { idleMs = () => ms(limits.heartbeatIdleMs) } = options;
    this.#heartbeat = new Heartbeat(
      clock,
      {
        ping: () => this.#ping(),
        suspect: () => {
          this.#outgoing.abandonAll(new HelixFlowError('NODE_LOST', {}));
          this.#events.changed(this);
          this.#events.suspected(this);
        },
        dead: (silentMs) => this.#dead(silentMs),
      },
      idleMs,
    );
    this.#cancelSettle = clock.timer(ms(limits.sessionSettleMs), () => this.#unsettled());
    channel.receive({
      frame: (bytes) => this.#receive(bytes),
      drained: () => this.#outgoing.drained(),
      closed: (error) => this.#closed(error),
    });
    this.#send({ type: 'start', process: options.process, ...options.start });
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** Open, and heard from in time: fit for new attempts. */
  get isResponsive(): boolean {
    return this.#state === 'open' && !this.#heartbeat.isSuspect;
  }

  /** When the peer was last heard, on the monotonic clock. */
  get lastHeardMs(): Ms {
    return this.#heartbeat.lastHeardMs;
  }

  /** Silent for so long that any new session replaces it. */
  get isStale(): boolean {
    return this.#heartbeat.isStale;
  }

  /** Has not said or heard goodbye: it starts, or takes new attempts. */
  get isStaying(): boolean {
    return this.#state === 'starting' || this.#state === 'open';
  }

  get isClosed(): boolean {
    return this.#state === 'closed';
  }

  /** What the node last offered. */
  get offer(): Offer | undefined {
    return this.#offers.current;
  }

  /** What the node last said of its load. */
  get load(): Load | undefined {
    return this.#load;
  }

  /** Of the last ping; undefined before the first answer. */
  get roundTripMs(): Ms | undefined {
    return this.#roundTripMs;
  }

  /** Attempts under way, of either direction. */
  get attempts(): number {
    return this.#outgoing.size + this.#incoming.size;
  }

  /** What both sides agreed on. */
  get limits(): SharedLimits {
    return this.#options.limits;
  }

  /** Of our `start`. */
  get serial(): number {
    return this.#options.start.serial;
  }

  /** For `chooseSession`; only once started. */
  get facts(): SessionFacts | undefined {
    if (this.#theirs === undefined) return undefined;
    const { isOurs, self, start } = this.#options;
    return {
      dialler: isOurs ? self : this.peer,
      isOurs,
      isRelayed: this.connection.path === 'relayed',
      process: this.#theirs.process,
      ours: start,
      theirs: this.#theirs,
    };
  }

  /** The run of the peer; only once started. */
  get peerProcess(): ProcessId | undefined {
    return this.#theirs?.process;
  }

  /**
   * Opens an attempt at the node.
   * @throws HelixFlowError NODE_LOST when the session is not open; NODE_OVERLOADED when it is full.
   */
  open(request: AttemptRequest, events: AttemptEvents): Attempt {
    if (this.#state !== 'open') throw new HelixFlowError('NODE_LOST', {});
    const attempt = this.#outgoing.open(request, events);
    this.#heartbeat.asked();
    return attempt;
  }

  /** Tells the gateway what this node serves. */
  sendOffer(offer: Offer): void {
    this.#send(offer);
  }

  /** Tells the gateway what this node is doing. */
  sendLoad(load: Load): void {
    this.#send(load);
  }

  /** Tells a node which other gateways it could dial. */
  sendGateways(contacts: readonly Contact[]): void {
    this.#send({ type: 'gateways', contacts });
  }

  /** Tells the peer of the tab between the two. @returns false when the channel is backed up, and the frame waits. */
  sendTab(frame: TabFrame): boolean {
    return this.#send(frame);
  }

  /** Asks the peer for a sign of life; without one it counts as silent within five heartbeats. */
  probe(): void {
    if (this.#state === 'open') this.#heartbeat.probe();
  }

  /** No new attempts; the session ends when those under way have. */
  leave(code: ErrorCode): void {
    if (this.#state === 'closed') return;
    if (!this.#hasSentGoodbye) {
      this.#hasSentGoodbye = true;
      this.#send({ type: 'goodbye', code });
    }
    if (this.#state !== 'leaving') {
      this.#state = 'leaving';
      // Whoever answers nothing to a goodbye is not waited for.
      if (!this.#hasGoodbye) this.#cancelLeave = this.#clock.timer(ms(limits.sessionStaleMs), () => this.#unanswered());
      this.#events.left(this);
    }
    this.#endWhenIdle();
  }

  /** Ends the session at once. */
  abort(error: HelixFlowError): void {
    if (this.#state !== 'closed') this.#channel.abort(error);
  }

  #send(frame: SessionFrame): boolean {
    return this.#channel.send(encodeSessionFrame(frame));
  }

  #receive(bytes: Uint8Array): void {
    if (this.#state === 'closed') return;
    const wasSuspect = this.#heartbeat.isSuspect;
    try {
      const frame = parseSessionFrame(bytes);
      if (frame === undefined) return;
      if (!unasked.has(frame.type)) this.#heartbeat.answered();
      this.#handle(frame, bytes.length);
      if (wasSuspect && !this.#heartbeat.isSuspect) this.#events.changed(this);
    } catch (error) {
      this.#channel.abort(
        toHelixFlowError(error, (cause) => {
          throw cause;
        }),
      );
    }
  }

  #handle(frame: SessionFrame, frameBytes: number): void {
    const sender = senderOf[frame.type];
    if (sender === this.#options.role) throw violation(`a ${sender} may not receive ${frame.type}`);
    if (this.#theirs === undefined && frame.type !== 'start') throw violation(`${frame.type} before start`);
    switch (frame.type) {
      case 'delta':
        this.#outgoing.delta(frame, frameBytes);
        break;
      case 'credit':
        this.#incoming.credit(frame);
        break;
      case 'open':
        this.#open(frame);
        break;
      case 'done':
        this.#outgoing.done(frame);
        break;
      case 'body':
        this.#incoming.body(frame);
        break;
      case 'fail':
        this.#outgoing.fail(frame);
        break;
      case 'cancel':
        this.#incoming.cancel(frame);
        break;
      case 'cancelled':
        this.#outgoing.cancelled(frame);
        break;
      case 'ping':
        this.#send({ type: 'pong', nonce: frame.nonce });
        break;
      case 'pong':
        this.#pong(frame.nonce);
        break;
      case 'load':
        this.#load = frame;
        this.#events.changed(this);
        break;
      case 'offer':
        this.#offers.push(frame);
        break;
      case 'offered':
        this.#events.offered(this, frame.revision);
        break;
      case 'gateways':
        this.#events.gateways(this, frame.contacts);
        break;
      case 'start':
        this.#start(frame);
        break;
      case 'goodbye':
        this.#hasGoodbye = true;
        this.leave(frame.code);
        break;
      case 'statement':
      case 'countersign':
      case 'claim':
        this.#events.tab(this, frame);
        break;
    }
  }

  #start(frame: Start): void {
    if (this.#theirs !== undefined) throw violation('a second start');
    this.#theirs = frame;
    this.#cancelSettle();
    if (this.#state === 'starting') this.#state = 'open';
    this.#events.started(this);
  }

  #open(frame: Extract<SessionFrame, { type: 'open' }>): void {
    // Opens that crossed our goodbye are served; after the gateway's own goodbye none may come.
    if (this.#hasGoodbye) throw violation('open after goodbye');
    this.#incoming.open(frame);
  }

  #offered(offer: Offer): void {
    this.#send({ type: 'offered', revision: offer.revision });
    this.#events.changed(this);
  }

  #ping(): void {
    this.#pingNonce = (this.#pingNonce + 1) % 0xffff_ffff;
    this.#pingSentMs = this.#clock.nowMs();
    this.#send({ type: 'ping', nonce: this.#pingNonce });
  }

  #pong(nonce: number): void {
    this.#heartbeat.ponged(nonce === this.#pingNonce);
    if (nonce !== this.#pingNonce || this.#pingSentMs === undefined) return;
    this.#roundTripMs = ms(this.#clock.nowMs() - this.#pingSentMs);
    this.#pingSentMs = undefined;
  }

  #count(): void {
    this.#heartbeat.setActive(this.attempts > 0);
    if (this.#state === 'leaving') this.#endWhenIdle();
  }

  #endWhenIdle(): void {
    if (this.#hasGoodbye && this.#hasSentGoodbye && this.attempts === 0) this.#channel.end();
  }

  #unanswered(): void {
    if (!this.#hasGoodbye) this.abort(new HelixFlowError('SESSION_SILENT', { silentMs: limits.sessionStaleMs }));
  }

  #unsettled(): void {
    if (this.#theirs === undefined) this.abort(violation('no start in time'));
  }

  #dead(silentMs: Ms): void {
    this.abort(new HelixFlowError('SESSION_SILENT', { silentMs }));
    void this.connection.close();
  }

  #closed(error: HelixFlowError | undefined): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#cancelSettle();
    this.#offers.close();
    this.#cancelLeave();
    this.#heartbeat.stop();
    this.#incoming.close(error ?? new HelixFlowError('CHANNEL_CLOSED', { reason: 'the gateway has gone' }));
    this.#outgoing.close(new HelixFlowError('NODE_LOST', {}, { cause: error }));
    this.#events.closed(this, error);
  }
}

const violation = (reason: string): HelixFlowError => new HelixFlowError('PROTOCOL_VIOLATION', { reason });
