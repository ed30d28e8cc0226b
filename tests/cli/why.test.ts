/** `helixflow why`: what people see of a request's story, and what the daemon is asked. */

import { once } from 'node:events';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'vitest';
import { serveControl } from '../../cli/control.ts';
import { locateDataDir } from '../../cli/data-dir.ts';
import { whyText, whyValue } from '../../cli/why-text.ts';
import type { Trace } from '../../gateway/route/trace.ts';
import type { ModelDigest, PeerId, RequestId } from '../../protocol/ids.ts';
import { ms } from '../../protocol/units.ts';
import { stage } from '../gateway/admin/fakes.ts';
import { runHere } from './in-process.ts';
import { tempDir } from './temp-dir.ts';

const request = '8f'.repeat(16) as RequestId;
const [near, far, full] = ['12D3KooWnear', '12D3KooWfar', '12D3KooWfull'] as [PeerId, PeerId, PeerId];
const score = { waitMs: 0, prefillMs: 12.4, roundTripMs: 1.26, overheadMs: 3, firstMs: 16.66, totalMs: 336.66 };
const candidate = (peer: PeerId, cachedBytes: number) => ({ peer, score, cachedBytes, active: 1, queued: 0 });

const story: Trace = {
  request,
  model: 'helix-tiny',
  digest: '10ea0a13'.padEnd(64, '0') as ModelDigest,
  startMs: Date.UTC(2026, 10, 21, 10),
  dropped: { count: 0, after: 8 },
  steps: [
    {
      kind: 'choice',
      atMs: ms(0),
      purpose: 'first',
      chosen: near,
      reason: 'prefix',
      candidates: [candidate(far, 0), candidate(near, 2_048)],
      refusals: [{ peer: full, reason: 'full' }],
      groupSize: 5,
    },
    { kind: 'attempt', atMs: ms(0), purpose: 'first', node: near },
    { kind: 'content', atMs: ms(35.4), node: near },
    { kind: 'failed', atMs: ms(812), node: near, code: 'NODE_LOST', tokens: 40 },
    {
      kind: 'choice',
      atMs: ms(812),
      purpose: 'splice',
      chosen: undefined,
      reason: undefined,
      candidates: [],
      refusals: [],
      groupSize: 0,
    },
    { kind: 'waits', atMs: ms(813), ahead: 2 },
    { kind: 'attempt', atMs: ms(900), purpose: 'splice', node: far },
    { kind: 'cancelled', atMs: ms(950), node: far, why: 'client', settledMs: ms(7.04) },
    { kind: 'done', atMs: ms(960), node: far, tokens: 1 },
    { kind: 'ended', atMs: ms(961), code: 'STREAM_INTERRUPTED' },
  ],
};

test('a story is read from top to bottom, with a table for each choice', ({ expect }) => {
  expect(`\n${whyText(story)}\n`).toBe(`
request   ${request}
model     helix-tiny (10ea0a13)
came      2026-11-21T10:00:00Z
n1        12D3KooWnear
n2        12D3KooWfar
n3        12D3KooWfull

     +0 ms  for the first attempt: n1 (prefix), of 5 nodes, 2 more not looked at
               NODE  TOTAL  FIRST  WAIT  PREFILL  TRIP  OVERHEAD  CACHED  ACTIVE  QUEUED
               n2    337    17     0     12       1.3   3         0 B     1       0
            →  n1    337    17     0     12       1.3   3         2048 B  1       0
               n3    full
     +0 ms  n1 is asked: the first attempt
    +35 ms  n1 sends its first content
   +812 ms  n1 fails after 40 tokens: NODE_LOST
   +812 ms  for going on with the answer: no node, of 0 nodes
   +813 ms  no node has a place: it waits, behind 2
   +900 ms  n2 is asked: going on with the answer
   +950 ms  n2 is stopped: its client left; its slot was free after 7 ms
   +960 ms  n2 is done after 1 token
   +961 ms  the request ends with STREAM_INTERRUPTED
`);
  expect(whyValue(story)).toMatchObject({ request, started: '2026-11-21T10:00:00.000Z', steps: story.steps });
});

test('a node that was said to take for ever is shown so, also by way of JSON', ({ expect }) => {
  const [first] = story.steps;
  const absurd = { ...candidate(near, 0), score: { ...score, totalMs: Number.POSITIVE_INFINITY } };
  const told = { ...story, steps: [{ ...first, candidates: [absurd] }] } as Trace;
  const row = /n1 {4}∞ {6}17 /;
  expect(whyText(told)).toMatch(row);
  expect(whyText(JSON.parse(JSON.stringify(told)) as Trace)).toMatch(row);
});

test('it says where steps are missing', ({ expect }) => {
  const steps = story.steps.slice(1, 4);
  const lines = whyText({ ...story, steps, dropped: { count: 3, after: 2 } }).split('\n');
  expect(lines.slice(-2)).toEqual(['         …  3 steps not kept', '   +812 ms  n1 fails after 40 tokens: NODE_LOST']);
});

test('the daemon is asked for it, by the id of the request or of its answer', async ({ expect, onTestFinished }) => {
  await using temp = await tempDir();
  const traces = { get: (id: RequestId) => (id === request ? story : undefined), newest: () => [story] };
  const { context } = stage({ traces });
  const server = createServer(serveControl(() => ({ admin: () => context })));
  await once(server.listen(locateDataDir(temp.path).socket), 'listening');
  onTestFinished(() => void server.close());
  const why = (id: string) => runHere(['why', id, '--data-dir', temp.path]);
  const told = { code: 0, error: undefined, value: JSON.parse(JSON.stringify(whyValue(story))) };
  expect(await why(request)).toEqual(told);
  expect(await why(`chatcmpl-${request}`)).toEqual(told);
  expect(await why('0'.repeat(32))).toMatchObject({ code: 3, error: 'REQUEST_UNKNOWN' });
  expect(await why('x')).toMatchObject({ code: 2, error: 'CONFIG_INVALID' });
});

test('without a daemon there is nobody to ask', async ({ expect }) => {
  await using temp = await tempDir();
  expect(await runHere(['why', request, '--data-dir', join(temp.path)])).toMatchObject({
    code: 5,
    error: 'DAEMON_UNREACHABLE',
  });
});
