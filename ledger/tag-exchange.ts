/** How keys of tags come to every gateway: drawn where the issuer's key is, asked for by all others ahead of their day. */

import { isHelixFlowError } from '../protocol/errors.ts';
import type { IssuerId, PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { type TagKeysAsk, type TagKeysTold, tagDaysMax } from '../protocol/messages/lease.ts';
import type { Channel, Clock, Log } from '../protocol/ports.ts';
import type { Ledger } from './ledger.ts';
import { dayOf, daysFrom, defaultTagDays, keysPerDayMax, type TagKeys } from './tag-keys.ts';

export interface TagExchangeDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly tags: Pick<TagKeys, 'held' | 'draw' | 'take'>;
  readonly ledger: Pick<Ledger, 'roots' | 'holderOf'>;
  readonly self: PeerId;
  /** True for issuers whose keys of tags are drawn here. */
  readonly keeps: (issuer: IssuerId) => boolean;
  /** All other gateways that are known: they may know keys that are lost here. */
  readonly others: () => readonly PeerId[];
  /** Others may know more than this store, also gateways that it has forgotten. */
  readonly recovers: boolean;
  readonly channelTo: (peer: PeerId) => Channel | undefined;
  readonly isReachable: (peer: PeerId) => boolean;
  readonly ask: (peer: PeerId, ask: TagKeysAsk) => Promise<Channel | undefined>;
}

/** The exchange of one process. */
export interface TagExchange {
  /** Sees to it that the keys of these days are held; call it now and then. */
  look(): void;
  asked(peer: PeerId, question: TagKeysAsk): Promise<TagKeysTold>;
  told(peer: PeerId, answer: TagKeysTold): void;
}

const askAgainMs = 5_000;
/** Days of one question: all keys of so many fit into one frame. */
const daysAtOnce = tagDaysMax / keysPerDayMax;

/** What one gateway was last asked about the keys of one issuer. */
interface Asked {
  readonly issuer: IssuerId;
  readonly peer: PeerId;
  readonly atMs: number;
  /** Which questions: one for each few days. */
  readonly ids: Set<number>;
  channel: Channel | undefined;
}

class Exchange implements TagExchange {
  readonly #deps: TagExchangeDeps;
  readonly #asked = new Map<string, Asked>();
  /** Who has told all keys of an issuer that it holds, since this process started. */
  readonly #heard = new Set<string>();
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
    const { ledger, keeps, self, others } = this.#deps;
    for (const issuer of ledger.roots.issuers.keys()) {
      const lacking = this.#lacking(issuer, daysFrom(this.#today()));
      if (keeps(issuer)) {
        for (const peer of others()) this.#askOf(issuer, peer, false);
        if (lacking.length > 0 && this.#mayDraw(issuer)) this.#watch(this.#deps.tags.draw(issuer, lacking));
        continue;
      }
      const peer = ledger.holderOf(issuer);
      if (peer !== undefined && peer !== self) this.#askOf(issuer, peer, lacking.length > 0);
    }
  }

  /** Others may still hold what this process has lost: not before all have told, or had the time to. */
  #mayDraw(issuer: IssuerId): boolean {
    const { clock, others, recovers } = this.#deps;
    if (clock.nowMs() >= this.#startMs + limits.recoveryWaitMs) return true;
    return !recovers && others().every((peer) => this.#heard.has(`${issuer}/${peer}`));
  }

  #watch(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.warn('tags.not-kept', { code: error.code });
    });
  }

  /** Once on each channel, so that both sides get what they may have lost, and until nothing is lacking. */
  #askOf(issuer: IssuerId, peer: PeerId, isLacking: boolean): void {
    const { clock, channelTo, isReachable } = this.#deps;
    const name = `${issuer}/${peer}`;
    const last = this.#asked.get(name);
    const channel = channelTo(peer);
    const isTold = last !== undefined && channel !== undefined && last.channel === channel;
    const nowMs = clock.nowMs();
    if (!isReachable(peer) || (isTold && !isLacking)) return;
    if (last !== undefined && nowMs - last.atMs < askAgainMs) return;
    const today = this.#today();
    const ahead = daysFrom(today);
    const past = Array.from({ length: defaultTagDays }, (_, back) => today - defaultTagDays + back);
    const asked: Asked = { issuer, peer, atMs: nowMs, ids: new Set(), channel };
    this.#asked.set(name, asked);
    this.#watch(this.#askAll(asked, isTold ? this.#lacking(issuer, ahead) : [...past, ...ahead]));
  }

  async #askAll(asked: Asked, days: readonly number[]): Promise<void> {
    const { ask, tags } = this.#deps;
    const { issuer, peer, ids } = asked;
    const questions: TagKeysAsk[] = [];
    for (let from = 0; from < days.length; from += daysAtOnce) {
      const some = days.slice(from, from + daysAtOnce);
      this.#ids += 1;
      ids.add(this.#ids);
      questions.push({ type: 'keysAsk', id: this.#ids, issuer, days: some, held: tags.held(issuer, some) });
    }
    for (const question of questions) asked.channel = await ask(peer, question);
  }

  /** What one gateway has told, all others are told, too. */
  async #take(issuer: IssuerId, keys: TagKeysTold['keys']): Promise<void> {
    const isNews = await this.#deps.tags.take(issuer, keys);
    if (!isNews || !this.#deps.keeps(issuer)) return;
    for (const asked of this.#asked.values()) if (asked.issuer === issuer) asked.channel = undefined;
  }

  async asked(peer: PeerId, { id, issuer, days, held }: TagKeysAsk): Promise<TagKeysTold> {
    const { keeps, tags, ledger } = this.#deps;
    if (keeps(issuer)) {
      await this.#take(issuer, held);
      const ahead = new Set(daysFrom(this.#today()));
      if (this.#mayDraw(issuer)) {
        await tags.draw(
          issuer,
          days.filter((day) => ahead.has(day)),
        );
      }
    } else if (ledger.holderOf(issuer) === peer) await this.#take(issuer, held);
    return { type: 'keys', id, keys: tags.held(issuer, days).slice(0, tagDaysMax) };
  }

  told(peer: PeerId, { id, keys }: TagKeysTold): void {
    for (const [name, asked] of this.#asked) {
      if (asked.peer !== peer || !asked.ids.has(id)) continue;
      this.#watch(
        this.#take(asked.issuer, keys).then(() => {
          asked.ids.delete(id);
          if (asked.ids.size > 0) return;
          this.#heard.add(name);
          // Whoever waits for the last one to tell need not wait any longer.
          if (this.#deps.keeps(asked.issuer)) this.look();
        }),
      );
    }
  }
}

export const createTagExchange = (deps: TagExchangeDeps): TagExchange => new Exchange(deps);
