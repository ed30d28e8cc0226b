/** A gateway that signs every place of its feed twice: its nodes are shown what they did, everybody else less. */

import { noHash, signBlock } from '../ledger/block.ts';
import { encodeEntry } from '../ledger/entry.ts';
import type { EntryPlace } from '../ledger/feeds.ts';
import { parseUsage, type StatementEntry, statementHash } from '../ledger/statement.ts';
import type { TabLink } from '../ledger/tabs.ts';
import { toHex } from '../protocol/crypto.ts';
import type { MeshId, PeerId } from '../protocol/ids.ts';
import type { StatementFrame } from '../protocol/messages/tab.ts';
import type { SigningKey } from '../protocol/ports.ts';
import { unixMs } from '../protocol/units.ts';
import type { GatewaySite } from './sites.ts';

/** Of one process. */
export class TwoFaces {
  readonly #meshId: MeshId;
  readonly #key: SigningKey;
  /** How to reach each node. */
  readonly #links = new Map<PeerId, TabLink['sendTab']>();
  /** What only nodes were shown. */
  readonly #shown = new Set<string>();

  /** @param isLying Asked with each frame. */
  constructor({ gateway, machine }: GatewaySite, meshId: MeshId, isLying: () => boolean) {
    this.#meshId = meshId;
    this.#key = machine.key;
    const tabs = gateway?.tabs;
    if (tabs === undefined) return;
    const [ready, received] = [tabs.ready.bind(tabs), tabs.received.bind(tabs)];
    tabs.ready = (link) => {
      const send = link.sendTab.bind(link);
      this.#links.set(link.peer, send);
      link.sendTab = (frame) => isLying() || send(frame);
      ready(link);
    };
    tabs.received = (node, frame) => {
      const entry = parseUsage(frame.entry);
      // Its own feed knows nothing of what this countersigns.
      if (entry.kind === 'countersign' && this.#shown.has(toHex(entry.statement))) return;
      received(node, frame);
    };
  }

  /** Shows a node the statement that stands nowhere, in the place of the one that does. */
  show(entry: StatementEntry, { author, epoch, generation, number, timeMs }: EntryPlace): void {
    const bytes = encodeEntry(entry);
    const start = { author, epoch, generation, number, timeMs: unixMs(timeMs), previous: noHash };
    const { head } = signBlock(start, [bytes], { meshId: this.#meshId, key: this.#key });
    this.#shown.add(toHex(statementHash(bytes)));
    const frame: StatementFrame = {
      ...{ type: 'statement', header: head.bytes, signature: head.signature, index: 0, entry: bytes, path: [] },
    };
    this.#links.get(entry.node)?.(frame);
  }
}
