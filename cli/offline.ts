/** Operations of the admin API run by a command itself, on a directory that no daemon holds. */

import type { AdminContext } from '../gateway/admin/operation.ts';
import { type AdminApi, type OperationName, runOperation } from '../gateway/admin/operations.ts';
import { openAuditLog } from '../ledger/adapters/audit-files.ts';
import { openLevelStore } from '../ledger/adapters/store-level.ts';
import { createLedger } from '../ledger/create-ledger.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { systemClock } from '../protocol/adapters/clock.ts';
import { createLog } from '../protocol/adapters/log.ts';
import { systemRandom } from '../protocol/adapters/random.ts';
import { createJoseTokens } from '../protocol/adapters/tokens-jose.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { Role } from '../protocol/grants.ts';
import type { PeerId } from '../protocol/ids.ts';
import { createIdentity } from '../protocol/mesh.ts';
import { peerIdOf } from '../protocol/peer/identity.ts';
import type { Network, SigningKey, Store } from '../protocol/ports.ts';
import type { Admin } from './admin.ts';
import { createAdminContext, inviteContacts } from './admin-context.ts';
import type { DataDir } from './data-dir.ts';
import { fileExists } from './files.ts';
import { holdDataDir } from './holder.ts';
import type { KnownMesh } from './mesh-files.ts';
import { createOfflineRecords, type OfflineRecords } from './offline-records.ts';
import { openDesk } from './open-desk.ts';
import { openRoots } from './open-roots.ts';
import { readIdentity, readMembership, readSettings, writeIdentity } from './peer-files.ts';
import type { World } from './peer-runtime.ts';
import { createRootTaker } from './take-roots.ts';

/** A network on which nobody is: a command has no connections. */
function emptyNetwork(self: PeerId): Network {
  return {
    self,
    addresses: () => [],
    connections: () => [],
    onConnection: () => {},
    connect: (peer) => Promise.reject(new HelixFlowError('CONNECT_FAILED', { peer })),
    canDial: () => Promise.resolve(false),
    reserve: ({ peer }) => Promise.reject(new HelixFlowError('RELAY_REFUSED', { peer, reason: 'nobody is there' })),
    handle: () => {},
    start: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
}

/** Whose store is opened: the gateway's where issuer or root have something to say, else that of the peer there is. */
async function choosePeer(
  dir: DataDir,
  known: KnownMesh,
  world: World,
): Promise<{ readonly role: Role; readonly key: SigningKey }> {
  const gateway = await readIdentity(dir.peer('gateway'));
  if (gateway !== undefined) return { role: 'gateway', key: gateway };
  if (known.issuer !== undefined || (await fileExists(dir.rootFile))) {
    const key = createIdentity(world.random);
    await writeIdentity(dir.peer('gateway'), key);
    return { role: 'gateway', key };
  }
  const node = await readIdentity(dir.peer('node'));
  if (node === undefined) throw new HelixFlowError('ISSUER_MISSING', { meshId: known.mesh.meshId });
  return { role: 'node', key: node };
}

interface Opened {
  readonly world: World;
  readonly dir: DataDir;
  readonly known: KnownMesh;
  readonly role: Role;
  readonly key: SigningKey;
  readonly store: Store;
}

async function makeLedger({ world, dir, known, role, key, store }: Opened): Promise<Ledger> {
  const { mesh, issuer } = known;
  const network = emptyNetwork(peerIdOf(key.publicKey));
  const credentials = await readMembership(dir.peer(role));
  const roots = await openRoots(world.tokens, { mesh, issuer, credentials });
  return createLedger(
    { ...world, network, store },
    {
      role,
      meshId: mesh.meshId,
      key,
      credentials: () => credentials,
      ...(issuer === undefined ? {} : { issuer }),
      roots,
      audit: world.audit,
      recovers: false,
    },
  );
}

async function contextOf(opened: Opened, ledger: Ledger, offline: OfflineRecords): Promise<AdminContext> {
  const { world, dir, known, role, key, store } = opened;
  const { mesh, issuer } = known;
  const self = peerIdOf(key.publicKey);
  const { addresses } = await readSettings(dir.peer(role));
  return createAdminContext({
    self,
    meshId: mesh.meshId,
    network: mesh.network,
    clock: world.clock,
    ledger,
    feeds: store,
    member: { admitted: () => [] },
    desk: issuer && openDesk(world, { ledger, store, mesh, issuer, openLease: (lease) => offline.openLease(lease) }),
    audit: world.audit,
    ...(role === 'gateway' ? { records: offline.records } : {}),
    status: () => {
      throw new HelixFlowError('DAEMON_UNREACHABLE', { path: dir.path });
    },
    contacts: () => inviteContacts([{ peer: self, addresses: role === 'gateway' ? addresses : [] }], mesh.network),
  });
}

/**
 * Takes the directory for the length of a command, and opens its store.
 * @throws HelixFlowError DATA_DIR_HELD, ISSUER_MISSING, STORE_FAILED, DATA_DIR_UNUSABLE, FORMAT_TOO_NEW
 */
export async function openOffline(dir: DataDir, known: KnownMesh, command: string): Promise<Admin> {
  await using stack = new AsyncDisposableStack();
  const log = createLog({ level: 'warn', destination: 'stderr' });
  stack.use(await holdDataDir(dir, command));
  const clock = systemClock();
  const audit = stack.use(await openAuditLog(dir.audit, { clock, log }));
  const world: World = { clock, random: systemRandom(), tokens: createJoseTokens(), log, audit };
  const peer = await choosePeer(dir, known, world);
  const store = await openLevelStore(dir.peer(peer.role).store);
  stack.defer(() => store.close());
  const opened: Opened = { world, dir, known, ...peer, store };
  const ledger = await makeLedger(opened);
  stack.defer(() => ledger.close());
  const self = peerIdOf(peer.key.publicKey);
  const offline = stack.use(createOfflineRecords(world, { self, store, ledger, ...known }));
  await offline.load();
  await ledger.open();
  const taker = stack.use(createRootTaker(ledger.roots, audit));
  await offline.open();
  const context = await contextOf(opened, ledger, offline);
  const parts = stack.move();
  return {
    dir,
    known,
    call: <Name extends OperationName>(name: Name, request: AdminApi[Name]['request']) =>
      runOperation(name, context, request, 'local'),
    takeRoots: (tokens) => taker.take(tokens),
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}
