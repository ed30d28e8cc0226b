/** The standing as its rules say, slowly and over everything at once: what the fold is compared with. */

import { type Entry, encodeEntry } from '../../ledger/entry.ts';
import type { EntryPlace, HeldEntry } from '../../ledger/feeds.ts';
import { narrowBudget, narrowLimits, narrowTerms } from '../../ledger/narrow.ts';
import type { Standing, StandingRules } from '../../ledger/standing.ts';

type Kind<K extends Entry['kind']> = HeldEntry & { readonly entry: Entry & { readonly kind: K } };

const nameOf = ({ place, entry }: HeldEntry): string => {
  const { author, generation, epoch, number, index } = place;
  const digits = [generation, number, index].map((part) => String(part).padStart(6, '0'));
  return [author, digits[0], epoch, digits[1], digits[2], Buffer.from(encodeEntry(entry)).toString('hex')].join('/');
};
/** Text that sorts as places do. */
const rank = (place: EntryPlace): string => {
  const { generation, epoch, number, index } = place;
  const [g, n, i] = [generation, number, index].map((part) => String(part).padStart(6, '0'));
  return `${g}/${epoch}/${n}/${i}`;
};

/** Each entry once, in the order of its place, marked as after a fork when it ever was. */
function settle(told: readonly HeldEntry[]): HeldEntry[] {
  const once = new Map<string, HeldEntry>();
  for (const held of told) {
    const known = once.get(nameOf(held));
    const isAfterFork = held.place.isAfterFork || known?.place.isAfterFork === true;
    once.set(nameOf(held), { ...held, place: { ...held.place, isAfterFork } });
  }
  return [...once].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, held]) => held);
}

const groups = <T>(items: readonly T[], by: (item: T) => string): T[][] => {
  const found = new Map<string, T[]>();
  for (const item of items) found.set(by(item), [...(found.get(by(item)) ?? []), item]);
  return [...found.values()];
};

/** Everything that can be asked, as plain values in a fixed order. */
export function expectedOf(told: readonly HeldEntry[], rules: StandingRules) {
  const all = settle(told).filter(({ place }) => rules.counts(place.author));
  const of = <K extends Entry['kind']>(kind: K): Kind<K>[] =>
    all.filter((held): held is Kind<K> => held.entry.kind === kind);

  const mayGive = ({ place }: HeldEntry): boolean => {
    const end = rules.endOf(place.author);
    if (place.isAfterFork) return false;
    if (end === undefined) return true;
    const { last } = end;
    if (last === undefined) return false;
    if (place.epoch === last.epoch) return place.number <= last.number;
    const sibling = told.find((other) => other.place.author === place.author && other.place.epoch === last.epoch);
    if (sibling === undefined) return false;
    return rank(place) <= rank({ ...sibling.place, number: last.number, index: 999_999 });
  };
  /** From the newest that may give on; all, where none may. */
  const counting = <T extends HeldEntry>(said: readonly T[]): { counts: readonly T[]; hasBase: boolean } => {
    const newest = said
      .filter(mayGive)
      .map(({ place }) => rank(place))
      .sort()
      .at(-1);
    if (newest === undefined) return { counts: said, hasBase: false };
    return { counts: said.filter(({ place }) => rank(place) >= newest), hasBase: true };
  };

  const aboutKeys = [...of('key'), ...of('terms'), ...of('revoke')];
  const keys = groups(aboutKeys, ({ entry, place }) => `${place.author}/${entry.key}`).map((said) => {
    const [
      {
        entry: { key },
        place: { author },
      },
    ] = said as [Kind<'key'>];
    const first = of('key').find((held) => held.place.author === author && held.entry.key === key);
    const terms = of('terms').filter((held) => held.place.author === author && held.entry.key === key);
    const { counts, hasBase } = counting(terms);
    const heard = counts.map(({ entry }) => entry.terms);
    const base = hasBase || first === undefined || terms.length === 0 ? [] : [first.entry.terms];
    const revokes = of('revoke').filter((held) => held.place.author === author && held.entry.key === key);
    const { kind: _, key: __, ...made } = first?.entry ?? { kind: '', key: '' };
    return {
      key,
      by: author,
      ...(first === undefined ? {} : { made: { ...made, atMs: first.place.timeMs } }),
      ...(heard.length === 0 ? {} : { terms: [...base, ...heard].reduce(narrowTerms) }),
      ...(revokes.length === 0
        ? {}
        : {
            revoked: {
              fromMs: Math.min(...revokes.map(({ entry }) => entry.fromMs)),
              cut: revokes.some(({ entry }) => entry.cut),
            },
          }),
    };
  });

  const aboutAccounts = [...of('account'), ...of('erase')];
  const accounts = groups(aboutAccounts, ({ entry, place }) => `${place.author}/${entry.account}`).map((said) => {
    const terms = said.filter((held): held is Kind<'account'> => held.entry.kind === 'account');
    const { counts } = counting(terms);
    const [
      {
        entry: { account },
        place: { author: by },
      },
    ] = said as [Kind<'account'>];
    const budget = counts.map((each) => each.entry.budget).reduce(narrowBudget, undefined);
    return {
      account,
      by,
      limits: counts.map(({ entry }) => entry.limits).reduce(narrowLimits, {}),
      strict: counts.some(({ entry }) => entry.strict),
      ...(budget === undefined ? {} : { budget }),
      ...(terms.length < said.length ? { isErased: true } : {}),
      createdMs: Math.min(...said.map(({ place }) => place.timeMs)),
    };
  });

  const lifted = new Set(
    of('unban')
      .filter(mayGive)
      .flatMap(({ entry }) => entry.bans.map((ban) => `${entry.peer}/${ban}`)),
  );
  const inForce = of('ban').filter(({ entry }) => !lifted.has(`${entry.peer}/${entry.ban}`));
  const bans = groups(inForce, ({ entry }) => entry.peer).map((said) => ({
    peer: (said[0] as Kind<'ban'>).entry.peer,
    bans: [...new Set(said.map(({ entry }) => entry.ban))].sort(),
    by: [...new Set(said.map(({ place }) => place.author))].sort(),
  }));

  const members = groups(of('member'), ({ entry, place }) => `${place.author}/${entry.peer}`).map((said) => {
    const { kind: _, ...newest } = (said.at(-1) as Kind<'member'>).entry;
    const admittedMs = Math.min(...said.map(({ place }) => place.timeMs));
    return { ...newest, by: (said[0] as Kind<'member'>).place.author, admittedMs };
  });

  const invited = of('member').filter(({ entry }) => entry.invite !== '');
  const invites = groups(invited, ({ entry, place }) => `${place.author}/${entry.invite}`).map((said) => ({
    invite: (said[0] as Kind<'member'>).entry.invite,
    by: (said[0] as Kind<'member'>).place.author,
    // Of two branches' peers in one place the order is not part of the rules.
    peers: [...new Set(said.map(({ entry }) => entry.peer))].sort(),
  }));
  return sorted({ keys, accounts, bans, members, invites });
}

type State = Record<'keys' | 'accounts' | 'bans' | 'members' | 'invites', readonly object[]>;

const idOf = (item: object): string => {
  const { by, key, account, peer, invite } = item as Readonly<Record<string, unknown>>;
  return [by, key, account, peer, invite].join('/');
};

const sortedList = (list: readonly object[]): readonly object[] =>
  list.toSorted((a, b) => (idOf(a) < idOf(b) ? -1 : 1));

const sorted = ({ keys, accounts, bans, members, invites }: State): State => ({
  keys: sortedList(keys),
  accounts: sortedList(accounts),
  bans: sortedList(bans),
  members: sortedList(members),
  invites: sortedList(invites),
});

/** The same, asked of a standing. */
export function stateOf(standing: Standing, told: readonly HeldEntry[]): State {
  const authors = [...new Set(told.map(({ place }) => place.author))].sort();
  const named = told.flatMap(({ entry }) => (entry.kind === 'member' ? [entry.invite] : []));
  const invites = [...new Set(named)].flatMap((invite) =>
    authors.flatMap((by) => {
      const peers = standing.admittedBy(invite, by);
      return peers.length === 0 ? [] : [{ invite, by, peers: [...peers].sort() }];
    }),
  );
  const bans = [...standing.bans()].map(([peer, ids]) => ({
    peer,
    bans: ids,
    by: authors.filter((author) => standing.isBanned(peer, author)),
  }));
  const { length } = bans.filter(({ peer }) => standing.isBanned(peer));
  if (length !== bans.length) throw new Error('a ban is listed that is not in force');
  return sorted({ keys: standing.keys(), accounts: standing.accounts(), bans, members: standing.members(), invites });
}
