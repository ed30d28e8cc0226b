/** Plays faults on a mesh: each begins and ends at its time, and its machine may be another process by then. */

import type { Custody } from './custody.ts';
import type { Fault } from './faults.ts';
import { blackHole, type LinkRule, oneWay, partition, slowLink } from './links.ts';
import type { NodeSite, Site, Sites } from './sites.ts';
import type { World } from './world.ts';

/** Faults that are played by whoever has a part in a scenario's money. */
export type MoneyFault = Extract<Fault, { readonly kind: 'replay' | 'lyingNode' | 'lyingGateway' }>;

/** What faults are played on. */
export interface Stage {
  readonly world: World;
  readonly sites: Sites;
  /** Nothing comes of what is about words, or of who has what on disk, where there is no money. */
  readonly money?: {
    readonly custody: Custody;
    begin(fault: MoneyFault, site: Site): End | undefined;
  };
}

/** Puts all of them on the calendar. */
export function playFaults(faults: readonly Fault[], stage: Stage): void {
  const { kernel } = stage.world;
  for (const fault of faults) {
    kernel.schedule(fault.atMs - kernel.nowMs, () => {
      const end = begin(fault, stage);
      if (end !== undefined) kernel.schedule(fault.untilMs - fault.atMs, end);
    });
  }
}

/** Takes a fault away again. */
export type End = () => void;

function begin(fault: Fault, stage: Stage): End | undefined {
  const { world, sites } = stage;
  const hostId = (number: number): number => sites.at(number)?.machine.host.id ?? 0;
  const link = (rule: LinkRule): End => world.links.add(rule);
  switch (fault.kind) {
    case 'partition':
    case 'split':
      return link(partition(new Set(fault.machines.map(hostId))));
    case 'oneWay':
      return link(oneWay(new Set(fault.machines.map(hostId)), fault.way));
    case 'blackHole':
      return link(blackHole(hostId(fault.from), hostId(fault.to)));
    case 'slowLink':
      return link(slowLink(hostId(fault.machine), fault.factor));
    default:
      return beginAt(fault, stage, sites.at(fault.machine));
  }
}

type MachineFault = Exclude<Fault, { readonly kind: 'partition' | 'split' | 'oneWay' | 'blackHole' | 'slowLink' }>;

function beginAt(fault: MachineFault, stage: Stage, site: Site | undefined): End | undefined {
  if (site === undefined) return undefined;
  const { world, sites } = stage;
  const { machine } = site;
  switch (fault.kind) {
    case 'reset':
    case 'nodeReset':
      for (const connection of machine.ports?.network.connections() ?? []) world.fabric.reset(connection);
      return undefined;
    case 'crash':
    case 'nodeCrash':
      sites.kill(site, fault.hasPower);
      return () => sites.boot(site);
    case 'pause':
    case 'nodePause':
      machine.pause();
      return () => machine.resume();
    case 'clockSkew':
      machine.setSkew(fault.skewMs);
      return () => machine.setSkew(0);
    case 'diskSlow':
      machine.disk.faults.slowFactor = fault.factor;
      restart(site, sites);
      return () => {
        machine.disk.faults.slowFactor = 1;
      };
    case 'diskFull':
      machine.disk.faults.isFull = true;
      restart(site, sites);
      return () => {
        machine.disk.faults.isFull = false;
        // A store that failed stays closed to its process; room alone does not bring it back.
        restart(site, sites);
      };
    case 'diskHoles':
      damage(site, stage, () => {
        machine.disk.faults.holeChance = 1;
        sites.kill(site, false);
        machine.disk.faults.holeChance = 0;
      });
      return () => sites.boot(site);
    case 'diskRestored': {
      const backup = machine.disk.backup();
      return () => {
        sites.kill(site, true);
        damage(site, stage, () => machine.disk.restore(backup));
        sites.boot(site);
      };
    }
    case 'diskCrash':
      return crashAtMoments(fault.moments, site, stage);
    case 'replay':
    case 'lyingNode':
    case 'lyingGateway':
      return stage.money?.begin(fault, site);
    default:
      return site.role === 'node' ? beginEngine(fault, site) : undefined;
  }
}

function damage(site: Site, { money }: Stage, act: () => void): void {
  if (money === undefined) act();
  else money.custody.damage(site, act);
}

/** Until what supervises a process starts it again. */
const againMs = 1_500;

/** Each process dies while it works with its disk; the next one may die while it reads what that left. */
function crashAtMoments(moments: readonly number[], site: Site, { world, sites }: Stage): End {
  const { machine } = site;
  let isOver = false;
  const arm = ([moment, ...rest]: readonly number[]): void => {
    if (moment === undefined || isOver) return;
    machine.disk.killAt(moment, () => {
      sites.kill(site, true);
      world.kernel.schedule(againMs, () => {
        arm(rest);
        sites.boot(site);
      });
    });
  };
  arm(moments);
  return () => {
    isOver = true;
    machine.disk.killNoMore();
  };
}

/** Processes touch their disks most when they start. */
function restart(site: Site, sites: Sites): void {
  sites.kill(site, true);
  sites.boot(site);
}

/** An engine that was replaced meanwhile, with its process, has nothing left to end. */
function beginEngine(
  fault: Extract<MachineFault, { readonly kind: 'engineStall' | 'engineCrash' | 'engineSlow' }>,
  site: NodeSite,
): End | undefined {
  const { engine } = site;
  if (engine === undefined) return undefined;
  const unlessReplaced = (end: End): End => {
    return () => {
      if (site.engine === engine) end();
    };
  };
  switch (fault.kind) {
    case 'engineStall':
      engine.stall();
      return unlessReplaced(() => engine.resume());
    case 'engineCrash':
      engine.crash();
      return unlessReplaced(() => engine.recover());
    case 'engineSlow':
      engine.setSlowness(fault.factor);
      return unlessReplaced(() => engine.setSlowness(1));
  }
}
