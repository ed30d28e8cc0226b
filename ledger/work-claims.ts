/** Claims of a node: which work no gateway covers, told to those that will write it down (design §6). */

import type { MeshId, PeerId } from '../protocol/ids.ts';
import type { Clock, SigningKey } from '../protocol/ports.ts';
import { claimAttemptsMax, encodeUsage, signClaim } from './statement.ts';
import type { WorkLink } from './work.ts';
import type { TabWork } from './work-own.ts';
import type { WorkTab } from './work-tab.ts';

/** How often an attempt is claimed, each time from another gateway. */
const timesMax = 3;
const everyMs = 60_000;
/** Claims about one gateway in one round. */
const roundMax = 16;

export class Claims {
  readonly #clock: Clock;
  readonly #meshId: MeshId;
  readonly #self: PeerId;
  readonly #key: SigningKey;
  readonly #sentMs = new Map<PeerId, number>();
  #turn = 0;

  constructor(clock: Clock, by: { readonly meshId: MeshId; readonly self: PeerId; readonly key: SigningKey }) {
    this.#clock = clock;
    this.#meshId = by.meshId;
    this.#self = by.self;
    this.#key = by.key;
  }

  /** Sends what is due about the gateway of this tab to one of those that are connected. */
  send(tab: WorkTab, links: readonly WorkLink[]): void {
    const { gateway } = tab;
    const nowMs = this.#clock.nowMs();
    const works = tab.waiting.toClaim(tab.nowMs, timesMax);
    if (works.length === 0) {
      if (nowMs - (this.#sentMs.get(gateway) ?? 0) >= everyMs) this.#sentMs.delete(gateway);
      return;
    }
    const sentMs = this.#sentMs.get(gateway);
    if (sentMs !== undefined && nowMs - sentMs < everyMs) return;
    const link = this.#choose(gateway, links);
    if (link === undefined) return;
    this.#sentMs.set(gateway, nowMs);
    for (let from = 0; from < Math.min(works.length, roundMax * claimAttemptsMax); from += claimAttemptsMax) {
      const part = works.slice(from, from + claimAttemptsMax);
      link.sendTab({ type: 'claim', entry: this.#claim(gateway, part) });
      tab.claimed(part);
    }
  }

  /** Others than the gateway itself come first, one after the other. */
  #choose(gateway: PeerId, links: readonly WorkLink[]): WorkLink | undefined {
    const others = links.filter(({ peer }) => peer !== gateway);
    const choice = others.length > 0 ? others : links;
    this.#turn += 1;
    return choice[this.#turn % choice.length];
  }

  #claim(gateway: PeerId, works: readonly TabWork[]): Uint8Array {
    const attempts = works.map((work) => work.claim());
    const claim = { kind: 'claim', node: this.#self, gateway, attempts, timeMs: this.#clock.wallMs() } as const;
    return encodeUsage(signClaim(claim, this.#meshId, this.#key));
  }
}
