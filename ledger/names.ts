/** Names that people gave to keys and accounts: a table beside the ledger, on one machine, from which each can be erased. */

import type { Store } from '../protocol/ports.ts';

/** What has a name: `key:<id>` or `account:<id>`, as the audit log refers to it. */
export type NamedThing = `key:${string}` | `account:${string}`;

/** The table; whoever holds the issuer's key holds it, and nobody else. */
export interface Names {
  /** Undefined where none was given, or it was erased. */
  of(thing: NamedThing): Promise<string | undefined>;
  /** Survives a power cut once it resolves. @throws HelixFlowError STORE_FAILED */
  give(thing: NamedThing, name: string): Promise<void>;
  /** Forgets the name; what it stood for stays. @throws HelixFlowError STORE_FAILED */
  erase(thing: NamedThing): Promise<void>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const rowOf = (thing: NamedThing): Uint8Array => encoder.encode(`name/${thing}`);

/** Opens the table; the store's keys below `name/` are its own. */
export const createNames = (store: Store): Names => ({
  async of(thing) {
    const name = await store.get(rowOf(thing));
    return name && decoder.decode(name);
  },
  give: (thing, name) => store.batch([{ type: 'put', key: rowOf(thing), value: encoder.encode(name) }], { sync: true }),
  erase: (thing) => store.batch([{ type: 'del', key: rowOf(thing) }], { sync: true }),
});
