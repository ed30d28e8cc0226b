/** Where commands read feeds from: the directory's store, or the daemon that holds it; either way the rows as they lie there. */

import type { HeadView } from '../gateway/admin/ledger-operations.ts';
import { openLevelStore } from '../ledger/adapters/store-level.ts';
import { type AuthorCheck, mayWrite } from '../ledger/authors.ts';
import type { VerifyOptions } from '../ledger/verify.ts';
import { createJoseTokens } from '../protocol/adapters/tokens-jose.ts';
import { fromBase64Url, fromHex, toHex } from '../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { Role } from '../protocol/grants.ts';
import type { Store, StoreRange } from '../protocol/ports.ts';
import { callDaemon, callOperation, isSocketAlive } from './control-client.ts';
import { type DataDir, openDataDir } from './data-dir.ts';
import { fileExists } from './files.ts';
import { holdDataDir } from './holder.ts';
import { type KnownMesh, readMeshOrFail } from './mesh-files.ts';

/** Feeds that can be read. */
export interface LedgerSource extends AsyncDisposable {
  readonly dir: DataDir;
  readonly known: KnownMesh;
  /** Whose feeds they are: a node holds what is open in them. */
  readonly role: Role;
  /** True where a daemon goes on writing them. */
  readonly isLive: boolean;
  readonly rows: Pick<Store, 'range'>;
  /** How far each epoch is held now; only where a daemon writes. */
  heads(): Promise<readonly HeadView[]>;
}

const pageRows = 10_000;

/** Pages of the daemon's rows, one after the other. */
async function* daemonRows(socket: string, { gte, lt, limit = Number.POSITIVE_INFINITY, reverse }: StoreRange) {
  let [from, to] = [toHex(gte), toHex(lt)];
  for (let left = limit; left > 0 && from < to; ) {
    const asked = { gte: from, lt: to, limit: Math.min(left, pageRows), ...(reverse === true ? { reverse } : {}) };
    const { rows, hasMore } = await callOperation(socket, 'ledger.rows', asked);
    for (const [key, value] of rows) yield [fromHex(key), fromBase64Url(value)] as const;
    const last = rows.at(-1);
    if (!hasMore || last === undefined) return;
    left -= rows.length;
    // Behind a key comes the one with a zero more.
    if (reverse === true) to = last[0];
    else from = `${last[0]}00`;
  }
}

async function daemonSource(dir: DataDir, known: KnownMesh): Promise<LedgerSource> {
  const { gateway } = await callDaemon(dir.socket, 'GET /status');
  return {
    dir,
    known,
    role: gateway === undefined ? 'node' : 'gateway',
    isLive: true,
    rows: { range: (range) => daemonRows(dir.socket, range) },
    heads: async () => (await callOperation(dir.socket, 'ledger.heads', {})).data,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** What helps against a store whose files have changed under it; the whole of it is in docs/ledger.md. */
const damaged = (path: string, cause: HelixFlowError): HelixFlowError => {
  const { reason } = cause.details as { readonly reason?: string };
  const told = `the store ${path} is damaged (${reason ?? cause.code}): stop what runs on it and move it away; then start again, and peers send their feeds, or use helixflow ledger restore. What only it held is lost: names, keys of tags, leases (docs/ledger.md)`;
  return new HelixFlowError('CHECK_FAILED', { reason: told }, { cause });
};

async function openWhole(path: string): Promise<Awaited<ReturnType<typeof openLevelStore>>> {
  try {
    return await openLevelStore(path);
  } catch (error) {
    const isDamage = isHelixFlowError(error) && error.code === 'DATA_DIR_UNUSABLE' && /corrupt/i.test(error.message);
    throw isDamage ? damaged(path, error) : error;
  }
}

async function* wholeRows(path: string, rows: AsyncIterable<readonly [Uint8Array, Uint8Array]>) {
  try {
    yield* rows;
  } catch (error) {
    throw isHelixFlowError(error) && error.code === 'STORE_FAILED' ? damaged(path, error) : error;
  }
}

async function storeSource(dir: DataDir, known: KnownMesh, command: string): Promise<LedgerSource> {
  await using stack = new AsyncDisposableStack();
  stack.use(await holdDataDir(dir, command));
  const role: Role = (await fileExists(dir.peer('gateway').store)) ? 'gateway' : 'node';
  const path = dir.peer(role).store;
  if (!(await fileExists(path))) {
    throw new HelixFlowError('DATA_DIR_UNUSABLE', {
      path: dir.path,
      reason: 'no gateway and no node has run in it yet',
    });
  }
  const store = await openWhole(path);
  stack.defer(() => store.close());
  const parts = stack.move();
  const heads = () => Promise.resolve([]);
  const rows = { range: (range: StoreRange) => wholeRows(path, store.range(range)) };
  return { dir, known, role, isLive: false, rows, heads, [Symbol.asyncDispose]: () => parts.disposeAsync() };
}

/**
 * Opens the feeds of a directory for a command that changes nothing in them.
 * @throws HelixFlowError MESH_MISSING, DATA_DIR_HELD, DATA_DIR_UNUSABLE, DAEMON_UNREACHABLE
 */
export async function openLedgerSource(dataDir: string | undefined, command: string): Promise<LedgerSource> {
  const dir = await openDataDir(dataDir, 'read');
  const known = await readMeshOrFail(dir);
  return (await isSocketAlive(dir.socket)) ? daemonSource(dir, known) : storeSource(dir, known, command);
}

/** What an auditor of this mesh's feeds goes by. */
export function auditOptions(mesh: Omit<AuthorCheck, 'tokens'>, role: Role): VerifyOptions {
  const check: AuthorCheck = { tokens: createJoseTokens(), meshId: mesh.meshId, rootPublicKey: mesh.rootPublicKey };
  return {
    meshId: mesh.meshId,
    holds: role === 'gateway' ? 'all' : 'open',
    mayWrite: (author, first, atMs) => mayWrite(author, first, atMs, check),
  };
}
