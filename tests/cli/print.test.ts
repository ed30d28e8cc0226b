/** What people see: a line per request, and the daemon's status on one screen. */

import { describe, test } from 'vitest';
import { printRequest } from '../../cli/banner.ts';
import { keyTable, keyText } from '../../cli/key-text.ts';
import { type DaemonStatus, printStatus } from '../../cli/status.ts';
import type { RequestRecord } from '../../gateway/http/exchange.ts';
import type { AccountId, KeyId, LeaseId, ModelDigest, PeerId, RequestId } from '../../protocol/ids.ts';
import { ms, unixMs } from '../../protocol/units.ts';

const noon = new Date(2026, 0, 1, 12, 0, 7);
const digest = '10ea0a13'.padEnd(64, '0') as ModelDigest;
const record: RequestRecord = {
  requestId: '0'.repeat(32) as RequestId,
  method: 'POST',
  route: '/v1/chat/completions',
  status: 200,
  outcome: 'ok',
  durationMs: ms(119.6),
  model: 'helix-tiny',
  isStream: true,
};

describe('a line per request', () => {
  test('says what was asked for and how it ended', ({ expect }) => {
    expect(printRequest(record, noon)).toBe('12:00:07 POST /v1/chat/completions 200 helix-tiny 120 ms');
    const failed = { ...record, status: 503, outcome: 'failed', error: 'MODEL_UNAVAILABLE' } as const;
    expect(printRequest(failed, noon)).toMatch(/ 503 helix-tiny 120 ms MODEL_UNAVAILABLE$/);
    expect(printRequest({ ...record, outcome: 'cancelled' }, noon)).toMatch(/ 120 ms cancelled$/);
  });

  test('leaves health checks out while they are well', ({ expect }) => {
    expect(printRequest({ ...record, route: '/readyz' }, noon)).toBeUndefined();
    expect(printRequest({ ...record, route: '/readyz', status: 503 }, noon)).toContain('/readyz 503');
  });

  test('cannot be used to write on the terminal', ({ expect }) => {
    const line = printRequest({ ...record, model: `\u001b[2J\r\n\u202eevil${'x'.repeat(1_000)}` }, noon) ?? '';
    expect(line).toMatch(/^[^\p{C}]{1,300}$/u);
  });
});

test('a key says until when it is good, and when its revocation counts from', ({ expect }) => {
  const key = { key: '0123456789abcdef' as KeyId, createdMs: unixMs(0) };
  const revokedFromMs = unixMs(Date.UTC(2027, 0, 1));
  const lines = (text: string, word: string) => text.split('\n').find((line) => line.startsWith(word));
  const grace = { ...key, name: 'old', state: 'active', revokedFromMs } as const;
  expect(keyTable([grace])).toContain('until 2027-01-01T00:00:00Z');
  expect(lines(keyText(grace), 'state')).toBe('state     active until 2027-01-01T00:00:00Z');
  const revoked = { ...key, state: 'revoked', revokedFromMs, cut: true } as const;
  expect(keyTable([revoked])).toMatch(/ {2}- {5}revoked /);
  expect(lines(keyText(revoked), 'key')).toContain('(no name here)');
  expect(lines(keyText(revoked), 'state')).toBe('state     revoked (counts from 2027-01-01T00:00:00Z), cut');
  expect(lines(keyText({ ...key, state: 'expired' }), 'state')).toBe('state     expired');
});

test('the status names what somebody looks for first', ({ expect }) => {
  const member = {
    peerId: '12D3KooWself',
    addresses: ['/ip4/127.0.0.1/tcp/4001'],
    reachable: 'yes',
    p2pPort: 4001,
    membership: { state: 'valid', expires: '2026-12-21T02:35:45.000Z' },
    peers: [],
    directoryPeers: 2,
    ledger: {
      writing: 'recovering',
      authors: 2,
      blocks: 40,
      issuers: [
        { issuer: '1'.repeat(32), state: 'here', ageSeconds: 3 },
        { issuer: '2'.repeat(32), state: 'stale', ageSeconds: 700, holder: '12D3KooWother' },
        { issuer: '3'.repeat(32), state: 'unheard' },
      ],
      frozen: ['f'.repeat(64)],
      damaged: [{ author: 'd'.repeat(64), number: 7, reason: 'its hash does not fit' }],
    },
  } as const;
  const served = { done: 3, failed: 1, cancelled: 0 };
  const status: DaemonStatus = {
    schemaVersion: 1,
    version: '0.1.0',
    nodeVersion: '24.21.0',
    command: 'up',
    pid: 7,
    since: '2026-11-21T02:35:45.000Z',
    uptimeSeconds: 7_300,
    dataDir: '/data',
    mesh: { meshId: 'abc', name: 'local', network: 'lan' },
    gateway: {
      ...member,
      baseUrl: 'http://127.0.0.1:7420/v1',
      models: [
        {
          name: 'helix-tiny',
          digest,
          contextTokens: 512,
          nodes: 2,
          otherDigests: ['f'.repeat(64) as ModelDigest],
          firstSeenS: 1,
        },
      ],
      nodes: [
        {
          peer: '12D3KooWBgpqLfE1AQ2' as PeerId,
          owner: 'local',
          models: [{ name: 'helix-tiny', digest, build: 'llama' }],
          hardware: 'CPU,\u001b[2J\n2 cores',
          slots: 8,
          active: 1,
          queued: 0,
          draining: false,
          responsive: true,
          roundTripMs: 0.6,
          counts: { attempts: 1, done: 1, failed: 0, cancelled: 0 },
        },
      ],
      books: {
        tabs: [
          {
            node: '12D3KooWBgpqLfE1AQ2' as PeerId,
            running: 1,
            unstated: 2,
            waiting: 1,
            unattested: 3,
            statements: 4,
            lines: 250,
            refused: 1,
          },
        ],
        budgets: [
          {
            account: 'acct-1' as AccountId,
            leases: [{ lease: '1e'.repeat(16) as LeaseId, amountMicro: 1_500_000, leftMicro: 400_000 }],
            heldMicro: 1_000,
            graceMicro: 5,
          },
          { account: 'acct-idle' as AccountId, leases: [], heldMicro: 0, graceMicro: 0 },
          {
            account: 'acct-empty' as AccountId,
            leases: [{ lease: '2e'.repeat(16) as LeaseId, amountMicro: 0, leftMicro: 0 }],
            heldMicro: 0,
            graceMicro: 0,
          },
        ],
        orphans: [{ lease: '3e'.repeat(16) as LeaseId, account: 'acct-2' as AccountId, amountMicro: 50_000 }],
        shares: { shared: 2, unshared: 1 },
        missing: ['12D3KooWgatewaygateway'],
        usage: {
          requests: 249,
          attempts: 250,
          promptTokens: 9_000,
          completionTokens: 4_000,
          accountMicro: 1_234_567,
          gatewayMicro: 8,
          refused: 1,
          lower: 2,
          statements: 4,
          unattested: 3,
          claims: 1,
        },
        refusal: 'USAGE_UNRECORDED',
      },
      adminUrl: 'https://127.0.0.1:7421/admin/v1',
      tls: {
        names: ['gateway.example'],
        fingerprint: 'ab'.repeat(32),
        minVersion: 'TLSv1.3',
        expiresMs: unixMs(Date.UTC(2027, 0, 1)),
        daysLeft: 41,
        state: 'valid',
        takenMs: unixMs(0),
        fault: 'no certificate in the file',
      },
      calls: 1,
      ready: true,
      degraded: false,
    },
    node: {
      ...member,
      models: [],
      active: 1,
      queued: 2,
      slots: 8,
      tokensPerSecond: 35.4,
      draining: true,
      region: 'eu-central',
      offeredTo: [],
      served,
      tabs: [
        {
          gateway: '12D3KooWEjgcQEhCsVmzrLaNiQeR2xRvmyQpKGkXpe8onj7d5Vep' as PeerId,
          running: 1,
          uncovered: 2,
          uncoveredMs: ms(3_000),
          statements: 1,
          lines: 41,
          refused: 1,
          claimed: 2,
        },
      ],
    },
  };
  expect(printStatus(status)).toBe(
    [
      'helixflow 0.1.0 (Node 24.21.0): up, pid 7, up 2 h',
      'data directory /data',
      'mesh local (lan) abc',
      'gateway',
      '  base URL    http://127.0.0.1:7420/v1',
      '  admin API   https://127.0.0.1:7421/admin/v1',
      '  TLS         valid, 41 days left (2027-01-01T00:00:00Z), gateway.example; the files are not taken: no certificate in the file',
      '  peer id     12D3KooWself',
      '  addresses   /ip4/127.0.0.1/tcp/4001',
      '  reachable   yes',
      '  membership  valid until 2026-12-21T02:35:45.000Z',
      '  peers       0 connections, 2 in the directory',
      '  ledger      40 blocks of 2 authors, asking others what it wrote before',
      '  issuers     11111111… here, 22222222… stale (700 s ago), 33333333… unheard',
      `  FROZEN      ${'f'.repeat(64)} has forked: helixflow mesh unfreeze`,
      '  damaged     block 7 of dddddddd…: its hash does not fit',
      '  requests    1 under way',
      '  models',
      '    helix-tiny@10ea0a13  2 nodes  (others by this name: ffffffff)',
      '  nodes',
      '    …qLfE1AQ2  ok  helix-tiny  1/8 busy, 0 waiting  1 ms  CPU,?[2J?2 cores',
      '  SERVES NOTHING: usage cannot be written down (USAGE_UNRECORDED)',
      '  usage       249 requests, 9000 + 4000 tokens, 1.234567 usd, 0.000008 usd paid by gateways, 2 at the lower of two counts, 1 refused, 3 unattested, 1 claims',
      '  tabs',
      '    …qLfE1AQ2  250 lines in 4 statements, 1 running, 2 not stated yet, 1 waiting for a signature, 3 UNATTESTED, 1 refused',
      '  budgets',
      '    acct-1  0.4 left of 1.5 usd in 1 lease, 0.001 held for requests under way, 0.000005 spent without a lease today',
      `  OPEN LEASE  0.05 usd of acct-2, from a process that was killed: helixflow accounts writeoff ${'3e'.repeat(16)}`,
      '  limits      2 shared with other gateways, 1 in full here for now',
      '  WAITING     strict budgets wait for …ygateway',
      'node',
      '  peer id     12D3KooWself',
      '  addresses   /ip4/127.0.0.1/tcp/4001',
      '  reachable   yes',
      '  membership  valid until 2026-12-21T02:35:45.000Z',
      '  peers       0 connections, 2 in the directory',
      '  ledger      40 blocks of 2 authors, asking others what it wrote before',
      '  issuers     11111111… here, 22222222… stale (700 s ago), 33333333… unheard',
      `  FROZEN      ${'f'.repeat(64)} has forked: helixflow mesh unfreeze`,
      '  damaged     block 7 of dddddddd…: its hash does not fit',
      '  region      eu-central',
      '  load        1/8 busy, 2 waiting, 35 tokens/s, draining',
      '  served      3 done, 1 failed, 0 cancelled',
      '  offered to  0 gateways',
      '  tabs',
      '    …nj7d5Vep  41 lines in 1 statement, 2 uncovered for 3 s, 1 refused, 2 claimed',
      '  models      none',
    ].join('\n'),
  );
});
