/** Plays faults on a mesh: each begins and ends at its time, and its machine may be another process by then. */

import type { Fault } from './faults.ts';
import { blackHole, type LinkRule, oneWay, partition, slowLink } from './links.ts';
import type { NodeSite, Site, Sites } from './sites.ts';
import type { World } from './world.ts';

/** Puts all of them on the calendar. */
export function playFaults(faults: readonly Fault[], world: World, sites: Sites): void {
  for (const fault of faults) {
    world.kernel.schedule(fault.atMs - world.kernel.nowMs, () => {
      const end = begin(fault, world, sites);
      if (end !== undefined) world.kernel.schedule(fault.untilMs - fault.atMs, end);
    });
  }
}

type End = () => void;

function begin(fault: Fault, world: World, sites: Sites): End | undefined {
  const hostId = (number: number): number => sites.at(number)?.machine.host.id ?? 0;
  const link = (rule: LinkRule): End => world.links.add(rule);
  switch (fault.kind) {
    case 'partition':
      return link(partition(new Set(fault.machines.map(hostId))));
    case 'oneWay':
      return link(oneWay(new Set(fault.machines.map(hostId)), fault.way));
    case 'blackHole':
      return link(blackHole(hostId(fault.from), hostId(fault.to)));
    case 'slowLink':
      return link(slowLink(hostId(fault.machine), fault.factor));
    default:
      return beginAt(fault, world, sites, sites.at(fault.machine));
  }
}

type MachineFault = Exclude<Fault, { readonly kind: 'partition' | 'oneWay' | 'blackHole' | 'slowLink' }>;

function beginAt(fault: MachineFault, world: World, sites: Sites, site: Site | undefined): End | undefined {
  if (site === undefined) return undefined;
  const { machine } = site;
  switch (fault.kind) {
    case 'reset':
      for (const connection of machine.ports?.network.connections() ?? []) world.fabric.reset(connection);
      return undefined;
    case 'crash':
      sites.kill(site, fault.hasPower);
      return () => sites.boot(site);
    case 'pause':
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
      machine.disk.faults.holeChance = 1;
      sites.kill(site, false);
      machine.disk.faults.holeChance = 0;
      return () => sites.boot(site);
    case 'diskRestored': {
      const backup = machine.disk.backup();
      return () => {
        sites.kill(site, true);
        machine.disk.restore(backup);
        sites.boot(site);
      };
    }
    default:
      return site.role === 'node' ? beginEngine(fault, site) : undefined;
  }
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
