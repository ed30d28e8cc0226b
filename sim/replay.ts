/** Frames of tabs that come more often than they were sent, late, and in another order. */

import type { TabFrame } from '../protocol/messages/tab.ts';
import type { SimRandom } from './random.ts';
import type { Site, Sites } from './sites.ts';
import type { World } from './world.ts';

type Send = (frame: TabFrame) => boolean;
interface Link {
  sendTab: Send;
}

/** Of one session; older ones are forgotten. */
const rememberedMax = 64;
/** Of the frames, and for how long at most. */
const overtakenShare = 0.2;
const heldMs = 500;
/** Of the frames, those after which earlier ones come again. */
const repeatedShare = 0.1;

/** What the machines that repeat themselves say. */
export class Replay {
  readonly #world: World;
  readonly #random: SimRandom;
  /** How many frames too many each machine sends for one. */
  readonly #times = new Map<Site, number>();

  constructor(world: World, sites: Sites) {
    this.#world = world;
    this.#random = world.kernel.random.fork('replay');
    sites.onBooted((site) => this.#install(site));
  }

  begin(site: Site, times: number): () => void {
    this.#times.set(site, times);
    return () => this.#times.delete(site);
  }

  #install(site: Site): void {
    if (site.role === 'gateway') {
      const tabs = site.gateway?.tabs;
      if (tabs === undefined) return;
      const ready = tabs.ready.bind(tabs);
      tabs.ready = (link) => {
        this.#wrap(site, link as Link);
        ready(link);
      };
      return;
    }
    const tabs = site.node?.tabs;
    if (tabs === undefined) return;
    const ready = tabs.ready.bind(tabs);
    tabs.ready = (link) => {
      this.#wrap(site, link as Link);
      ready(link);
    };
  }

  #wrap(site: Site, link: Link): void {
    const { kernel } = this.#world;
    const lifeline = site.machine.ports?.lifeline;
    const send = link.sendTab.bind(link);
    const said: TabFrame[] = [];
    let held: TabFrame | undefined;
    const release = (): boolean => {
      const late = held;
      held = undefined;
      return late === undefined || send(late);
    };
    link.sendTab = (frame) => {
      const times = this.#times.get(site);
      said.push(frame);
      if (said.length > rememberedMax) said.shift();
      if (times !== undefined && held === undefined && this.#random.chance(overtakenShare)) {
        held = frame;
        kernel.schedule(heldMs, release, lifeline, 'io');
        return true;
      }
      const isTaken = [send(frame), release()].every((taken) => taken);
      if (times === undefined || !this.#random.chance(repeatedShare)) return isTaken;
      return this.#again(said, times, send);
    };
  }

  #again(said: readonly TabFrame[], times: number, send: Send): boolean {
    let isTaken = true;
    for (let at = 0; at < times; at += 1) {
      const frame = said[this.#random.int(said.length)];
      if (frame !== undefined) isTaken = send(frame);
    }
    this.#world.counts.add('replay', times);
    return isTaken;
  }
}
