/** Scenarios: what is played, as plain data. The seed fills in the rest. */

import type { FaultPlan } from './faults.ts';
import type { LinkOptions } from './links.ts';

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
  /** For the mesh to find itself; requests follow, and none of them may fail. */
  readonly formingMs: number;
  readonly calmMs: number;
  /** Faults come and go; requests may fail, but each in one honest way. */
  readonly faultsMs: number;
  /** After the last fault everything must be whole again within this time. */
  readonly settleMs: number;
  /** Every gateway is asked again and again, and every answer must be whole. */
  readonly probeMs: number;
  readonly faults: FaultPlan;
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
} as const;

/** The first one is played when none is named. */
export const scenarios: readonly Scenario[] = [
  {
    ...mesh,
    name: 'partition-heals',
    about: '20 nodes, 3 gateways and their clients; a partition cuts the mesh in two, and heals.',
    faults: { always: ['partition'], sometimes: [], eachMax: 1 },
  },
  {
    ...mesh,
    name: 'swarm',
    about: 'The same mesh under whatever the seed chooses from all faults there are.',
    faults: {
      always: ['partition'],
      sometimes: [
        'blackHole',
        'slowLink',
        'reset',
        'crash',
        'pause',
        'clockSkew',
        'engineStall',
        'engineCrash',
        'engineSlow',
        'diskSlow',
        'diskFull',
      ],
      eachMax: 3,
    },
  },
];

export const findScenario = (name: string): Scenario | undefined =>
  scenarios.find((scenario) => scenario.name === name);
