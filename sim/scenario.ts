/** Scenarios: what is played, as plain data. The seed fills in the rest. */

import type { ErrorCode } from '../protocol/errors.ts';
import type { MovingTraffic } from './clients.ts';
import { type FaultPlan, type PlannedKind, plannedKinds } from './faults.ts';
import type { LinkOptions } from './links.ts';
import type { MoneyPlan } from './money.ts';
import type { TrustPlan } from './trust.ts';

/** A mesh, its clients and its troubles. All times are virtual. */
export interface Scenario {
  readonly name: string;
  /** For people. */
  readonly about: string;
  readonly gateways: number;
  readonly nodes: number;
  /** Of the nodes, those that can only dial out. */
  readonly hiddenNodes: number;
  /** Signatures of members; `fast` ones are hashes, for meshes of thousands. */
  readonly tokens: 'real' | 'fast';
  readonly links?: LinkOptions;
  /** Over all gateways. */
  readonly requestsPerSecond: number;
  /** While faults are about, in place of requests that come everywhere alike. */
  readonly moving?: MovingTraffic;
  /** For the mesh to find itself; requests follow, and none of them may fail. */
  readonly formingMs: number;
  readonly calmMs: number;
  /** Faults come and go; requests may fail, but each in one honest way. */
  readonly faultsMs: number;
  /** After the last fault everything must be whole again within this time. */
  readonly settleMs: number;
  /** Every gateway is asked again and again, and every answer must be whole. */
  readonly probeMs: number;
  /** At each gateway. */
  readonly probesPerSecond: number;
  readonly faults: FaultPlan;
  /** Keys that are revoked meanwhile, members that are banned, and an issuer that forks when the faults are over. */
  readonly trust?: TrustPlan;
  /** Accounts with budgets, and what they are charged. */
  readonly money?: MoneyPlan;
  /** From a request to its first content, or its end where there is none. */
  readonly beginWithinMs: number;
  /** Between two pieces of an answer, while at least some of the nodes work; absent: as it comes. */
  readonly gapWithinMs?: number;
  /** What clients may be told while faults are about; everything else is a broken promise. */
  readonly mayFail: readonly ErrorCode[];
}

const mesh = {
  gateways: 3,
  nodes: 20,
  hiddenNodes: 4,
  tokens: 'real',
  requestsPerSecond: 8,
  formingMs: 10_000,
  calmMs: 10_000,
  faultsMs: 60_000,
  settleMs: 60_000,
  probeMs: 10_000,
  probesPerSecond: 6,
} as const;

/** All that may go wrong with what peers know of each other. */
const trustFaults = plannedKinds.filter((kind) => !kind.startsWith('engine'));

/** A backup that is put back forgets what was promised after it: that is played, with what it may cost, by `restores`. */
const moneyFaults: readonly PlannedKind[] = [
  ...plannedKinds.filter((kind) => kind !== 'diskRestored' && kind !== 'diskHoles'),
  'replay',
];
const networkFaults: readonly PlannedKind[] = ['partition', 'oneWay', 'slowLink', 'reset', 'crash', 'pause'];

const swarmMayFail = [
  'MODEL_UNAVAILABLE',
  'NODE_OVERLOADED',
  'NODE_LOST',
  'NODE_DRAINING',
  'NODE_MODEL_MISSING',
  'ENGINE_FAILED',
  'STREAM_INTERRUPTED',
  'DEADLINE_EXCEEDED',
  'NODE_STALLED',
  'GATEWAY_OVERLOADED',
  'ACCOUNT_OVERLOADED',
] as const;

/** Accounts with budgets, and what they may be told. */
const paid = {
  gateways: 4,
  nodes: 8,
  hiddenNodes: 1,
  tokens: 'fast',
  calmMs: 20_000,
  settleMs: 90_000,
  money: { rich: 4, poor: 2, poorMicro: 20_000, promptMicro: 1_000_000, completionMicro: 2_000_000 },
  mayFail: [
    ...swarmMayFail,
    'MODEL_NOT_FOUND',
    'BUDGET_EXHAUSTED',
    'BUDGET_UNAVAILABLE',
    'USAGE_UNRECORDED',
    'TAB_UNCOVERED',
  ],
  beginWithinMs: 61_000,
} as const;

/** The first one is played when none is named. */
export const scenarios: readonly Scenario[] = [
  {
    ...mesh,
    name: 'partition-heals',
    about: '20 nodes, 3 gateways and their clients; a partition cuts the mesh in two, and heals.',
    faults: { always: ['partition'], sometimes: [], eachMax: 1 },
    // Every gateway keeps some nodes, and they go on with what others had begun.
    mayFail: [],
    beginWithinMs: 6_000,
  },
  {
    ...mesh,
    name: 'carried-on',
    about:
      '3 gateways, 16 nodes that die, hang and lose their connections in mid-answer: every answer is carried on, whole.',
    nodes: 16,
    hiddenNodes: 2,
    requestsPerSecond: 24,
    faults: {
      always: ['nodeCrash', 'nodePause', 'nodeReset', 'engineStall'],
      sometimes: ['engineCrash', 'engineSlow', 'slowLink'],
      eachMax: 3,
      atLeast: { nodeCrash: 6, nodePause: 3, nodeReset: 6 },
    },
    mayFail: [],
    beginWithinMs: 12_000,
    // A stalled engine is found within 5 s; the next one may be stalled, too.
    gapWithinMs: 10_000,
  },
  {
    ...mesh,
    name: 'cuts',
    about: 'The same in small, for thousands of seeds: 2 gateways, 5 nodes, one death after the other.',
    gateways: 2,
    nodes: 5,
    hiddenNodes: 1,
    tokens: 'fast',
    requestsPerSecond: 8,
    formingMs: 10_000,
    calmMs: 2_000,
    faultsMs: 20_000,
    settleMs: 20_000,
    probeMs: 2_000,
    probesPerSecond: 2,
    faults: {
      always: ['nodeCrash', 'nodeReset'],
      sometimes: ['nodePause', 'engineStall', 'engineCrash', 'nodeCrash', 'nodeReset'],
      eachMax: 2,
      atLeast: { nodeReset: 3 },
    },
    // With several faults at a time there are moments in which no node is left.
    mayFail: [
      'MODEL_UNAVAILABLE',
      'GATEWAY_OVERLOADED',
      'STREAM_INTERRUPTED',
      'NODE_LOST',
      'NODE_STALLED',
      'ENGINE_FAILED',
    ],
    beginWithinMs: 25_000,
  },
  {
    ...mesh,
    name: 'swarm',
    about: 'The same mesh under whatever the seed chooses from all faults there are.',
    faults: {
      always: ['partition'],
      sometimes: plannedKinds.filter((kind) => kind !== 'partition'),
      eachMax: 3,
    },
    mayFail: swarmMayFail,
    beginWithinMs: 61_000,
  },
  {
    ...mesh,
    name: 'revocations',
    about:
      '100 gateways; members are banned, keys are revoked while everything breaks, backups are restored, and an issuer forks.',
    gateways: 100,
    nodes: 8,
    // One that can only dial reaches 16 of the gateways.
    hiddenNodes: 0,
    tokens: 'fast',
    requestsPerSecond: 1,
    formingMs: 30_000,
    calmMs: 60_000,
    faultsMs: 60_000,
    settleMs: 120_000,
    probeMs: 10_000,
    probesPerSecond: 0.2,
    faults: { always: ['partition', 'crash', 'diskRestored'], sometimes: trustFaults, eachMax: 6 },
    trust: { revocationsPerMinute: 30, guests: 8, calmWithinMs: 2_000, forkSettleMs: 5_000 },
    // A gateway that restarts with an empty disk in the smaller part of a partition has looked everywhere it can.
    mayFail: [...swarmMayFail, 'MODEL_NOT_FOUND'],
    beginWithinMs: 61_000,
  },
  {
    ...mesh,
    ...paid,
    name: 'settlement',
    about: '4 gateways, 8 nodes and accounts with budgets; whatever breaks, every answer is billed once.',
    faults: { always: ['partition', 'crash', 'diskCrash'], sometimes: moneyFaults, eachMax: 3 },
  },
  {
    ...mesh,
    ...paid,
    name: 'restores',
    about: 'The same while disks are damaged and old ones are put back: only what nobody else had is gone.',
    faults: {
      always: ['diskRestored', 'diskHoles', 'crash'],
      sometimes: moneyFaults,
      eachMax: 3,
      atLeast: { diskRestored: 2, diskHoles: 2 },
    },
  },
  {
    ...mesh,
    ...paid,
    name: 'liars',
    about: 'Gateways that shave and nodes that inflate, a feed that forks: nobody gains more than a window by it.',
    gateways: 4,
    nodes: 5,
    requestsPerSecond: 12,
    faultsMs: 100_000,
    faults: { always: ['lyingGateway', 'lyingNode'], sometimes: networkFaults, eachMax: 2 },
    money: { ...paid.money, poor: 0, forkApartMs: 4_000 },
  },
  {
    ...mesh,
    ...paid,
    name: 'one-budget',
    about:
      '16 gateways, cut apart again and again, and one strict budget, and one key, that all of them are asked for.',
    gateways: 16,
    nodes: 6,
    hiddenNodes: 0,
    requestsPerSecond: 6,
    probesPerSecond: 1,
    moving: { perSecond: 10, moveEveryMs: 5_000, maxTokens: 40 },
    faults: {
      always: ['split', 'crash'],
      sometimes: ['split', 'oneWay', 'pause', 'reset', 'diskCrash', 'diskFull'],
      eachMax: 4,
      atLeast: { split: 4 },
    },
    money: {
      ...paid.money,
      rich: 2,
      poor: 1,
      poorMicro: 12_000,
      isHammered: true,
      limited: { rpm: 90, concurrency: 6 },
    },
    mayFail: [...paid.mayFail, 'RATE_LIMITED'],
  },
];

export const findScenario = (name: string): Scenario | undefined =>
  scenarios.find((scenario) => scenario.name === name);
