/** Texts that are no API keys of a mesh, however close they come: what attackers try, drawn from a seed. */

import { createHmac, createPrivateKey, sign } from 'node:crypto';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { keyFromSeed, sha256, toBase64Url } from '../../protocol/crypto.ts';
import { type KeyGrant, signKey, signMembership } from '../../protocol/grants.ts';
import type { AccountId, KeyId, MeshId, OwnerId, PeerId } from '../../protocol/ids.ts';
import { signInvite } from '../../protocol/invites.ts';
import { issuerOf, type NewMesh } from '../../protocol/mesh.ts';
import type { SigningKey } from '../../protocol/ports.ts';
import { type UnixMs, unixMs } from '../../protocol/units.ts';

const tokens = createJoseTokens();
const attacker = keyFromSeed(sha256('attacker'));
const prefix = 'sk-hx-';
const peerId = '12D3KooWAttacker' as PeerId;

export interface Mutation {
  /** What was tried, for the message of a test that fails. */
  readonly kind: string;
  readonly text: string;
}

/** Numbers from 0 to `below` − 1 that follow from the seed (mulberry32). */
export type Draw = (below: number) => number;

export function drawFrom(seed: number): Draw {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const pick = <T>(draw: Draw, list: readonly T[]): T => list[draw(list.length)] as T;
const encode = (value: string | object): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const decode = (segment: string): string => Buffer.from(segment, 'base64url').toString();

function privateKeyOf({ seed, publicKey }: SigningKey): ReturnType<typeof createPrivateKey> {
  const jwk = { kty: 'OKP', crv: 'Ed25519', d: toBase64Url(seed), x: toBase64Url(publicKey) };
  return createPrivateKey({ key: jwk, format: 'jwk' });
}

export interface Forge {
  /** Keys that are good, to begin with; never a mutation. */
  readonly good: readonly string[];
  /** One mutation. */
  next(draw: Draw): Mutation;
  /** Every flip of one bit of the first good key. */
  flips(): Generator<Mutation>;
}

/** Signed tokens of other kinds, of the same issuer and root: as keys they are none. */
async function otherKinds({ mesh, issuer }: NewMesh, nowMs: UnixMs): Promise<readonly string[]> {
  const signing = { tokens, nowMs };
  const { meshId, rootPublicKey } = mesh;
  const who = issuerOf(issuer).issuer;
  const expiresMs = unixMs(nowMs + 86_400_000);
  const membership = {
    meshId,
    issuer: who,
    peer: peerId,
    role: 'gateway',
    owner: 'eve' as OwnerId,
    expiresMs,
  } as const;
  const invite = await signInvite(
    {
      meshId,
      issuer: who,
      inviteId: 'ab'.repeat(16),
      role: 'node',
      uses: 1,
      network: 'lan',
      gateways: [{ peer: peerId, addresses: ['/ip4/127.0.0.1/tcp/1'] }],
      rootPublicKey,
      certificate: issuer.certificate,
      expiresMs,
    },
    issuer.key,
    signing,
  );
  const parts = invite.split('.');
  return [await signMembership(membership, issuer.key, signing), issuer.certificate, parts.slice(-3).join('.'), invite];
}

/** Claims that an issuer must never be believed, whoever signed them. */
const wrongClaims = (meshId: MeshId, nowS: number): readonly Record<string, unknown>[] => [
  { aud: undefined },
  { aud: [meshId] },
  { aud: 'ff'.repeat(32) },
  { aud: meshId.toUpperCase() },
  { aud: `${meshId} ` },
  { iss: undefined },
  { iss: meshId },
  { iss: '__proto__' },
  { iss: 'ff'.repeat(16) },
  { sub: undefined },
  { sub: '' },
  { sub: 'ABCDEF0123456789' },
  { sub: ['0123456789abcdef'] },
  { iat: undefined },
  { iat: 'now' },
  { iat: 1e300 },
  { iat: nowS + 3_600 },
  { iat: nowS + 0.5 },
  { exp: nowS - 1 },
  { exp: 0 },
  { exp: -1 },
  { exp: null },
  { exp: '9999999999' },
  { exp: 1e300 },
  { exp: nowS + 0.5 },
  { exp: { valueOf: 9e9 } },
  { nbf: nowS + 3_600 },
  { account: undefined },
  { account: '../root' },
  { account: '' },
  { account: 'a'.repeat(65) },
  { account: { toString: 'root' } },
  { role: undefined },
  { role: 'root' },
  { role: 'Admin' },
  { role: ['admin'] },
  { models: undefined },
  { models: 'helix*' },
  { models: [7] },
  { models: Array(65).fill('m') },
  { models: ['x'.repeat(129)] },
  { limits: { rpm: 0 } },
  { limits: { rpm: -1 } },
  { limits: { tpm: 1e99 } },
  { limits: { concurrency: 1.5 } },
  { limits: { rpm: '10' } },
  { limits: { unknown: 1 } },
  { limits: null },
  { gateways: 'all' },
  { gateways: ['not a peer'] },
  { gateways: Array(17).fill(peerId) },
  { strict: 'yes' },
];

const nasties: readonly string[] = [
  '',
  'null',
  '[]',
  '""',
  '{"__proto__":{"polluted":true,"alg":"EdDSA"}}',
  '{"constructor":{"prototype":{"polluted":true}}}',
  `${'['.repeat(900)}${']'.repeat(900)}`,
  `${'{"a":'.repeat(400)}1${'}'.repeat(400)}`,
  '{"iss":1e400}',
  '{"iss":"\\ud800"}',
  '{"iss":"\\u0000"}',
  '\ufeff{}',
  '{"a":1}{"b":2}',
  '{"a":1,}',
  "{'a':1}",
  '{"toString":null,"valueOf":null}',
  '{"then":"x"}',
];

const unicode = [
  '\u0430',
  '\uff21',
  '\u200b',
  '\ufeff',
  '\u202e',
  '\u0000',
  '\ud800',
  '😀',
  '\u0301',
  '\u00a0',
  '\r\n',
  '\t',
];
const ciphers = [
  'none',
  'None',
  'NONE',
  'nOnE',
  '',
  'HS256',
  'HS384',
  'HS512',
  'RS256',
  'PS256',
  'ES256',
  'ES512',
  'Ed25519',
  'Ed448',
  'EDDSA',
  'eddsa',
  'dir',
  'A256KW',
];

/** Makes the forge for one mesh. @param nowMs The wall clock of whoever checks. */
export async function openForge(ours: NewMesh, theirs: NewMesh, nowMs: UnixMs): Promise<Forge> {
  const signing = { tokens, nowMs };
  const { meshId } = ours.mesh;
  const issuer = issuerOf(ours.issuer).issuer;
  const grant: KeyGrant = {
    keyId: '0123456789abcdef' as KeyId,
    issuer,
    account: 'team-a' as AccountId,
    role: 'user',
    models: ['helix*'],
    limits: { rpm: 60, tpm: 10_000, concurrency: 4 },
    gateways: [],
    strict: false,
    expiresMs: unixMs(nowMs + 86_400_000),
  };
  const good = await Promise.all(
    [{}, { keyId: 'fedcba9876543210' as KeyId, role: 'admin', gateways: [peerId] } as const].map((changes) =>
      signKey({ ...grant, ...changes, meshId }, ours.issuer.key, signing),
    ),
  );
  const foreignIssuer = issuerOf(theirs.issuer).issuer;
  const foreign = [
    await signKey({ ...grant, issuer: foreignIssuer, meshId: theirs.mesh.meshId }, theirs.issuer.key, signing),
    await signKey({ ...grant, issuer: foreignIssuer, meshId }, theirs.issuer.key, signing),
  ];
  const others = await otherKinds(ours, nowMs);
  const [first = ''] = good;
  const segments = first.slice(prefix.length).split('.') as [string, string, string];
  const header = JSON.parse(decode(segments[0])) as Record<string, unknown>;
  const claims = JSON.parse(decode(segments[1])) as Record<string, unknown>;
  const wrong = wrongClaims(meshId, Math.floor(nowMs / 1_000));
  const keys = { issuer: privateKeyOf(ours.issuer.key), attacker: privateKeyOf(attacker) };

  const signed = (head: string | object, body: string | object, by: 'issuer' | 'attacker'): string => {
    const input = `${encode(head)}.${encode(body)}`;
    return `${prefix}${input}.${sign(null, Buffer.from(input), keys[by]).toString('base64url')}`;
  };
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: toBase64Url(attacker.publicKey) };
  const headers: readonly Record<string, unknown>[] = [
    { jwk },
    { jwk, kid: undefined },
    { jku: 'https://attacker.example/keys' },
    { x5u: 'https://attacker.example/cert' },
    { x5c: [Buffer.from('certificate').toString('base64')] },
    { kid: foreignIssuer },
    { kid: meshId },
    { kid: '../../../../etc/passwd' },
    { kid: "' OR 1=1 --" },
    { kid: ['x'] },
    { kid: { $ne: null } },
    { crit: ['b64'], b64: false },
    { crit: ['new'], new: 1 },
    { crit: [] },
    { crit: 'b64' },
    { zip: 'DEF' },
    { enc: 'A256GCM', alg: 'dir' },
    { typ: 'JWT' },
    { typ: 'hx-issuer+jwt' },
    { typ: 'hx-member+jwt' },
    { typ: 'hx-invite+jwt' },
    { typ: undefined },
    { cty: 'JWT' },
  ];

  const kinds: Readonly<Record<string, (draw: Draw) => string>> = {
    'a flipped bit': (draw) => {
      const at = draw(first.length);
      return first.slice(0, at) + String.fromCharCode(first.charCodeAt(at) ^ (1 << draw(8))) + first.slice(at + 1);
    },
    'a changed, added or dropped character': (draw) => {
      const text = pick(draw, good);
      const at = draw(text.length + 1);
      const letter = pick(draw, [...'ABCXYZabcxyz0189-_.+/= ']);
      return text.slice(0, at) + (draw(3) === 0 ? '' : letter) + text.slice(at + draw(2));
    },
    truncated: (draw) => {
      const text = pick(draw, good);
      return draw(2) === 0 ? text.slice(0, draw(text.length)) : text.slice(1 + draw(text.length));
    },
    huge: (draw) => {
      const text = pick(draw, good);
      const pad = pick(draw, ['A', '.', 'é', '=']).repeat(1 + draw(20_000));
      return pick(draw, [text + pad, prefix + pad, prefix + pad + text.slice(prefix.length), pad + text]);
    },
    'without a signature, or with a short one': (draw) => {
      const head = { ...header, alg: pick(draw, ciphers) };
      const signature = pick(draw, ['', segments[2], 'A'.repeat(86), 'A'.repeat(85), 'AA', `${'_'.repeat(85)}w`]);
      return `${prefix}${encode(head)}.${encode({ ...claims, role: 'admin' })}.${signature}`;
    },
    'signed with the public key as a secret': (draw) => {
      const input = `${encode({ ...header, alg: pick(draw, ['HS256', 'EdDSA']) })}.${encode(claims)}`;
      const { publicKey } = ours.issuer.key;
      const secret = pick<string | Uint8Array>(draw, [publicKey, toBase64Url(publicKey), issuer, meshId, '']);
      const mac = createHmac(pick(draw, ['sha256', 'sha512']), secret)
        .update(input)
        .digest('base64url');
      return `${prefix}${input}.${mac}`;
    },
    'another algorithm, signed by the issuer': (draw) =>
      signed({ ...header, alg: pick(draw, ciphers) }, claims, 'issuer'),
    'a header that wants to choose its key': (draw) =>
      signed({ ...header, ...pick(draw, headers) }, claims, 'attacker'),
    'a header that wants to choose its key, with the old signature': (draw) =>
      `${prefix}${encode({ ...header, ...pick(draw, headers) })}.${segments[1]}.${segments[2]}`,
    'claims of the attacker’s own': (draw) =>
      signed(
        header,
        { ...claims, role: pick(draw, ['user', 'operator', 'admin']), sub: `${draw(10)}`.repeat(16) },
        'attacker',
      ),
    'claims that no issuer may make': (draw) => signed(header, { ...claims, ...pick(draw, wrong) }, 'issuer'),
    'claims of two tokens': (draw) => {
      const [a, b] = [pick(draw, [...good, ...foreign]), pick(draw, [...good, ...foreign])].map((text) =>
        text.slice(prefix.length).split('.'),
      );
      const [mine = [], yours = []] = [a, b];
      return prefix + [mine[0], yours[1], pick(draw, [mine, yours])[2]].join('.');
    },
    'a token of another kind': (draw) => pick(draw, ['', prefix, 'sk-', 'hx-invite-']) + pick(draw, others),
    'a token of another mesh': (draw) => pick(draw, foreign),
    'base64 that is not canonical': (draw) => {
      const parts = [...segments];
      const at = draw(3);
      const part = parts[at] ?? '';
      const last = part.charCodeAt(part.length - 1);
      const spare = part.slice(0, -1) + String.fromCharCode(last + 1);
      const where = draw(part.length);
      parts[at] = pick(draw, [
        spare,
        `${part}=`,
        `${part}==`,
        `${part}A`,
        `${part.slice(0, where)} ${part.slice(where)}`,
        `${part.slice(0, where)}\n${part.slice(where)}`,
        part.includes('-') || part.includes('_') ? part.replaceAll('-', '+').replaceAll('_', '/') : `${part}+`,
      ]);
      return prefix + parts.join('.');
    },
    'members twice': (draw) => {
      const twice = (object: object, extra: string): string => `${JSON.stringify(object).slice(0, -1)},${extra}}`;
      const head = pick(draw, [
        twice(header, '"alg":"none"'),
        twice(header, `"kid":"${foreignIssuer}"`),
        `{"alg":"none",${JSON.stringify(header).slice(1)}`,
        JSON.stringify(header),
      ]);
      const body = twice(claims, pick(draw, ['"role":"admin"', '"sub":"0000000000000000"', '"iss":"x"', '"exp":9e15']));
      const input = `${encode(head)}.${encode(body)}`;
      return pick(draw, [signed(head, body, 'attacker'), `${prefix}${input}.${segments[2]}`]);
    },
    'JSON that bites': (draw) =>
      pick(draw, [
        signed(pick(draw, nasties), claims, pick(draw, ['issuer', 'attacker'] as const)),
        signed(header, pick(draw, nasties), pick(draw, ['issuer', 'attacker'] as const)),
        `${prefix}${encode(pick(draw, nasties))}.${encode(pick(draw, nasties))}.${segments[2]}`,
      ]),
    'bytes that are no text': (draw) => {
      const bytes = Buffer.from(Array.from({ length: 1 + draw(200) }, () => draw(256)));
      const junk = bytes.toString('base64url');
      return (
        prefix +
        pick(draw, [
          `${junk}.${junk}.${segments[2]}`,
          `${segments[0]}.${junk}.${segments[2]}`,
          bytes.toString('latin1'),
        ])
      );
    },
    'signs of other alphabets': (draw) => {
      const text = pick(draw, good);
      const at = draw(text.length + 1);
      return text.slice(0, at) + pick(draw, unicode) + text.slice(at + draw(2));
    },
    'another prefix': (draw) =>
      pick(draw, ['', 'sk-', 'SK-HX-', 'sk-hx_', 'sk-hx-sk-hx-', ' sk-hx-', 'Bearer sk-hx-', 'hx-key-']) +
      first.slice(prefix.length),
  };
  const names = Object.keys(kinds);
  // Made by the same hands as the mutations: were it refused, so would they be, for the wrong reason.
  const control = signed(header, { ...claims, note: 'a claim of a later version' }, 'issuer');

  return {
    good: [...good, control],
    next: (draw) => {
      for (;;) {
        const kind = pick(draw, names);
        const text = kinds[kind]?.(draw) ?? '';
        if (!good.includes(text)) return { kind, text };
      }
    },
    *flips() {
      for (let at = 0; at < first.length; at += 1) {
        for (let bit = 0; bit < 8; bit += 1) {
          const flipped = String.fromCharCode(first.charCodeAt(at) ^ (1 << bit));
          yield { kind: `bit ${bit} of character ${at}`, text: first.slice(0, at) + flipped + first.slice(at + 1) };
        }
      }
    },
  };
}
