/** What `helixflow status` shows, as the daemon tells it. */

import type { NodeStatus } from '../gateway/gateway.ts';
import type { TlsStatus } from '../gateway/http/tls.ts';
import type { ListedModel } from '../gateway/service.ts';
import type { WorkStatus } from '../ledger/work.ts';
import type { ServerStatus } from '../node/serve.ts';
import { isRelayed } from '../protocol/peer/address.ts';
import type { Reachability } from '../protocol/peer/reach.ts';
import type { ConnectionPath } from '../protocol/ports.ts';
import { type BooksView, booksLines } from './books-text.ts';
import { type LedgerView, ledgerLines } from './ledger-text.ts';
import { moment } from './lists.ts';
import { printable } from './output.ts';

/** An admitted connection. */
export interface PeerStatus {
  readonly peer: string;
  readonly role: string;
  readonly owner: string;
  readonly direction: 'inbound' | 'outbound';
  /** Absent from a daemon of an older version. */
  readonly path?: ConnectionPath;
  readonly address: string;
  /** When the connection was opened. */
  readonly since: string;
}

/** `joining` while none is held; `refused` when it does not count any more, by its `reason`. */
export interface MembershipStatus {
  readonly state: 'valid' | 'joining' | 'lapsed' | 'refused';
  readonly expires?: string;
  readonly reason?: string;
}

/** What a peer of either role tells. */
export interface MemberStatus {
  readonly peerId: string;
  readonly addresses: readonly string[];
  /** Whether others can dial it; `unknown` until a gateway has tried. Absent from a daemon of an older version. */
  readonly reachable?: Reachability;
  readonly p2pPort: number;
  readonly membership: MembershipStatus;
  readonly peers: readonly PeerStatus[];
  /** Peers that this one could ask in the DHT. */
  readonly directoryPeers: number;
  readonly ledger: LedgerView;
}

export interface GatewayStatus extends MemberStatus {
  /** Absent where it serves no clients. */
  readonly baseUrl?: string;
  readonly models: readonly ListedModel[];
  readonly nodes: readonly NodeStatus[];
  readonly calls: number;
  readonly ready: boolean;
  readonly degraded: boolean;
  /** Of the door for clients; absent without TLS. */
  readonly tls?: TlsStatus;
  /** Where operators reach the admin API; absent without `--admin-listen`. */
  readonly adminUrl?: string;
  /** Absent from a daemon of an older version. */
  readonly books?: BooksView;
}

export interface WorkerStatus extends MemberStatus, ServerStatus {
  /** What is between this node and each gateway that it has worked for. */
  readonly tabs: readonly WorkStatus[];
}

/** A whole daemon. */
export interface DaemonStatus {
  readonly schemaVersion: 1;
  readonly version: string;
  readonly nodeVersion: string;
  readonly command: string;
  readonly pid: number;
  readonly since: string;
  readonly uptimeSeconds: number;
  readonly dataDir: string;
  readonly mesh?: { readonly meshId: string; readonly name?: string; readonly network: string };
  readonly gateway?: GatewayStatus;
  readonly node?: WorkerStatus;
}

const short = (id: string): string => (id.length > 16 ? `…${id.slice(-8)}` : id);
const count = (amount: number, noun: string): string => `${amount} ${noun}${amount === 1 ? '' : 's'}`;

function duration(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}

function membershipText({ state, expires, reason }: MembershipStatus): string {
  if (reason !== undefined) return `${state}: ${reason}; join again with --join <token>`;
  return expires === undefined ? state : `${state} until ${expires}`;
}

function reachableText({ reachable, addresses }: MemberStatus): string {
  if (reachable !== 'no') return reachable === 'yes' ? 'yes' : 'unknown: nobody has tried yet';
  return addresses.some(isRelayed) ? 'no, through relays only' : 'no: it serves over the connections that it dials';
}

const memberLines = (member: MemberStatus): string[] => [
  `  peer id     ${member.peerId}`,
  `  addresses   ${member.addresses.join(', ') || 'none'}`,
  ...(member.reachable === undefined ? [] : [`  reachable   ${reachableText(member)}`]),
  `  membership  ${membershipText(member.membership)}`,
  `  peers       ${count(member.peers.length, 'connection')}, ${member.directoryPeers} in the directory`,
  ...ledgerLines(member.ledger),
];

const tlsLine = ({ state, daysLeft, expiresMs, names, fault }: TlsStatus): string =>
  `  TLS         ${state}, ${count(daysLeft, 'day')} left (${moment(expiresMs)}), ${names.join(', ')}${fault === undefined ? '' : `; the files are not taken: ${fault}`}`;

function modelLine({ name, digest, nodes, otherDigests }: ListedModel): string {
  const others = otherDigests.map((other) => other.slice(0, 8)).join(', ');
  return `    ${name}@${digest.slice(0, 8)}  ${count(nodes, 'node')}${others === '' ? '' : `  (others by this name: ${others})`}`;
}

function nodeLine(node: NodeStatus): string {
  const state = node.draining ? 'draining' : node.responsive ? 'ok' : 'silent';
  const models = node.models.map(({ name }) => name).join(', ') || 'no model';
  const load = `${node.active}/${node.slots} busy, ${node.queued} waiting`;
  return `    ${short(node.peer)}  ${state}  ${models}  ${load}  ${Math.round(node.roundTripMs)} ms  ${node.hardware}`.trimEnd();
}

const gatewayLines = (gateway: GatewayStatus): string[] => [
  'gateway',
  `  base URL    ${gateway.baseUrl ?? 'none: clients are not served here'}`,
  ...(gateway.adminUrl === undefined ? [] : [`  admin API   ${gateway.adminUrl}`]),
  ...(gateway.tls === undefined ? [] : [tlsLine(gateway.tls)]),
  ...memberLines(gateway),
  `  requests    ${gateway.calls} under way${gateway.ready ? '' : ', draining'}`,
  `  models      ${gateway.models.length === 0 ? 'none' : ''}`.trimEnd(),
  ...gateway.models.map(modelLine),
  `  nodes       ${gateway.nodes.length === 0 ? 'none' : ''}`.trimEnd(),
  ...gateway.nodes.map(nodeLine),
  ...(gateway.books === undefined ? [] : booksLines(gateway.books)),
];

function tabLine({ gateway, uncovered, uncoveredMs, statements, lines, refused, claimed }: WorkStatus): string {
  const open = uncovered === 0 ? '' : `, ${uncovered} uncovered for ${duration(uncoveredMs / 1_000)}`;
  const disputed = refused === 0 ? '' : `, ${refused} refused`;
  const claims = claimed === 0 ? '' : `, ${claimed} claimed`;
  return `    ${short(gateway)}  ${count(lines, 'line')} in ${count(statements, 'statement')}${open}${disputed}${claims}`;
}

const workerLines = (node: WorkerStatus): string[] => [
  'node',
  ...memberLines(node),
  ...(node.region === undefined ? [] : [`  region      ${node.region}`]),
  `  load        ${node.active}/${node.slots} busy, ${node.queued} waiting, ${Math.round(node.tokensPerSecond)} tokens/s${node.draining ? ', draining' : ''}`,
  `  served      ${node.served.done} done, ${node.served.failed} failed, ${node.served.cancelled} cancelled`,
  `  offered to  ${count(node.offeredTo.length, 'gateway')}`,
  ...(node.tabs.length === 0 ? [] : ['  tabs', ...node.tabs.map(tabLine)]),
  `  models      ${node.models.length === 0 ? 'none' : ''}`.trimEnd(),
  ...node.models.map(({ name, digest, build }) => `    ${name}@${digest.slice(0, 8)}  ${build}`),
];

/** One screen for people. */
export function printStatus(status: DaemonStatus): string {
  const mesh = status.mesh;
  return [
    `helixflow ${status.version} (Node ${status.nodeVersion}): ${status.command}, pid ${status.pid}, up ${duration(status.uptimeSeconds)}`,
    `data directory ${status.dataDir}`,
    mesh === undefined ? 'no mesh yet' : `mesh ${mesh.name ?? 'of unknown name'} (${mesh.network}) ${mesh.meshId}`,
    ...(status.gateway === undefined ? [] : gatewayLines(status.gateway)),
    ...(status.node === undefined ? [] : workerLines(status.node)),
  ]
    .map(printable)
    .join('\n');
}
