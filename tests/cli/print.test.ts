/** What people see: a line per request, and the daemon's status on one screen. */

import { describe, test } from 'vitest';
import { printRequest } from '../../cli/banner.ts';
import { type DaemonStatus, printStatus } from '../../cli/status.ts';
import type { RequestRecord } from '../../gateway/http/exchange.ts';
import type { ModelDigest, PeerId, RequestId } from '../../protocol/ids.ts';
import { ms } from '../../protocol/units.ts';

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

test('the status names what somebody looks for first', ({ expect }) => {
  const member = {
    peerId: '12D3KooWself',
    addresses: ['/ip4/127.0.0.1/tcp/4001'],
    p2pPort: 4001,
    membership: { state: 'valid', expires: '2026-12-21T02:35:45.000Z' },
    peers: [],
    directoryPeers: 2,
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
      offeredTo: [],
      served,
    },
  };
  expect(printStatus(status)).toBe(
    [
      'helixflow 0.1.0 (Node 24.21.0): up, pid 7, up 2 h',
      'data directory /data',
      'mesh local (lan) abc',
      'gateway',
      '  base URL    http://127.0.0.1:7420/v1',
      '  peer id     12D3KooWself',
      '  addresses   /ip4/127.0.0.1/tcp/4001',
      '  membership  valid until 2026-12-21T02:35:45.000Z',
      '  peers       0 connections, 2 in the directory',
      '  requests    1 under way',
      '  models',
      '    helix-tiny@10ea0a13  2 nodes  (others by this name: ffffffff)',
      '  nodes',
      '    …qLfE1AQ2  ok  helix-tiny  1/8 busy, 0 waiting  1 ms  CPU,?[2J?2 cores',
      'node',
      '  peer id     12D3KooWself',
      '  addresses   /ip4/127.0.0.1/tcp/4001',
      '  membership  valid until 2026-12-21T02:35:45.000Z',
      '  peers       0 connections, 2 in the directory',
      '  load        1/8 busy, 2 waiting, 35 tokens/s, draining',
      '  served      3 done, 1 failed, 0 cancelled',
      '  offered to  0 gateways',
      '  models      none',
    ].join('\n'),
  );
});
