/** The entries of feeds: what changes a grant after it was made, each as canonical CBOR of its own kind. */

import { decodeValue, encodeValue, type Value } from '../protocol/codec.ts';
import { fromHex, toHex } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import {
  givenRates,
  type KeyRole,
  type KeyTerms,
  keyGatewaysMax,
  keyModelsMax,
  type RateLimits,
  type Role,
  rateMax,
} from '../protocol/grants.ts';
import {
  type AccountId,
  type EpochId,
  isAccountId,
  isOwnerId,
  isPeerId,
  type KeyId,
  type OwnerId,
  type PeerId,
} from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { regionMaxChars } from '../protocol/messages/session-fields.ts';
import { givenPreferences, isRegion, keyNodesMax, type Preferences, preferred } from '../protocol/preferences.ts';
import { Reader } from '../protocol/reader.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import { momentMaxMs } from './line.ts';
import { type Budget, type MoneyEntry, moneyParsers, readBudget, writeBudget, writeMoney } from './money.ts';
import { type UsageEntry, usageParsers, writeUsage } from './statement.ts';

/** First entry of every epoch: proves that its author may write, and names the newest block known before it. */
export interface AuthorEntry {
  readonly kind: 'author';
  readonly role: 'issuer' | 'gateway';
  /** The gateway that writes; an issuer's key is held by one. */
  readonly peer: PeerId;
  /** The issuer's certificate; of a gateway, that of the issuer that admitted it. */
  readonly certificate: string;
  /** A gateway's membership; empty for an issuer. */
  readonly membership: string;
  readonly after?: { readonly epoch: EpochId; readonly number: number };
}
/** The issuer admitted a peer, by an invite or (empty) as its own. Written before the membership leaves. */
export interface MemberEntry {
  readonly kind: 'member';
  /** 32 hex characters, or empty. */
  readonly invite: string;
  readonly peer: PeerId;
  readonly role: Role;
  readonly owner: OwnerId;
  readonly expiresMs: UnixMs;
}
/** The peer belongs to the mesh no more, whoever admitted it. */
export interface BanEntry {
  readonly kind: 'ban';
  readonly peer: PeerId;
  /** 32 hex characters, drawn; what an `unban` names. */
  readonly ban: string;
}
/** Takes back the bans it names, and no others. */
export interface UnbanEntry {
  readonly kind: 'unban';
  readonly peer: PeerId;
  readonly bans: readonly string[];
}
/** An account of this issuer, or new terms for it. */
export interface AccountEntry {
  readonly kind: 'account';
  readonly account: AccountId;
  /** Of all its keys together. */
  readonly limits: RateLimits;
  readonly strict: boolean;
  /** What all its keys together may spend; absent: as much as they like. */
  readonly budget?: Budget;
}
/** A key was made. It grants by its own signature; this lets it be listed. */
export interface KeyEntry {
  readonly kind: 'key';
  readonly key: KeyId;
  readonly account: AccountId;
  readonly role: KeyRole;
  readonly gateways: readonly PeerId[];
  readonly terms: KeyTerms;
  /** The key it takes the place of, when one was rotated. */
  readonly replaces?: KeyId;
}
/** From now on these terms count for the key, in place of those in its token and of earlier ones. */
export interface TermsEntry {
  readonly kind: 'terms';
  readonly key: KeyId;
  readonly terms: KeyTerms;
}
/** The key is good for nothing from `fromMs` on; never taken back. */
export interface RevokeEntry {
  readonly kind: 'revoke';
  readonly key: KeyId;
  readonly fromMs: UnixMs;
  /** Requests under way end, too. */
  readonly cut: boolean;
}
/** The account is closed for good: none of its keys counts, and no gateway tells any more which tags were its. */
export interface EraseEntry {
  readonly kind: 'erase';
  readonly account: AccountId;
}
/** Of a kind that this version does not know: kept and passed on, without effect here. */
export interface OtherEntry {
  readonly kind: 'other';
  readonly number: number;
  readonly bytes: Uint8Array;
}

/** Everything that a feed may hold. */
export type Entry =
  | AuthorEntry
  | MemberEntry
  | BanEntry
  | UnbanEntry
  | AccountEntry
  | KeyEntry
  | TermsEntry
  | RevokeEntry
  | EraseEntry
  | MoneyEntry
  | UsageEntry
  | OtherEntry;

/** Kinds below `accountsFrom` are open: nodes get them too. The others only gateways get (design §6). */
const accountsFrom = 64;
const number = {
  author: 0,
  member: 1,
  ban: 2,
  unban: 3,
  account: accountsFrom,
  key: accountsFrom + 1,
  terms: accountsFrom + 2,
  revoke: accountsFrom + 3,
  // 68 and 69 are money's.
  erase: accountsFrom + 6,
} as const;

const kindMax = 65_535;
const unbansMax = 64;

const writeLimits = ({ rpm, tpm, concurrency }: RateLimits): Value => [rpm ?? null, tpm ?? null, concurrency ?? null];
const writePreferences = ({ prefer, region, nodes }: Preferences): Value => [
  prefer === undefined ? null : preferred.indexOf(prefer),
  region ?? null,
  nodes?.allow ?? null,
  nodes?.deny ?? [],
];
const writeTerms = ({ models, limits: rates, expiresMs, preferences }: KeyTerms): Value => [
  models,
  writeLimits(rates),
  expiresMs ?? null,
  ...(preferences === undefined ? [] : [writePreferences(preferences)]),
];

const writeAccount = ({ account, limits: rates, strict, budget }: AccountEntry): Value => [
  number.account,
  account,
  writeLimits(rates),
  strict,
  ...(budget === undefined ? [] : [writeBudget(budget)]),
];

function write(entry: Exclude<Entry, OtherEntry>): Value {
  switch (entry.kind) {
    case 'author': {
      const { role, peer, certificate, membership, after } = entry;
      const place = after === undefined ? null : [fromHex(after.epoch), after.number];
      return [number.author, role === 'issuer' ? 0 : 1, peer, certificate, membership, place];
    }
    case 'member': {
      const { invite, peer, role, owner, expiresMs } = entry;
      return [number.member, fromHex(invite), peer, role === 'node' ? 0 : 1, owner, expiresMs];
    }
    case 'ban':
      return [number.ban, entry.peer, fromHex(entry.ban)];
    case 'unban':
      return [number.unban, entry.peer, entry.bans.map(fromHex)];
    case 'account':
      return writeAccount(entry);
    case 'key': {
      const { key, account, role, gateways, terms, replaces } = entry;
      const old = replaces === undefined ? null : fromHex(replaces);
      return [number.key, fromHex(key), account, roles.indexOf(role), gateways, writeTerms(terms), old];
    }
    case 'terms':
      return [number.terms, fromHex(entry.key), writeTerms(entry.terms)];
    case 'revoke':
      return [number.revoke, fromHex(entry.key), entry.fromMs, entry.cut];
    case 'erase':
      return [number.erase, entry.account];
    case 'price':
    case 'lease':
    case 'writeoff':
      return writeMoney(entry);
    case 'statement':
    case 'countersign':
    case 'claim':
    case 'close':
      return writeUsage(entry);
  }
}

const roles: readonly KeyRole[] = ['user', 'operator', 'admin'];

/** A statement is written out twice, by one caller after the other: for its hash, and for its block. */
const statementBytes = new WeakMap<Entry, Uint8Array>();

/** The bytes of an entry; they are not to be changed. @throws HelixFlowError FRAME_TOO_LARGE above `limits.entryMaxBytes`. */
export function encodeEntry(entry: Entry): Uint8Array {
  const known = statementBytes.get(entry);
  if (known !== undefined) {
    statementBytes.delete(entry);
    return known;
  }
  const bytes = (entry.kind === 'other' ? entry.bytes : encodeValue(write(entry))).slice();
  if (bytes.length > limits.entryMaxBytes) {
    throw new HelixFlowError('FRAME_TOO_LARGE', { bytes: bytes.length, maxBytes: limits.entryMaxBytes });
  }
  if (entry.kind === 'statement') statementBytes.set(entry, bytes);
  return bytes;
}

const malformed = (reason: string): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: `entry: ${reason}` });

function checked<T extends string>(text: string, isIt: (text: unknown) => text is T, what: string): T {
  if (!isIt(text)) throw malformed(`no ${what}`);
  return text;
}

const readPeer = (r: Reader): PeerId => checked(r.text(64), isPeerId, 'peer id');
const readAccount = (r: Reader): AccountId => checked(r.text(64), isAccountId, 'account');
const readKey = (r: Reader): KeyId => toHex(r.bytes(8, 8)) as KeyId;
const readMoment = (r: Reader): UnixMs => unixMs(r.int(momentMaxMs));
const readRate = (r: Reader): number | undefined => r.optional((rate) => rate.int(rateMax, 1));

const readLimits = (row: Reader): RateLimits =>
  givenRates({ rpm: readRate(row), tpm: readRate(row), concurrency: readRate(row) });

function readRegion(r: Reader): string {
  const region = r.text(regionMaxChars);
  if (!isRegion(region)) throw malformed('no region');
  return region;
}

const readNodes = (r: Reader): PeerId[] => r.list(keyNodesMax, (peer) => readPeer(new Reader([peer], 'node')));

const readPreferences = (row: Reader): Preferences | undefined =>
  givenPreferences({
    prefer: row.optional((r) => preferred[r.int(preferred.length - 1)]),
    region: row.optional(readRegion),
    allow: row.optional(readNodes),
    deny: readNodes(row),
  });

function readTerms(row: Reader): KeyTerms {
  const models = row.list(keyModelsMax, (model) => new Reader([model], 'model').text(limits.modelNameMaxChars));
  const rates = readLimits(row.row());
  const expiresMs = row.optional(readMoment);
  const preferences = row.hasMore ? readPreferences(row.row()) : undefined;
  return {
    models,
    limits: rates,
    ...(expiresMs === undefined ? {} : { expiresMs }),
    ...(preferences === undefined ? {} : { preferences }),
  };
}

const readBan = (value: Value): string => toHex(new Reader([value], 'ban').bytes(16, 16));

function readAuthor(r: Reader): AuthorEntry {
  const entry = {
    kind: 'author',
    role: r.int(1) === 0 ? 'issuer' : 'gateway',
    peer: readPeer(r),
    certificate: r.text(limits.tokenMaxChars),
    membership: r.text(limits.tokenMaxChars),
  } as const;
  const after = r.optional((place) => {
    const row = place.row();
    return { epoch: toHex(row.bytes(16, 16)) as EpochId, number: row.int() };
  });
  return after === undefined ? entry : { ...entry, after };
}

function readMember(r: Reader): MemberEntry {
  const invite = r.bytes(16);
  if (invite.length !== 0 && invite.length !== 16) throw malformed('no invite');
  return {
    kind: 'member',
    invite: toHex(invite),
    peer: readPeer(r),
    role: r.int(1) === 0 ? 'node' : 'gateway',
    owner: checked(r.text(64), isOwnerId, 'owner'),
    expiresMs: readMoment(r),
  };
}

function readKeyMade(r: Reader): KeyEntry {
  const entry = {
    kind: 'key',
    key: readKey(r),
    account: readAccount(r),
    role: roles[r.int(roles.length - 1)] as KeyRole,
    gateways: r.list(keyGatewaysMax, (peer) => readPeer(new Reader([peer], 'gateway'))),
    terms: readTerms(r.row()),
  } as const;
  const replaces = r.optional(readKey);
  return replaces === undefined ? entry : { ...entry, replaces };
}

const parsers: Readonly<Record<number, (r: Reader) => Entry>> = {
  ...moneyParsers,
  ...usageParsers,
  [number.author]: readAuthor,
  [number.member]: readMember,
  [number.ban]: (r) => ({ kind: 'ban', peer: readPeer(r), ban: toHex(r.bytes(16, 16)) }),
  [number.unban]: (r) => ({ kind: 'unban', peer: readPeer(r), bans: r.list(unbansMax, readBan) }),
  [number.account]: (r) => {
    const entry = { kind: 'account', account: readAccount(r), limits: readLimits(r.row()), strict: r.bool() } as const;
    const budget = readBudget(r);
    return budget === undefined ? entry : { ...entry, budget };
  },
  [number.key]: readKeyMade,
  [number.terms]: (r) => ({ kind: 'terms', key: readKey(r), terms: readTerms(r.row()) }),
  [number.revoke]: (r) => ({ kind: 'revoke', key: readKey(r), fromMs: readMoment(r), cut: r.bool() }),
  [number.erase]: (r) => ({ kind: 'erase', account: readAccount(r) }),
};

/**
 * Reads an entry. Fields after the known ones are ignored, so that a later version may append some.
 * @throws HelixFlowError FRAME_MALFORMED; FRAME_TOO_LARGE
 */
export function parseEntry(bytes: Uint8Array): Entry {
  if (bytes.length > limits.entryMaxBytes) {
    throw new HelixFlowError('FRAME_TOO_LARGE', { bytes: bytes.length, maxBytes: limits.entryMaxBytes });
  }
  const reader = new Reader(decodeValue(bytes), 'entry');
  const kind = reader.int(kindMax);
  return parsers[kind]?.(reader) ?? { kind: 'other', number: kind, bytes };
}

/** Who may see an entry: everyone in the mesh, or gateways only. Looks at the kind alone; meant for entries that parse. */
export const isOpenEntry = (bytes: Uint8Array): boolean => {
  const first = bytes[0] ?? 0;
  // An array's head is one byte, or says how many more there are; then the kind in as few bytes as it takes.
  const kindAt = first < 0x98 ? 1 : 1 + 2 ** (first - 0x98);
  const kind = bytes[kindAt] ?? 0;
  return kind < 24 || (kind === 24 && (bytes[kindAt + 1] ?? 0) < accountsFrom);
};
