/** Which other gateways a gateway keeps connections to: a few, drawn by chance, and one of them exchanged now and then. */

import type { PeerId } from '../ids.ts';
import type { Random } from '../ports.ts';
import { type Ms, ms } from '../units.ts';
import type { Target } from './targets.ts';

/** Gateways that one gateway links itself to; with those that chose it, a hundred are three steps apart at most. */
export const linksMax = 16;
/** New links tried in one tick, so that gateways which start together do not all dial at once. */
const triesPerTickMax = 4;
/** Between exchanges of one link: two halves of a mesh that lost each other, and are both full, mix again. */
const exchangeMs = 60_000;

/** How a gateway is linked now. */
export interface LinkView {
  readonly nowMs: Ms;
  /** Gateways that there is a connection to, whoever dialled. */
  readonly linked: ReadonlySet<PeerId>;
  /** Of these, those that this gateway dialled. */
  readonly dialled: readonly PeerId[];
  /** Being dialled now. */
  readonly trying: ReadonlySet<PeerId>;
  /** Known gateways that are neither, and due for a try. */
  readonly candidates: readonly Target[];
}

/** What to do about it. */
export interface LinkPlan {
  readonly dial: readonly Target[];
  /** One that made room for another. */
  readonly close: PeerId | undefined;
}

/** Decides about links; the caller dials and closes. */
export class Links {
  readonly #random: Random;
  #nextExchangeMs: Ms;
  /** Dialled beyond the bound; once it is there, another goes. */
  #newcomer: PeerId | undefined;

  constructor(random: Random, nowMs: Ms) {
    this.#random = random;
    this.#nextExchangeMs = this.#exchangeAfter(nowMs);
  }

  #exchangeAfter(nowMs: Ms): Ms {
    return ms(nowMs + exchangeMs * (0.5 + this.#random.float()));
  }

  plan(view: LinkView): LinkPlan {
    const close = this.#makeRoom(view);
    const isExchange = view.nowMs >= this.#nextExchangeMs;
    if (isExchange) this.#nextExchangeMs = this.#exchangeAfter(view.nowMs);
    const missing = linksMax - view.linked.size - view.trying.size;
    const dial = this.#draw(view.candidates, Math.min(missing, triesPerTickMax));
    if (!isExchange || missing > 0 || this.#newcomer !== undefined) return { dial, close };
    const [newcomer] = this.#draw(view.candidates, 1);
    this.#newcomer = newcomer?.peer;
    return { dial: newcomer === undefined ? [] : [newcomer], close };
  }

  #makeRoom({ linked, dialled, trying }: LinkView): PeerId | undefined {
    const newcomer = this.#newcomer;
    if (newcomer === undefined || trying.has(newcomer)) return undefined;
    this.#newcomer = undefined;
    const others = dialled.filter((peer) => peer !== newcomer);
    if (!linked.has(newcomer) || linked.size <= linksMax || others.length === 0) return undefined;
    return others[this.#random.int(others.length)];
  }

  #draw(candidates: readonly Target[], count: number): Target[] {
    const left = [...candidates];
    const drawn: Target[] = [];
    while (drawn.length < count && left.length > 0) drawn.push(...left.splice(this.#random.int(left.length), 1));
    return drawn;
  }
}
