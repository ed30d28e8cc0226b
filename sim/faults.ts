/** Faults as plain data: drawn from the seed, set in place and taken away at their times. */

import { type GatewayLie, gatewayLies, type NodeLie, nodeLies } from './lies.ts';
import type { SimRandom } from './random.ts';

interface Span {
  /** Virtual milliseconds since the start of the run. */
  readonly atMs: number;
  readonly untilMs: number;
}

/** Machines are named by their place in the scenario: gateways first, then nodes. */
export type Fault = Span &
  (
    | { readonly kind: 'partition'; readonly machines: readonly number[] }
    | { readonly kind: 'oneWay'; readonly machines: readonly number[]; readonly way: 'out' | 'in' }
    | { readonly kind: 'blackHole'; readonly from: number; readonly to: number }
    | { readonly kind: 'slowLink'; readonly machine: number; readonly factor: number }
    | { readonly kind: 'reset'; readonly machine: number }
    | { readonly kind: 'crash'; readonly machine: number; readonly hasPower: boolean }
    | { readonly kind: 'pause'; readonly machine: number }
    | { readonly kind: 'clockSkew'; readonly machine: number; readonly skewMs: number }
    /** As `crash`, `pause` and `reset`, of nodes only. */
    | { readonly kind: 'nodeCrash'; readonly machine: number; readonly hasPower: boolean }
    | { readonly kind: 'nodePause'; readonly machine: number }
    | { readonly kind: 'nodeReset'; readonly machine: number }
    | { readonly kind: 'engineStall'; readonly machine: number }
    | { readonly kind: 'engineCrash'; readonly machine: number }
    | { readonly kind: 'engineSlow'; readonly machine: number; readonly factor: number }
    | { readonly kind: 'diskSlow'; readonly machine: number; readonly factor: number }
    | { readonly kind: 'diskFull'; readonly machine: number }
    | { readonly kind: 'diskHoles'; readonly machine: number }
    /** At its end the machine goes on with its disk as it was at the beginning: a backup was restored. */
    | { readonly kind: 'diskRestored'; readonly machine: number }
    /** Each process in turn dies at a moment of its work with its disk, as `SimDisk.killAt` counts them. */
    | { readonly kind: 'diskCrash'; readonly machine: number; readonly moments: readonly number[] }
    /** As a partition, with any number of gateways on either side. */
    | { readonly kind: 'split'; readonly machines: readonly number[] }
    /** Frames of tabs come several times, and out of their order. */
    | { readonly kind: 'replay'; readonly machine: number; readonly times: number }
    /** They lie to the end of the run, `share` of what they say. */
    | { readonly kind: 'lyingNode'; readonly machine: number; readonly lie: NodeLie; readonly share: number }
    | { readonly kind: 'lyingGateway'; readonly machine: number; readonly lie: GatewayLie; readonly share: number }
  );

export type PlannedKind = Fault['kind'];

/** What a seed may draw from. */
export interface FaultPlan {
  /** Come in every run, once each at least. */
  readonly always: readonly PlannedKind[];
  /** Of these, each seed takes some, and decides how many of each and how hard. */
  readonly sometimes: readonly PlannedKind[];
  /** Of one kind in one run. */
  readonly eachMax: number;
  /** Of these kinds, at least so many. */
  readonly atLeast?: Partial<Readonly<Record<PlannedKind, number>>>;
  /** What liars draw from; everything where it says nothing. */
  readonly lies?: { readonly gateway?: readonly GatewayLie[]; readonly node?: readonly NodeLie[] };
}

export interface FaultWindow {
  readonly gateways: number;
  readonly nodes: number;
  readonly startMs: number;
  readonly endMs: number;
}

/** Draws a plan's faults; all of them end within the window. Sorted by start. */
export function drawFaults(plan: FaultPlan, window: FaultWindow, random: SimRandom): readonly Fault[] {
  const kinds = [...plan.always, ...plan.sometimes.filter(() => random.chance(0.5))];
  const faults = kinds.flatMap((kind) => {
    const draws = random.fork(kind);
    const count = Math.max(plan.atLeast?.[kind] ?? 0, 1 + draws.int(plan.eachMax));
    return Array.from({ length: count }, () => drawFault(kind, window, draws, plan.lies));
  });
  return faults.sort((a, b) => a.atMs - b.atMs);
}

function drawSpan({ startMs, endMs }: FaultWindow, random: SimRandom): Span {
  const lengthMs = (endMs - startMs) * random.between(0.05, 0.5);
  const atMs = random.between(startMs, endMs - lengthMs);
  return { atMs, untilMs: atMs + lengthMs };
}

function drawFault(kind: PlannedKind, window: FaultWindow, random: SimRandom, lies: FaultPlan['lies'] = {}): Fault {
  const span = drawSpan(window, random);
  const machine = random.int(window.gateways + window.nodes);
  const node = window.gateways + random.int(window.nodes);
  switch (kind) {
    case 'partition':
      return { ...span, kind, machines: drawSide(window, random) };
    case 'oneWay':
      return { ...span, kind, machines: drawSide(window, random), way: random.chance(0.5) ? 'in' : 'out' };
    case 'blackHole':
      return { ...span, kind, from: machine, to: otherThan(machine, window, random) };
    case 'slowLink':
      return { ...span, kind, machine, factor: random.between(2, 30) };
    case 'crash':
      return { ...span, kind, machine, hasPower: random.chance(0.6) };
    case 'clockSkew':
      return { ...span, kind, machine, skewMs: Math.round(random.between(-600_000, 600_000)) };
    case 'nodeCrash':
      return { ...span, kind, machine: node, hasPower: random.chance(0.6) };
    case 'nodePause':
    case 'nodeReset':
    case 'engineStall':
    case 'engineCrash':
      return { ...span, kind, machine: node };
    case 'engineSlow':
      return { ...span, kind, machine: node, factor: random.between(2, 20) };
    case 'diskSlow':
      return { ...span, kind, machine, factor: random.between(10, 1_000) };
    case 'reset':
    case 'pause':
    case 'diskFull':
    case 'diskHoles':
    case 'diskRestored':
      return { ...span, kind, machine };
    case 'split':
      return { ...span, kind, machines: drawSplit(window, random) };
    case 'diskCrash':
      // As many of the first moments of a process as of later ones: there it reads what the last one left.
      return {
        ...span,
        kind,
        machine,
        moments: Array.from({ length: 3 }, () => Math.floor(2 ** random.between(0, 9))),
      };
    case 'replay':
      return { ...span, kind, machine, times: 1 + random.int(100) };
    case 'lyingNode':
      return { ...drawLying(window, random), kind, machine: node, lie: drawn(lies.node ?? nodeLies, random) };
    case 'lyingGateway':
      return {
        ...drawLying(window, random),
        kind,
        machine: drawLiar(window, random),
        lie: drawn(lies.gateway ?? gatewayLies, random),
      };
  }
}

/** Liars begin early, so that it shows whether they are stopped. */
function drawLying({ startMs, endMs }: FaultWindow, random: SimRandom): Span & { readonly share: number } {
  const share = random.chance(0.5) ? 1 : random.between(0.1, 1);
  return { atMs: startMs + (endMs - startMs) * random.between(0, 0.2), untilMs: endMs, share };
}

const drawn = <T>(all: readonly T[], random: SimRandom): T => all[random.int(all.length)] as T;

/** Never the first one: without an honest issuer nobody has any money. */
const drawLiar = ({ gateways }: FaultWindow, random: SimRandom): number => 1 + random.int(gateways - 1);

function otherThan(machine: number, { gateways, nodes }: FaultWindow, random: SimRandom): number {
  const other = random.int(gateways + nodes - 1);
  return other < machine ? other : other + 1;
}

/** A part of the mesh with at least one gateway on either side where there are two. */
function drawSide({ gateways, nodes }: FaultWindow, random: SimRandom): number[] {
  const inside = random.int(gateways);
  const share = random.between(0.2, 0.8);
  const side = Array.from({ length: nodes }, (_, at) => gateways + at).filter(() => random.chance(share));
  return [inside, ...side];
}

function drawSplit({ gateways, nodes }: FaultWindow, random: SimRandom): number[] {
  const share = random.between(0.2, 0.8);
  return Array.from({ length: gateways + nodes }, (_, at) => at).filter(() => random.chance(share));
}

/** Kinds that any scenario may draw from. */
export const plannedKinds: readonly PlannedKind[] = [
  'partition',
  'oneWay',
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
  'diskHoles',
  'diskRestored',
];
