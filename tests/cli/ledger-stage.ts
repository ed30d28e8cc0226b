/** Data directories whose feeds hold usage: written by the feeds' own code, with the tokens of a real mesh. */

import { locateDataDir } from '../../cli/data-dir.ts';
import { auditOptions } from '../../cli/ledger-source.ts';
import { readMeshOrFail } from '../../cli/mesh-files.ts';
import { readIdentity, writeIdentity } from '../../cli/peer-files.ts';
import { openLevelStore } from '../../ledger/adapters/store-level.ts';
import { createFeeds } from '../../ledger/create-feeds.ts';
import { type AuthorEntry, type Entry, encodeEntry } from '../../ledger/entry.ts';
import type { EpochHead, OwnFeed } from '../../ledger/feeds.ts';
import type { UsageLine } from '../../ledger/line.ts';
import { addTotals, noTotals, type RefusedLine, signCountersign, statementHash } from '../../ledger/statement.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import type { OwnerId } from '../../protocol/ids.ts';
import { createIdentity, issueCredentials } from '../../protocol/mesh.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import { unixMs } from '../../protocol/units.ts';
import { silentLog } from '../ledger/feed-stage.ts';
import { line, node, runNamed } from '../ledger/verify-stage.ts';
import { runHere } from './in-process.ts';

export const alice = node('alice');
export const bob = node('bob');

/** A statement for a node, and what the node says of it: nothing, or what it refuses. */
export interface Told {
  readonly by: typeof alice;
  readonly lines: readonly UsageLine[];
  readonly refused?: readonly RefusedLine[] | 'silent';
}

/** Makes the mesh of a directory, unless it has one. */
export async function makeMesh(path: string): Promise<void> {
  const { code, error } = await runHere(['mesh', 'create', '--data-dir', path]);
  if (code !== 0) throw new Error(`mesh create: ${error}`);
}

/** One process of the directory's gateway: states all this, with what nodes say of it, in an epoch of its own. */
export async function tell(path: string, told: readonly Told[], extra: readonly Entry[] = []): Promise<void> {
  const dir = locateDataDir(path);
  const { mesh, issuer } = await readMeshOrFail(dir);
  if (issuer === undefined) throw new Error('no issuer here');
  const random = systemRandom();
  const kept = await readIdentity(dir.peer('gateway'));
  const key = kept ?? createIdentity(random);
  if (kept === undefined) await writeIdentity(dir.peer('gateway'), key);
  const peer = peerIdOf(key.publicKey);
  const tokens = createJoseTokens();
  const member = { peer, role: 'gateway', owner: 'local' as OwnerId } as const;
  const { certificate, membership } = await issueCredentials({ mesh, issuer }, member, {
    tokens,
    nowMs: unixMs(Date.now()),
  });
  const first = (after: EpochHead | undefined): AuthorEntry => ({
    kind: 'author',
    role: 'gateway',
    peer,
    certificate,
    membership,
    ...(after === undefined ? {} : { after: { epoch: after.epoch, number: after.number } }),
  });
  const store = await openLevelStore(dir.peer('gateway').store);
  const deps = { store, clock: systemClock(), random, log: silentLog };
  const feeds = createFeeds(deps, auditOptions(mesh, 'gateway'), {
    entry: () => {},
    added: () => {},
    forked: () => {},
  });
  await feeds.open();
  const own = feeds.write(key, first);
  if (extra.length > 0) await own.append(extra);
  await state(own, told, { meshId: mesh.meshId, gateway: peer });
  await feeds.close();
  await store.close();
}

async function state(
  own: OwnFeed,
  told: readonly Told[],
  signed: Parameters<typeof signCountersign>[1],
): Promise<void> {
  const ends = new Map<string, { number: number; previous: Uint8Array; totals: typeof noTotals }>();
  for (const { by, lines, refused = [] } of told) {
    const end = ends.get(by.peer) ?? { number: 0, previous: new Uint8Array(32), totals: noTotals };
    const totals = addTotals(end.totals, lines);
    const run = lines[0]?.run ?? runNamed('run');
    const entry = { kind: 'statement', node: by.peer, ...end, run, lines, running: [], progress: [], totals } as const;
    const [place] = await own.append([entry]);
    const hash = statementHash(encodeEntry(entry));
    ends.set(by.peer, { number: end.number + 1, previous: hash, totals });
    if (refused === 'silent' || place === undefined) continue;
    const { epoch } = place;
    const word = { kind: 'countersign', node: by.peer, epoch, number: entry.number, statement: hash } as const;
    await own.append([signCountersign({ ...word, refused, timeMs: unixMs(Date.now()) }, signed, by.key)]);
  }
}

/** Lines of one process, one after the other. */
export const linesFrom = (run: string, from: number, count: number, change: Partial<UsageLine> = {}): UsageLine[] =>
  Array.from({ length: count }, (_, at) => line(run, from + at, change));
