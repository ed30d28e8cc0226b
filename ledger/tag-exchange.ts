/** How keys of tags come to every gateway: drawn where the issuer's key is, asked for by all others ahead of their day. */

import { isHelixFlowError } from '../protocol/errors.ts';
import type { IssuerId, PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { TagKeysAsk, TagKeysTold } from '../protocol/messages/lease.ts';
import type { Channel, Clock, Log } from '../protocol/ports.ts';
import type { Ledger } from './ledger.ts';
import { dayOf, daysFrom, defaultTagDays, type TagKeys } from './tag-keys.ts';

export interface TagExchangeDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly tags: Pick<TagKeys, 'held' | 'draw' | 'take'>;
  readonly ledger: Pick<Ledger, 'roots' | 'holderOf'>;
  readonly self: PeerId;
  /** True for issuers whose keys of tags are drawn here. */
  readonly keeps: (issuer: IssuerId) => boolean;
  /** True while there is nobody who may know keys that are lost here. */
  readonly isAlone: () => boolean;
  readonly channelTo: (peer: PeerId) => Channel | undefined;
  readonly isReachable: (peer: PeerId) => boolean;
  readonly ask: (peer: PeerId, ask: TagKeysAsk) => Promise<Channel | undefined>;
}

/** The exchange of one process. */
export interface TagExchange {
  /** Sees to it that the keys of these days are held; call it now and then. */
  look(): void;
  asked(question: TagKeysAsk): Promise<TagKeysTold>;
  told(peer: PeerId, answer: TagKeysTold): void;
}

const askAgainMs = 5_000;

class Exchange implements TagExchange {
  readonly #deps: TagExchangeDeps;
  /** Where each issuer's keys were asked for last, and when. */
  readonly #asked = new Map<IssuerId, { id: number; peer: PeerId; atMs: number; channel: Channel | undefined }>();
  readonly #startMs: number;
  #ids = 0;

  constructor(deps: TagExchangeDeps) {
    this.#deps = deps;
    this.#startMs = deps.clock.nowMs();
  }

  #today(): number {
    return dayOf(this.#deps.clock.wallMs());
  }

  #lacking(issuer: IssuerId, days: readonly number[]): readonly number[] {
    const held = new Set(this.#deps.tags.held(issuer, days).map(({ day }) => day));
    return days.filter((day) => !held.has(day));
  }

  look(): void {
    const { ledger, keeps, self } = this.#deps;
    for (const issuer of ledger.roots.issuers.keys()) {
      const lacking = this.#lacking(issuer, daysFrom(this.#today()));
      if (keeps(issuer)) {
        if (lacking.length > 0 && this.#mayDraw()) this.#watch(this.#deps.tags.draw(issuer, lacking));
        continue;
      }
      const peer = ledger.holderOf(issuer);
      if (peer !== undefined && peer !== self) this.#askOf(issuer, peer, lacking.length > 0);
    }
  }

  /** Others may still hold what this process has lost. */
  #mayDraw(): boolean {
    return this.#deps.isAlone() || this.#deps.clock.nowMs() >= this.#startMs + limits.recoveryWaitMs;
  }

  #watch(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.warn('tags.not-kept', { code: error.code });
    });
  }

  /** Once on each channel, so that the other side gets back what it may have lost, and until nothing is lacking. */
  #askOf(issuer: IssuerId, peer: PeerId, isLacking: boolean): void {
    const { clock, tags, channelTo, isReachable, ask } = this.#deps;
    const last = this.#asked.get(issuer);
    const channel = channelTo(peer);
    const isTold = last?.peer === peer && channel !== undefined && last.channel === channel;
    const nowMs = clock.nowMs();
    if (!isReachable(peer) || (isTold && !isLacking)) return;
    if (last?.peer === peer && nowMs - last.atMs < askAgainMs) return;
    this.#ids += 1;
    const today = this.#today();
    const ahead = daysFrom(today);
    const past = Array.from({ length: defaultTagDays }, (_, back) => today - defaultTagDays + back);
    const asked = { id: this.#ids, peer, atMs: nowMs, channel };
    this.#asked.set(issuer, asked);
    const days = this.#lacking(issuer, isTold ? ahead : [...past, ...ahead]);
    const question: TagKeysAsk = { type: 'keysAsk', id: asked.id, issuer, days, held: tags.held(issuer, ahead) };
    this.#watch(
      ask(peer, question).then((used) => {
        asked.channel = used;
      }),
    );
  }

  async asked({ id, issuer, days, held }: TagKeysAsk): Promise<TagKeysTold> {
    const { keeps, tags } = this.#deps;
    if (keeps(issuer)) {
      await tags.take(issuer, held);
      const ahead = new Set(daysFrom(this.#today()));
      if (this.#mayDraw()) {
        await tags.draw(
          issuer,
          days.filter((day) => ahead.has(day)),
        );
      }
    }
    return { type: 'keys', id, keys: tags.held(issuer, days) };
  }

  told(peer: PeerId, { id, keys }: TagKeysTold): void {
    for (const [issuer, asked] of this.#asked) {
      if (asked.id === id && asked.peer === peer) this.#watch(this.#deps.tags.take(issuer, keys));
    }
  }
}

export const createTagExchange = (deps: TagExchangeDeps): TagExchange => new Exchange(deps);
