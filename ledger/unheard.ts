/** What an issuer said behind a block of its feed that is lost: nobody who comes later hears it, unless it is said again. */

import type { AuthorId } from '../protocol/ids.ts';
import type { Entry } from './entry.ts';
import type { Feeds, HeldEntry } from './feeds.ts';
import type { Standing } from './standing.ts';

/** What counts now of that which an entry told of; undefined for what nobody would miss, or what counts no more. */
function sayAgain({ entry, place: { author } }: HeldEntry, standing: Standing): Entry | undefined {
  switch (entry.kind) {
    case 'ban':
      return standing.bans().get(entry.peer)?.includes(entry.ban) === true ? entry : undefined;
    case 'revoke': {
      const { key } = entry;
      const revoked = standing.key(key, author)?.revoked;
      return revoked && { kind: 'revoke', key, fromMs: revoked.fromMs, cut: revoked.cut };
    }
    case 'terms': {
      const { key } = entry;
      const terms = standing.key(key, author)?.terms;
      return terms && { kind: 'terms', key, terms };
    }
    case 'account': {
      const { account } = entry;
      const known = standing.account(account, author);
      if (known === undefined) return undefined;
      const { limits, strict, budget } = known;
      return { kind: 'account', account, limits, strict, ...(budget === undefined ? {} : { budget }) };
    }
    case 'erase':
    case 'price':
    case 'lease':
    case 'writeoff':
      // Said twice they mean what they meant; a node that lacks a price would refuse the lines made under it.
      return entry;
    default:
      return undefined;
  }
}

/** Entries of one author that stand behind holes. */
export class Unheard {
  readonly #author: AuthorId | undefined;
  #held: HeldEntry[] = [];
  #isOpen = false;

  /** @param author Undefined where no issuer's key is held. */
  constructor(author: AuthorId | undefined) {
    this.#author = author;
  }

  get isEmpty(): boolean {
    return this.#held.length === 0;
  }

  /** Told of every entry; those that come after the start stand behind nothing. */
  found(held: HeldEntry): void {
    if (!this.#isOpen && held.place.author === this.#author) this.#held.push(held);
  }

  /** All that is on disk was found. */
  opened(feeds: Pick<Feeds, 'headOf'>): void {
    this.#isOpen = true;
    this.#trim(feeds);
  }

  /** What others have filled in is no hole any more. */
  #trim(feeds: Pick<Feeds, 'headOf'>): void {
    this.#held = this.#held.filter(({ place: { author, epoch, number } }) => {
      const head = feeds.headOf(author, epoch);
      return head === undefined || number > head.number;
    });
  }

  /** What to say again before anything else, each once; nothing from then on. */
  take(feeds: Pick<Feeds, 'headOf'>, standing: Standing): readonly Entry[] {
    this.#trim(feeds);
    const again = new Map<string, Entry>();
    for (const held of this.#held) {
      const entry = sayAgain(held, standing);
      if (entry !== undefined) again.set(JSON.stringify(entry), entry);
    }
    this.#held = [];
    return [...again.values()];
  }
}
