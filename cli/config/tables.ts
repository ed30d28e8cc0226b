/** Every option of every command, one row each. */

import { z } from 'zod';
import { limits } from '../../protocol/limits.ts';
import { scenarioNames } from '../../sim/scenario-names.ts';
import {
  accountsCreateOptions,
  accountsEraseOptions,
  accountsExportOptions,
  accountsSetOptions,
  accountsShowOptions,
  accountsWriteOffOptions,
  pricesSetOptions,
  usageOptions,
} from './account-tables.ts';
import { archiveOptions } from './archive-tables.ts';
import { clientOptions } from './door-tables.ts';
import {
  keysCreateOptions,
  keysRevokeOptions,
  keysRotateOptions,
  keysSetOptions,
  keysShowOptions,
} from './key-tables.ts';
import { ledgerTables } from './ledger-tables.ts';
import {
  meshBackupOptions,
  meshBanOptions,
  meshCreateOptions,
  meshHandoverOptions,
  meshInviteOptions,
  meshLeaveOptions,
  meshRestoreOptions,
  meshUnbanOptions,
  meshUnfreezeOptions,
} from './mesh-tables.ts';
import { drainOptions, placeOptions, syntheticOptions } from './node-tables.ts';
import { argument, option } from './option.ts';
import { routeOptions } from './route-tables.ts';
import { upstreamKey, upstreamOptions } from './upstream-tables.ts';
import {
  announced,
  duration,
  durationText,
  host,
  hostText,
  ip,
  lineAnchor,
  lineAnchorText,
  listen,
  listenText,
  port,
  requestId,
  requestIdText,
} from './values.ts';

const text = z.string().min(1);

/** Options of every command. */
export const commonOptions = {
  dataDir: option(text.optional(), {
    flag: '--data-dir <path>',
    env: 'HELIXFLOW_DATA_DIR',
    otherwise: 'the platform’s place for application data',
    about: 'Directory that holds keys, memberships and stores; one process at a time uses it.',
  }),
  json: option(z.boolean().default(false), {
    flag: '--json',
    env: 'HELIXFLOW_JSON',
    about: 'One JSON line on stdout in place of text for people; errors are one JSON line on stderr.',
  }),
  logLevel: option(z.enum(['debug', 'info', 'warn', 'error', 'silent']).optional(), {
    flag: '--log-level <level>',
    env: 'HELIXFLOW_LOG_LEVEL',
    otherwise: 'info; warn for up',
    about: 'How much goes to the log on stderr: JSON lines without prompts, answers or keys.',
  }),
  config: option(text.optional(), {
    flag: '--config <file>',
    env: 'HELIXFLOW_CONFIG',
    otherwise: 'no file',
    about: 'JSON file with values by option name (`{"p2pPort": 4001}`); flags and variables go before it.',
  }),
} as const;

/** Options of whatever becomes a peer of a mesh. */
const peerOptions = {
  p2pPort: option(port.optional(), {
    flag: '--p2p-port <port>',
    env: 'HELIXFLOW_P2P_PORT',
    otherwise: 'a free one, chosen at the first start and then kept',
    about: 'TCP port for other peers; 0 chooses a new one.',
  }),
  announce: option(z.array(announced).max(limits.peerAddressesMax).default([]), {
    flag: '--announce <multiaddr>',
    env: 'HELIXFLOW_ANNOUNCE',
    expected: `at most ${limits.peerAddressesMax} multiaddrs such as /ip4/192.0.2.7/tcp/4001, separated by commas; with IP addresses, since peers never look up names`,
    about: 'Where other peers can reach this one, in place of what it finds out itself; may be repeated.',
  }),
  drain: option(duration(1).prefault('30s'), {
    flag: '--drain <duration>',
    env: 'HELIXFLOW_DRAIN',
    expected: durationText(1),
    about: 'How long a shutdown waits for the answers under way.',
  }),
} as const;

const p2pHost = (fallback: string) =>
  option(ip.default(fallback), {
    flag: '--p2p-host <address>',
    env: 'HELIXFLOW_P2P_HOST',
    expected: 'an IP address of this machine',
    about: 'Address to listen on for other peers.',
  });

const joinOptions = {
  join: option(z.string().trim().min(1).max(limits.tokenMaxChars).optional(), {
    flag: '--join <token>',
    env: 'HELIXFLOW_JOIN',
    expected: 'an invite as helixflow mesh invite prints it, or - to read it from stdin',
    otherwise: 'the membership in the data directory',
    about: 'Invite into a mesh, or - for stdin; ignored while the directory’s membership by that issuer is valid.',
    secret: true,
  }),
} as const;

/** Options of the gateway's HTTP door. */
const doorOptions = {
  host: option(host.default('127.0.0.1'), {
    flag: '--host <address>',
    env: 'HELIXFLOW_HOST',
    expected: hostText,
    about: 'Address that clients reach the gateway at.',
  }),
  port: option(port.default(7420), {
    flag: '--port <port>',
    env: 'HELIXFLOW_PORT',
    about: 'TCP port for clients; 0 takes any free one.',
  }),
  metricsListen: option(listen.optional(), {
    flag: '--metrics-listen <host:port>',
    env: 'HELIXFLOW_METRICS_LISTEN',
    expected: listenText,
    otherwise: 'no metrics',
    about: 'Address of a separate listener for /metrics.',
  }),
  callsMax: option(z.int().min(1).max(1_000_000).default(10_000), {
    flag: '--calls-max <count>',
    env: 'HELIXFLOW_GATEWAY_CALLS_MAX',
    unit: 'requests',
    about: 'Requests under way at a time; more are refused with 503.',
  }),
} as const;

/** Options of the gateway's door beside where it listens. */
const accessOptions = {
  ...clientOptions,
  ...routeOptions,
  tlsCert: option(text.optional(), {
    flag: '--tls-cert <file>',
    env: 'HELIXFLOW_TLS_CERT',
    expected: 'a PEM file: the certificate, then those between it and a root',
    otherwise: 'no TLS',
    about: 'Certificate of the door for clients; taken anew when the file changes.',
  }),
  tlsKey: option(text.optional(), {
    flag: '--tls-key <file>',
    env: 'HELIXFLOW_TLS_KEY',
    expected: 'a PEM file without passphrase',
    otherwise: 'no TLS',
    about: 'Private key of the certificate.',
  }),
  tlsMinVersion: option(z.enum(['1.2', '1.3']).default('1.3'), {
    flag: '--tls-min-version <version>',
    env: 'HELIXFLOW_TLS_MIN_VERSION',
    about: 'Oldest version of TLS that clients may speak.',
  }),
  adminListen: option(listen.optional(), {
    flag: '--admin-listen <host:port>',
    env: 'HELIXFLOW_ADMIN_LISTEN',
    expected: listenText,
    otherwise: 'no admin API over TCP',
    about: 'Address of a separate listener for the admin API, for operator and admin keys of this gateway.',
  }),
  maxStale: option(duration(30, { min: '2m' }).prefault('10m'), {
    flag: '--max-stale <duration>',
    env: 'HELIXFLOW_MAX_STALE',
    expected: durationText(30, { min: '2m' }),
    about:
      'Out of touch with the issuer of a key, which is heard once a minute, for longer, this gateway refuses strict, operator and admin keys.',
  }),
  staleGrace: option(duration(30, { min: '0s' }).prefault('24h'), {
    flag: '--stale-grace <duration>',
    env: 'HELIXFLOW_STALE_GRACE',
    expected: durationText(30, { min: '0s' }),
    about: 'How much longer than --max-stale it serves the other keys, marked, before it refuses them, too.',
  }),
} as const;

/** Options of what a node serves. */
const engineOptions = {
  model: option(z.array(text).max(limits.offerModelsMax).default([]), {
    flag: '--model <file>',
    env: 'HELIXFLOW_NODE_MODEL',
    expected: `at most ${limits.offerModelsMax} paths of GGUF files, separated by commas`,
    otherwise: 'the embedded model',
    about: 'GGUF file to serve; may be repeated.',
  }),
  engine: option(z.enum(['llama', 'synthetic']).default('llama'), {
    flag: '--engine <kind>',
    env: 'HELIXFLOW_NODE_ENGINE',
    about: 'What computes: llama serves models; synthetic makes text up, for load tests.',
  }),
  tokensPerSecond: option(z.number().positive().max(1_000_000).optional(), {
    flag: '--tokens-per-second <rate>',
    env: 'HELIXFLOW_NODE_TOKENS_PER_SECOND',
    unit: 'tokens/s',
    otherwise: 'as fast as they are taken',
    about: 'Pace of each answer of the synthetic engine.',
  }),
  ...syntheticOptions,
  ...upstreamOptions,
  slots: option(z.int().min(1).max(64).optional(), {
    flag: '--slots <count>',
    env: 'HELIXFLOW_NODE_SLOTS',
    unit: 'requests',
    otherwise: '8; 4 for models above 1 GiB; the synthetic engine has no limit',
    about: 'Answers generated at the same time, per model.',
  }),
  context: option(z.int().min(512).max(4_194_304).optional(), {
    flag: '--context <tokens>',
    env: 'HELIXFLOW_NODE_CONTEXT',
    unit: 'tokens',
    otherwise: 'what the model was trained on, at most 8192',
    about: 'Prompt and completion together, per answer.',
  }),
  queueMax: option(z.int().min(0).max(10_000).default(64), {
    flag: '--queue-max <count>',
    env: 'HELIXFLOW_NODE_QUEUE_MAX',
    unit: 'requests',
    about: 'Requests that wait for a free slot, per model, shared between accounts; more are sent to another node.',
  }),
  gpu: option(z.enum(['auto', 'off']).default('auto'), {
    flag: '--gpu <mode>',
    env: 'HELIXFLOW_NODE_GPU',
    about: 'Whether to compute on the GPU that is found.',
  }),
  threads: option(z.int().min(1).max(1_024).optional(), {
    flag: '--threads <count>',
    env: 'HELIXFLOW_NODE_THREADS',
    unit: 'threads',
    otherwise: 'measured when the model is loaded',
    about: 'Threads that compute on the CPU.',
  }),
} as const;

export const gatewayOptions = {
  ...archiveOptions,
  ...doorOptions,
  ...accessOptions,
  p2pHost: p2pHost('0.0.0.0'),
  ...peerOptions,
  ...joinOptions,
} as const;
export const nodeOptions = {
  ...engineOptions,
  ...upstreamKey,
  p2pHost: p2pHost('0.0.0.0'),
  ...peerOptions,
  ...joinOptions,
  ...placeOptions,
  metricsListen: doorOptions.metricsListen,
} as const;
export const upOptions = {
  ...doorOptions,
  ...accessOptions,
  ...engineOptions,
  ...upstreamKey,
  p2pHost: p2pHost('127.0.0.1'),
  ...peerOptions,
} as const;
export const auditTailOptions = {
  lines: option(z.int().min(1).max(10_000).default(20), {
    flag: '-n, --lines <count>',
    env: 'HELIXFLOW_AUDIT_LINES',
    unit: 'lines',
    about: 'How many of the newest lines are shown.',
  }),
  follow: option(z.boolean().default(false), {
    flag: '--follow',
    env: 'HELIXFLOW_AUDIT_FOLLOW',
    about: 'Shows further lines as they are written, until it is interrupted.',
  }),
} as const;
export const auditVerifyOptions = {
  anchor: option(lineAnchor.optional(), {
    flag: '--anchor <number:hash>',
    env: 'HELIXFLOW_AUDIT_ANCHOR',
    expected: lineAnchorText,
    otherwise: 'none',
    about: 'A line that was written down elsewhere: shows whether it, or any before it, was rewritten.',
  }),
} as const;
export const whyOptions = {
  request: argument(requestId, {
    flag: '<request>',
    expected: requestIdText,
    about: 'Which request: the header x-request-id of its answer, or the id in it.',
  }),
} as const;
export const simRunOptions = {
  seed: option(z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(1), {
    flag: '--seed <number>',
    env: 'HELIXFLOW_SIM_SEED',
    about: 'Decides everything in the run; the same seed gives the same trace hash.',
  }),
  scenario: option(z.enum(scenarioNames).default(scenarioNames[0]), {
    flag: '--scenario <name>',
    env: 'HELIXFLOW_SIM_SCENARIO',
    about: 'What is played.',
  }),
  report: option(text.optional(), {
    flag: '--report <file>',
    env: 'HELIXFLOW_SIM_REPORT',
    otherwise: 'none',
    about: 'Writes the run as one HTML page to this file.',
  }),
} as const;

/** Tables by command, in the order of the documentation. */
export const commandTables = {
  up: upOptions,
  gateway: gatewayOptions,
  node: nodeOptions,
  'gateway drain': drainOptions,
  'node drain': drainOptions,
  'mesh create': meshCreateOptions,
  'mesh show': {},
  'mesh invite': meshInviteOptions,
  'mesh peers': {},
  'mesh members': {},
  'mesh ban': meshBanOptions,
  'mesh unban': meshUnbanOptions,
  'mesh leave': meshLeaveOptions,
  'mesh backup': meshBackupOptions,
  'mesh restore': meshRestoreOptions,
  'mesh handover': meshHandoverOptions,
  'mesh unfreeze': meshUnfreezeOptions,
  'keys create': keysCreateOptions,
  'keys ls': {},
  'keys show': keysShowOptions,
  'keys set': keysSetOptions,
  'keys rotate': keysRotateOptions,
  'keys revoke': keysRevokeOptions,
  'accounts create': accountsCreateOptions,
  'accounts ls': {},
  'accounts show': accountsShowOptions,
  'accounts set': accountsSetOptions,
  'accounts writeoff': accountsWriteOffOptions,
  'accounts export': accountsExportOptions,
  'accounts erase': accountsEraseOptions,
  'prices set': pricesSetOptions,
  'prices ls': {},
  usage: usageOptions,
  'audit tail': auditTailOptions,
  'audit verify': auditVerifyOptions,
  ...ledgerTables,
  status: {},
  why: whyOptions,
  'sim run': simRunOptions,
  version: {},
} as const;
