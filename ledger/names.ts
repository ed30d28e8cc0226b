/** Names that people gave to keys and accounts: a table beside the ledger, on one machine, from which each can be erased. */

import type { Store } from '../protocol/ports.ts';

/** What has a name: `key:<id>` or `account:<id>`, as the audit log refers to it. */
export type NamedThing = `key:${string}` | `account:${string}`;

/** The table; whoever holds the issuer's key holds it, and nobody else. */
export interface Names {
  /** Undefined where none was given, or it was erased. @throws HelixFlowError STORE_FAILED */
  of(thing: NamedThing): Promise<string | undefined>;
  /** Every name of one kind, by id; far less work than one by one. @throws HelixFlowError STORE_FAILED */
  all(kind: 'key' | 'account'): Promise<ReadonlyMap<string, string>>;
  /** Survives a power cut once it resolves. @throws HelixFlowError STORE_FAILED */
  give(thing: NamedThing, name: string): Promise<void>;
  /** Forgets the name, in the store's files too; what it stood for stays. @throws HelixFlowError STORE_FAILED */
  erase(thing: NamedThing): Promise<void>;
  /** As `erase`, of many at once. */
  eraseAll(things: readonly NamedThing[]): Promise<void>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const rowOf = (thing: NamedThing): Uint8Array => encoder.encode(`name/${thing}`);

async function namesOf(store: Store, kind: 'key' | 'account'): Promise<ReadonlyMap<string, string>> {
  const prefix = `name/${kind}:`;
  // The row after all that begin so.
  const end = `name/${kind};`;
  const names = new Map<string, string>();
  for await (const [row, name] of store.range({ gte: encoder.encode(prefix), lt: encoder.encode(end) })) {
    names.set(decoder.decode(row.subarray(prefix.length)), decoder.decode(name));
  }
  return names;
}

/** Every row of the table. */
const table = { gte: encoder.encode('name/'), lt: encoder.encode('name0') };

/** What was deleted stands in the files of a store until they are written anew. */
async function forget(store: Store, things: readonly NamedThing[]): Promise<void> {
  await store.batch(
    things.map((thing) => ({ type: 'del', key: rowOf(thing) })),
    { sync: true },
  );
  await store.purge?.(table);
}

/** Opens the table; the store's keys below `name/` are its own. */
export const createNames = (store: Store): Names => ({
  async of(thing) {
    const name = await store.get(rowOf(thing));
    return name && decoder.decode(name);
  },
  all: (kind) => namesOf(store, kind),
  give: (thing, name) => store.batch([{ type: 'put', key: rowOf(thing), value: encoder.encode(name) }], { sync: true }),
  erase: (thing) => forget(store, [thing]),
  eraseAll: (things) => forget(store, things),
});
