/** The tabs of a gateway by node; those that have nothing to tell make room. */

import type { PeerId } from '../protocol/ids.ts';
import { Tab, type TabOwner } from './gateway-tab.ts';
import { type SenderDeps, TabSender } from './gateway-tab-sender.ts';
import type { TabLink, TabStatus } from './tabs.ts';

/** From here on tabs make room that have nothing to tell. */
const tabsMax = 1_024;

/** What is to be told to a node, and how it gets there. */
export interface OneTab {
  readonly tab: Tab;
  readonly sender: TabSender;
}

export class TabBook {
  readonly #owner: TabOwner;
  readonly #deps: SenderDeps;
  readonly #tabs = new Map<PeerId, OneTab>();

  constructor(owner: TabOwner, deps: SenderDeps) {
    this.#owner = owner;
    this.#deps = deps;
  }

  all(): Iterable<OneTab> {
    return this.#tabs.values();
  }

  of(node: PeerId): OneTab {
    const known = this.#tabs.get(node);
    if (known !== undefined) return known;
    if (this.#tabs.size >= tabsMax) this.dropIdle();
    const fresh = { tab: new Tab(node, this.#owner), sender: new TabSender(node, this.#deps) };
    this.#tabs.set(node, fresh);
    return fresh;
  }

  /** Nothing is known of them that the feed does not say. */
  dropIdle(): void {
    for (const [node, { tab, sender }] of this.#tabs) {
      if (tab.isIdle && !sender.isConnected && sender.isEmpty) this.#tabs.delete(node);
    }
  }

  gone(link: TabLink): void {
    this.#tabs.get(link.peer)?.sender.gone(link);
  }

  beginEpoch(): void {
    for (const { tab } of this.all()) tab.beginEpoch();
  }

  get hasRunning(): boolean {
    return [...this.all()].some(({ tab }) => tab.running.size > 0);
  }

  get isBehind(): boolean {
    return [...this.all()].some(({ sender }) => sender.isBehind);
  }

  status(): readonly TabStatus[] {
    return [...this.all()].map(({ tab, sender }) => {
      const waiting = Math.min(tab.waiting(), sender.waiting);
      return {
        node: tab.node,
        running: tab.running.size,
        unstated: tab.lines.length + tab.writing,
        waiting,
        unattested: sender.waiting - waiting,
        statements: tab.statements,
        lines: tab.stated,
        refused: tab.refused,
      };
    });
  }
}
