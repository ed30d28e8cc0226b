/** Which lines are on whose disk: what a restored backup, or a hole in a log, takes from everybody, and what it may not. */

import { parseEntry } from '../ledger/entry.ts';
import { feedKeys, readBlockRow } from '../ledger/feed-rows.ts';
import { attemptName, type UsageLine } from '../ledger/line.ts';
import { LineLog } from '../ledger/line-log.ts';
import type { ProcessId } from '../protocol/ids.ts';
import type { Clock, Store } from '../protocol/ports.ts';
import type { Site, Sites } from './sites.ts';
import type { DiskBackup, SimDisk } from './store.ts';

/** Lines by the names of their attempts. */
type Lines = ReadonlyMap<string, UsageLine>;

interface Damage {
  readonly disk: SimDisk;
  readonly before: ReadonlyMap<SimDisk, DiskBackup>;
  readonly after: DiskBackup;
}

/** A disk that can only be read. */
function imageStore(image: DiskBackup): Store {
  return {
    get: async () => undefined,
    async *range({ gte, lt }) {
      const [low, high] = [String.fromCharCode(...gte), String.fromCharCode(...lt)];
      for (const [name, entry] of image) if (name >= low && name < high) yield entry;
    },
    batch: async () => {},
    close: async () => {},
  };
}

/** Every line that a gateway would still have after a power cut: in statements of any feed, or in its own log. */
export async function linesOn(image: DiskBackup): Promise<Lines> {
  const lines = new Map<string, UsageLine>();
  const store = imageStore(image);
  for await (const [key, row] of store.range(feedKeys)) {
    const block = readBlockRow(key, row);
    if (block === undefined || !('entries' in block)) continue;
    for (const bytes of block.entries) {
      const entry = parseEntry(bytes);
      if (entry.kind === 'statement') for (const line of entry.lines) lines.set(attemptName(line), line);
    }
  }
  const clock = { turn: async () => {} } as Clock;
  const left = await new LineLog({ clock, store }, '00'.repeat(16) as ProcessId).open();
  for (const { line } of left.lines) lines.set(attemptName(line), line);
  return lines;
}

/** What damaged disks took with them. */
export class Custody {
  readonly #sites: Sites;
  readonly #damages: Damage[] = [];
  readonly #damaged = new Set<SimDisk>();

  constructor(sites: Sites) {
    this.#sites = sites;
  }

  /** Damages the disk of a machine on which nothing runs, and remembers what all gateways had at that moment. */
  damage({ machine: { disk } }: Site, act: () => void): void {
    const before = new Map(this.#sites.gateways.map(({ machine }) => [machine.disk, machine.disk.durable()]));
    act();
    this.#damaged.add(disk);
    if (before.has(disk)) this.#damages.push({ disk, before, after: disk.durable() });
  }

  /** A disk of this machine was damaged. */
  isDamaged({ machine }: Site): boolean {
    return this.#damaged.has(machine.disk);
  }

  /** Lines that no disk held any more when one of them was damaged. Whatever another one held is not among them. */
  async lost(): Promise<Lines> {
    const lost = new Map<string, UsageLine>();
    for (const { disk, before, after } of this.#damages) {
      const [had, has] = [await linesOn(before.get(disk) ?? new Map()), await linesOn(after)];
      const others = [...before].filter(([other]) => other !== disk);
      const held = await Promise.all(others.map(([, image]) => linesOn(image)));
      for (const [name, line] of had) {
        if (!has.has(name) && !held.some((lines) => lines.has(name))) lost.set(name, line);
      }
    }
    return lost;
  }
}
