/** Which addresses a peer may announce and others may dial: IP and TCP port of its own, or of a relay that passes on to it. */

import type { NetworkKind } from '../grants.ts';
import { isPeerId, type PeerId } from '../ids.ts';
import { limits } from '../limits.ts';

/** May it be dialled, and if not, why. */
export type AddressVerdict = { readonly ok: true } | { readonly ok: false; readonly reason: string };

/** Where a range of addresses may be dialled: in no mesh, in a `lan` mesh only. Anything else is public. */
type Scope = 'never' | 'lan';

interface Range {
  readonly bytes: readonly number[];
  readonly bits: number;
  readonly scope: Scope;
  readonly what: string;
}

const fine: AddressVerdict = { ok: true };
const refused = (reason: string): AddressVerdict => ({ ok: false, reason });

/** The four bytes of canonical dotted text: no octal, no hex, no short forms. */
function parseIp4(text: string): readonly number[] | undefined {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part))) return undefined;
  const bytes = parts.map(Number);
  return bytes.every((byte) => byte <= 255) ? bytes : undefined;
}

/** Groups of `::`-free text as bytes; the last group may be dotted. */
function parseGroups(text: string): readonly number[] | undefined {
  if (text === '') return [];
  const groups = text.split(':');
  const bytes: number[] = [];
  for (const [index, group] of groups.entries()) {
    const dotted = index === groups.length - 1 && group.includes('.') ? parseIp4(group) : undefined;
    if (dotted !== undefined) bytes.push(...dotted);
    else if (/^[0-9a-fA-F]{1,4}$/.test(group)) {
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
    } else return undefined;
  }
  return bytes;
}

/** The sixteen bytes of an IPv6 address in text form; zones are not addresses. */
function parseIp6(text: string): readonly number[] | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map(parseGroups);
  if (head === undefined) return undefined;
  if (halves.length === 1) return head.length === 16 ? head : undefined;
  if (tail === undefined || head.length + tail.length > 14 || halves[0]?.includes('.')) return undefined;
  return [...head, ...new Array<number>(16 - head.length - tail.length).fill(0), ...tail];
}

/**
 * Whom an IP address may belong to, as text: an IPv4 address alone, an IPv6 address with all of its /64, which one host
 * has as a rule. IPv4 in IPv6, as a socket for both shows it, counts as IPv4; what does not parse stands for itself.
 */
export function sourceOf(ip: string): string {
  const bytes = parseIp6(ip.split('%')[0] ?? '');
  if (bytes === undefined) return ip;
  const isMapped = bytes.every((byte, at) => at >= 12 || byte === (at < 10 ? 0 : 0xff));
  if (isMapped) return bytes.slice(12).join('.');
  return `${bytes
    .slice(0, 8)
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('')}/64`;
}

function range(cidr: string, scope: Scope, what: string): Range {
  const [text = '', bits = ''] = cidr.split('/');
  const bytes = parseIp4(text) ?? parseIp6(text) ?? [];
  return { bytes, bits: Number(bits), scope, what };
}

/** First match wins. IPv6 forms that carry an IPv4 address are refused whole: a gateway on the way could unpack them. */
const ranges: readonly Range[] = [
  range('169.254.0.0/16', 'never', 'link-local'),
  range('100.100.100.200/32', 'never', 'a metadata service'),
  range('168.63.129.16/32', 'never', 'a metadata service'),
  range('0.0.0.0/8', 'never', 'unspecified'),
  range('192.0.0.0/24', 'never', 'reserved'),
  range('192.88.99.0/24', 'never', 'reserved'),
  range('192.0.2.0/24', 'never', 'for documentation'),
  range('198.51.100.0/24', 'never', 'for documentation'),
  range('203.0.113.0/24', 'never', 'for documentation'),
  range('224.0.0.0/4', 'never', 'multicast'),
  range('240.0.0.0/4', 'never', 'broadcast or reserved'),
  range('127.0.0.0/8', 'lan', 'loopback'),
  range('10.0.0.0/8', 'lan', 'private'),
  range('172.16.0.0/12', 'lan', 'private'),
  range('192.168.0.0/16', 'lan', 'private'),
  range('100.64.0.0/10', 'lan', 'private'),
  range('198.18.0.0/15', 'lan', 'private'),
  range('::1/128', 'lan', 'loopback'),
  range('::/96', 'never', 'unspecified or IPv4 in disguise'),
  range('::ffff:0:0/96', 'never', 'IPv4 in disguise'),
  range('::ffff:0:0:0/96', 'never', 'IPv4 in disguise'),
  range('64:ff9b::/96', 'never', 'IPv4 in disguise'),
  range('64:ff9b:1::/48', 'never', 'IPv4 in disguise'),
  range('2001::/32', 'never', 'IPv4 in disguise'),
  range('2001::/23', 'never', 'reserved'),
  range('2001:db8::/32', 'never', 'for documentation'),
  range('3fff::/20', 'never', 'for documentation'),
  range('2002::/16', 'never', 'IPv4 in disguise'),
  range('fe80::/10', 'never', 'link-local'),
  range('fec0::/10', 'never', 'site-local'),
  range('ff00::/8', 'never', 'multicast'),
  range('fd00:ec2::254/128', 'never', 'a metadata service'),
  range('fd20:ce::254/128', 'never', 'a metadata service'),
  range('fc00::/7', 'lan', 'private'),
  // Of the rest, only 2000::/3 has been given to anybody.
  range('::/3', 'never', 'reserved'),
  range('4000::/2', 'never', 'reserved'),
  range('8000::/1', 'never', 'reserved'),
];

function isIn(bytes: readonly number[], { bytes: start, bits }: Range): boolean {
  if (bytes.length !== start.length) return false;
  const whole = bits >> 3;
  for (let at = 0; at < whole; at += 1) if (bytes[at] !== start[at]) return false;
  const shift = 8 - (bits & 7);
  return shift === 8 || (bytes[whole] ?? 0) >> shift === (start[whole] ?? 0) >> shift;
}

/** Splits `/ip4|ip6/…/tcp/port`; undefined for any other form. */
function parseAddress(text: string): { readonly bytes: readonly number[]; readonly port: number } | undefined {
  const [empty, family, host = '', transport, port = '', ...rest] = text.split('/');
  if (empty !== '' || rest.length > 0 || transport !== 'tcp' || !/^(0|[1-9]\d{0,4})$/.test(port)) return undefined;
  const bytes = family === 'ip4' ? parseIp4(host) : family === 'ip6' ? parseIp6(host) : undefined;
  return bytes === undefined ? undefined : { bytes, port: Number(port) };
}

const circuit = '/p2p-circuit';

/** A way through a relay, taken apart. */
export interface RelayedAddress {
  readonly relay: PeerId;
  /** Where the relay itself is dialled. */
  readonly address: string;
}

/** The address of a peer that is reached through `relay`, as others are told it. */
export const relayedAddress = ({ relay, address }: RelayedAddress): string => `${address}/p2p/${relay}${circuit}`;

/** True for a way through a relay, whether it may be taken or not. */
export const isRelayed = (text: string): boolean => text.includes(circuit);

/** Splits `<address>/p2p/<relay>/p2p-circuit`; undefined for any other form, one with a second relay included. */
export function parseRelayed(text: string): RelayedAddress | undefined {
  if (!text.endsWith(circuit)) return undefined;
  const [address = '', relay = '', ...rest] = text.slice(0, -circuit.length).split('/p2p/');
  if (rest.length > 0 || !isPeerId(relay) || isRelayed(address)) return undefined;
  return { relay, address };
}

/** True for an address that only its own machine reaches. */
export const isLoopback = (address: string): boolean =>
  address.startsWith('/ip4/127.') || address.startsWith('/ip6/::1/');

/** Judges a multiaddr in text form, without the peer id, for the meshes of `network`. */
export function checkAddress(text: string, network: NetworkKind): AddressVerdict {
  if (text.length > limits.addressMaxChars) return refused('too long');
  const address = parseAddress(parseRelayed(text)?.address ?? text);
  if (address === undefined) return refused('not of the form /ip4/…/tcp/… or /ip6/…/tcp/…');
  if (address.port < 1 || address.port > 65_535) return refused('not a port');
  const match = ranges.find((candidate) => isIn(address.bytes, candidate));
  if (match === undefined || (match.scope === 'lan' && network === 'lan')) return fine;
  return refused(match.what);
}

/** The first `limits.peerAddressesMax` distinct ones of `addresses` that may be dialled, in their order. */
export function filterAddresses(addresses: readonly string[], network: NetworkKind): string[] {
  const kept = new Set<string>();
  for (const address of addresses) {
    if (kept.size === limits.peerAddressesMax) break;
    if (checkAddress(address, network).ok) kept.add(address);
  }
  return [...kept];
}
