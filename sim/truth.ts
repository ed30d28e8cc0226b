/** What was really done, sent and received, whoever says what of it: the simulator's own count of every attempt. */

import type { UsageLine } from '../ledger/line.ts';
import { costMicro, type Price } from '../ledger/price.ts';
import type { AttemptEnd } from '../ledger/tabs.ts';
import { countPromptTokens } from '../node/synthetic-text.ts';
import type { PeerId, ProcessId, RequestId } from '../protocol/ids.ts';
import { type ChatRequest, encodeChatRequest } from '../protocol/messages/chat.ts';
import { utf8Length } from '../protocol/utf8.ts';
import type { Lifeline } from './kernel.ts';
import type { GatewaySite, NodeSite, Sites } from './sites.ts';
import type { World } from './world.ts';

/** An attempt as its gateway made it, before anybody lies about it. */
export interface TrueAttempt {
  readonly gateway: GatewaySite;
  readonly node: PeerId;
  readonly request: RequestId;
  readonly run: ProcessId;
  readonly serial: number;
  readonly price: Price;
  readonly startMs: number;
  /** Until when it was under way; undefined while it is. */
  endMs: number | undefined;
  /** What came, as honest code counts it. */
  receivedTokens: number;
  /** What an honest line says. */
  end: AttemptEnd | undefined;
  /** It never left. */
  isDropped: boolean;
  /** Its gateway was told that the line would survive a power cut. */
  isRecorded: boolean;
}

/** What an engine did for one prompt. */
export interface TrueWork {
  readonly promptTokens: number;
  /** The prompt as it came, and the text that was sent. */
  readonly promptBytes: number;
  sentTokens: number;
  sentBytes: number;
}

/** Names an attempt in the whole mesh. */
export const trueName = ({ run, serial }: Pick<UsageLine, 'run' | 'serial'>): string => `${run}.${serial}`;

/** Every attempt of a run of the simulator. */
export class Truth {
  readonly #world: World;
  readonly #attempts = new Map<string, TrueAttempt>();
  readonly #running = new Map<Lifeline, Set<TrueAttempt>>();
  /** By node and prompt. */
  readonly #works = new Map<string, TrueWork>();
  /** How often each node has refused each gateway for what it did not cover. */
  readonly #refusals = new Map<string, number>();
  /** When gateways began to run again. */
  readonly restartsMs: number[] = [];

  /** Made before everybody who changes what processes say. */
  constructor(world: World, sites: Sites) {
    this.#world = world;
    sites.onBooted((site) => {
      if (site.role === 'gateway') this.#watchGateway(site);
      else this.#watchNode(site);
    });
    sites.onKilled(({ machine }) => machine.ports && this.#lost(machine.ports.lifeline));
  }

  attempts(): readonly TrueAttempt[] {
    return [...this.#attempts.values()].filter(({ isDropped }) => !isDropped);
  }

  attempt(name: Pick<UsageLine, 'run' | 'serial'>): TrueAttempt | undefined {
    return this.#attempts.get(trueName(name));
  }

  /** What the node's engine did for this prompt. */
  work(node: PeerId, chat: ChatRequest): TrueWork | undefined {
    return this.#works.get(workName(node, chat));
  }

  refusals(node: PeerId, gateway: PeerId): number {
    return this.#refusals.get(`${node} ${gateway}`) ?? 0;
  }

  #lost(lifeline: Lifeline): void {
    for (const attempt of this.#running.get(lifeline) ?? []) attempt.endMs ??= this.#world.kernel.nowMs;
    this.#running.delete(lifeline);
  }

  #watchGateway(site: GatewaySite): void {
    const { kernel } = this.#world;
    const tabs = site.gateway?.tabs;
    const lifeline = site.machine.ports?.lifeline;
    if (tabs === undefined || lifeline === undefined) return;
    if (site.machine.runs > 1) this.restartsMs.push(kernel.nowMs);
    const running = new Set<TrueAttempt>();
    this.#running.set(lifeline, running);
    const begin = tabs.begin.bind(tabs);
    tabs.begin = (start) => {
      const line = begin(start);
      const { node, request, price } = start;
      const attempt: TrueAttempt = {
        ...{ gateway: site, node, request, run: tabs.run, serial: line.serial, price, startMs: kernel.nowMs },
        ...{ endMs: undefined, receivedTokens: 0, end: undefined, isDropped: false, isRecorded: false },
      };
      this.#attempts.set(trueName(attempt), attempt);
      running.add(attempt);
      const isOver = (): void => {
        attempt.endMs ??= kernel.nowMs;
        running.delete(attempt);
      };
      return {
        serial: line.serial,
        startMs: line.startMs,
        received: (tokens) => {
          attempt.receivedTokens = tokens;
          line.received(tokens);
        },
        drop: () => {
          attempt.isDropped = true;
          isOver();
          line.drop();
        },
        end: (end, durable) => {
          attempt.end ??= end;
          isOver();
          line.end(end, (error) => {
            attempt.isRecorded = error === undefined;
            durable(error);
          });
        },
      };
    };
  }

  #watchNode({ machine: { peer }, node, engine }: NodeSite): void {
    if (node === undefined || engine === undefined) return;
    const { tabs } = node;
    const refusal = tabs.refusal.bind(tabs);
    tabs.refusal = (gateway) => {
      const refused = refusal(gateway);
      const name = `${peer} ${gateway}`;
      if (refused !== undefined) this.#refusals.set(name, (this.#refusals.get(name) ?? 0) + 1);
      return refused;
    };
    const real = engine.generate.bind(engine);
    engine.generate = (request, emit, signal) => {
      const promptBytes = encodeChatRequest(request.chat).length;
      // A node that comes back may go on with what it had begun: all of it is its work.
      const name = workName(peer, request.chat);
      const { sentTokens = 0, sentBytes = 0 } = this.#works.get(name) ?? {};
      const work = { promptTokens: countPromptTokens(request.chat), promptBytes, sentTokens, sentBytes };
      this.#works.set(name, work);
      return real(
        request,
        (delta) => {
          if (!signal.aborted) {
            work.sentTokens += delta.tokenIds.length;
            work.sentBytes += utf8Length(delta.text);
          }
          return emit(delta);
        },
        signal,
      );
    };
  }
}

const workName = (node: PeerId, { messages }: ChatRequest): string => `${node} ${JSON.stringify(messages)}`;

/** What an attempt is worth to its node: what an honest line would have brought it. */
export function worthMicro({ end, price, receivedTokens }: TrueAttempt): number {
  if (end === undefined)
    return costMicro(price, { promptTokens: 0, cachedTokens: 0, completionTokens: receivedTokens });
  const { promptTokens, cachedTokens, completionTokens, nodeTokens = completionTokens } = end;
  const tokens = Math.min(completionTokens, nodeTokens);
  const isEnded = end.outcome === 'done' || end.outcome === 'cancelled';
  return costMicro(price, {
    promptTokens: isEnded ? promptTokens : 0,
    cachedTokens: isEnded ? cachedTokens : 0,
    completionTokens: tokens,
  });
}

/** The same, of what a node did, when it lies about that. */
export function workMicro({ end, price, receivedTokens }: TrueAttempt, work: TrueWork): number {
  const isEnded = end?.outcome === 'done' || end?.outcome === 'cancelled';
  return costMicro(price, {
    promptTokens: isEnded ? work.promptTokens : 0,
    cachedTokens: 0,
    completionTokens: Math.min(receivedTokens, work.sentTokens),
  });
}
