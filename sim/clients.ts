/** Clients of the simulated mesh: they ask, read at their own pace, change their minds, and watch what they get. */

import type { Access } from '../gateway/access/judge.ts';
import type { Answer } from '../gateway/service.ts';
import { toHex } from '../protocol/crypto.ts';
import type { AccountId, IssuerId, KeyId, PeerId, RequestId } from '../protocol/ids.ts';
import type { ChatRequest } from '../protocol/messages/chat.ts';
import { ms } from '../protocol/units.ts';
import { type Phase, type RequestFacts, type Violation, WatchedRequest } from './checkers.ts';
import type { Lifeline } from './kernel.ts';
import type { SimRandom } from './random.ts';
import { type GatewaySite, simModel } from './sites.ts';
import type { World } from './world.ts';

const deadlineMs = 60_000;
const encoder = new TextEncoder();
/** One key for all of them, without limits, where a scenario has no accounts. */
const anybody: Access = {
  keyId: '00'.repeat(8) as KeyId,
  issuer: '00'.repeat(16) as IssuerId,
  account: 'simulated' as AccountId,
  role: 'user',
  models: [],
  limits: {},
  gateways: [],
  strict: false,
};

/** Traffic that turns from one gateway to the next. */
export interface MovingTraffic {
  readonly perSecond: number;
  /** On the average. */
  readonly moveEveryMs: number;
  /** Every answer has a bound, and none more than this: what is set aside for one is little. */
  readonly maxTokens: number;
}

/** Of the requests. */
const movingShare = 0.7;

type Promises = Pick<RequestFacts, 'mayFail' | 'beginWithinMs' | 'gapWithinMs'>;
type Manner = 'patient' | 'slow' | 'fickle';

interface Running {
  readonly request: WatchedRequest;
  readonly lifeline: Lifeline;
}

/** Everybody who asks, and all that was asked. */
export class Clients {
  readonly requests: WatchedRequest[] = [];
  readonly #world: World;
  readonly #random: SimRandom;
  readonly #promises: Promises;
  readonly #violate: (violation: Violation) => void;
  readonly #running = new Set<Running>();
  /** Whose keys requests come with. */
  callersIn: (phase: Phase) => readonly Access[] = () => [anybody];
  isHonest: (node: PeerId | undefined) => boolean = () => true;

  constructor(world: World, promises: Promises, violate: (violation: Violation) => void) {
    this.#world = world;
    this.#random = world.kernel.random.fork('clients');
    this.#promises = promises;
    this.#violate = violate;
  }

  /** Asks at random gateways, at random moments, until `untilMs`. Gateways that are down are not asked. */
  askAround(gateways: readonly GatewaySite[], perSecond: number, untilMs: number, phase: Phase): void {
    const { kernel } = this.#world;
    const next = (): void => {
      const delayMs = (2_000 / perSecond) * this.#random.float();
      if (kernel.nowMs + delayMs >= untilMs) return;
      kernel.schedule(delayMs, () => {
        const gateway = gateways[this.#random.int(gateways.length)];
        if (gateway !== undefined) this.ask(gateway, phase);
        next();
      });
    };
    next();
  }

  /** As `askAround`, but most ask at one gateway, and now and then all of these turn to another. */
  askMoving(gateways: readonly GatewaySite[], moving: MovingTraffic, untilMs: number, phase: Phase): void {
    const { kernel } = this.#world;
    const random = this.#random.fork('moving');
    let place = 0;
    const move = (): void => {
      place = random.int(gateways.length);
      const delayMs = 2 * moving.moveEveryMs * random.float();
      if (kernel.nowMs + delayMs < untilMs) kernel.schedule(delayMs, move);
    };
    const next = (): void => {
      const delayMs = (2_000 / moving.perSecond) * random.float();
      if (kernel.nowMs + delayMs >= untilMs) return;
      kernel.schedule(delayMs, () => {
        const gateway = gateways[random.chance(movingShare) ? place : random.int(gateways.length)];
        if (gateway !== undefined) this.ask(gateway, phase, moving.maxTokens);
        next();
      });
    };
    move();
    next();
  }

  /** Requests on this process will never end otherwise. */
  lost(lifeline: Lifeline): void {
    for (const running of [...this.#running]) {
      if (running.lifeline !== lifeline) continue;
      this.#running.delete(running);
      running.request.lost();
    }
  }

  ask(site: GatewaySite, phase: Phase, maxTokens?: number): WatchedRequest | undefined {
    const { gateway, machine } = site;
    const ports = machine.ports;
    if (gateway === undefined || ports === undefined || ports.lifeline.isPaused) return undefined;
    const { kernel } = this.#world;
    const random = this.#random.fork('request');
    const chat = this.#chat(random, maxTokens);
    const id = toHex(random.bytes(16)) as RequestId;
    const callers = this.callersIn(phase);
    const caller = callers[random.fork('caller').int(callers.length)] ?? anybody;
    const facts = { number: this.requests.length, id, phase, gateway: machine.name, key: caller.keyId, chat };
    const request = new WatchedRequest(
      {
        ...facts,
        startMs: kernel.nowMs,
        deadlineMs,
        mayFail: this.#promises.mayFail,
        beginWithinMs: this.#promises.beginWithinMs,
        ...(this.#promises.gapWithinMs === undefined ? {} : { gapWithinMs: this.#promises.gapWithinMs }),
      },
      () => kernel.nowMs,
      (check, detail) => {
        // What a lying node says of its tokens, its gateway tells the client.
        const isLied = check === 'honest counts' && !this.isHonest(request.servedBy);
        if (!isLied) this.#violate({ atMs: kernel.nowMs, check, detail });
      },
    );
    this.requests.push(request);
    const running: Running = { request, lifeline: ports.lifeline };
    this.#running.add(running);
    const manner = phase === 'probe' ? 'patient' : this.#manner(random);
    const call = { request: id, caller, model: simModel, chat, deadlineMs: ms(deadlineMs) };
    const answer: Answer = gateway.gateway.chat(call, {
      committed: (served) => request.committed(served),
      delta: (text) => {
        request.delta(text);
        this.#read(answer, encoder.encode(text).length, manner, running);
      },
      done: (end) => {
        this.#running.delete(running);
        request.done(end);
      },
      failed: (error) => {
        this.#running.delete(running);
        request.failed(error);
      },
    });
    if (manner === 'fickle') this.#leave(answer, running, random);
    return request;
  }

  #chat(random: SimRandom, bound: number | undefined): ChatRequest {
    const content = `prompt ${random.int(2 ** 32)} ${'word '.repeat(random.int(60))}`;
    const isBound = bound !== undefined || random.chance(0.3);
    const maxTokens = isBound ? { maxTokens: 1 + random.int(bound ?? 80) } : {};
    return { messages: [{ role: 'user', content }], ...maxTokens };
  }

  #manner(random: SimRandom): Manner {
    const draw = random.float();
    return draw < 0.1 ? 'fickle' : draw < 0.2 ? 'slow' : 'patient';
  }

  #read(answer: Answer, bytes: number, manner: Manner, { lifeline }: Running): void {
    const paceMs = manner === 'slow' ? 100 : 1;
    this.#world.kernel.schedule(paceMs, () => answer.consumed(bytes), lifeline, 'io');
  }

  #leave(answer: Answer, running: Running, random: SimRandom): void {
    const leave = (): void => {
      if (!this.#running.delete(running)) return;
      running.request.cancelled();
      answer.cancel();
    };
    this.#world.kernel.schedule(2_000 * random.float(), leave, running.lifeline, 'io');
  }
}
