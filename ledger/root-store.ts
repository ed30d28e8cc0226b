/** What the root has said, kept on disk. */

import { decodeValue, encodeValue } from '../protocol/codec.ts';
import { sha256Hex } from '../protocol/crypto.ts';
import { isHelixFlowError } from '../protocol/errors.ts';
import { limits } from '../protocol/limits.ts';
import type { Roots, RootToken } from '../protocol/peer/roots.ts';
import type { Log, Store, StoreOp } from '../protocol/ports.ts';
import { Reader } from '../protocol/reader.ts';

const encoder = new TextEncoder();
const prefix = 'root/';
const range = { gte: encoder.encode(prefix), lt: encoder.encode('root0') };
const kinds = ['issuer', 'revocation', 'lift'] as const;

function readRow(value: Uint8Array): RootToken | undefined {
  try {
    const r = new Reader(decodeValue(value), 'root token');
    return { kind: kinds[r.int(kinds.length - 1)] as RootToken['kind'], token: r.text(limits.tokenMaxChars) };
  } catch (error) {
    if (isHelixFlowError(error, 'FRAME_MALFORMED')) return undefined;
    throw error;
  }
}

/** @returns false for what the root did not sign: the row is damaged. */
async function takeKept(roots: Roots, said: RootToken): Promise<boolean> {
  try {
    await roots.take(said);
    return true;
  } catch (error) {
    if (!isHelixFlowError(error, 'TOKEN_INVALID')) throw error;
    return false;
  }
}

/** Keeps what one store has been told, below `root/`. */
export interface RootStore {
  /** Tells `roots` everything that was kept; drops what is damaged. @throws HelixFlowError STORE_FAILED */
  load(roots: Roots): Promise<void>;
  /** Synced: a revocation must not be forgotten. @throws HelixFlowError STORE_FAILED */
  keep(said: RootToken): Promise<void>;
}

export function createRootStore({ store, log }: { readonly store: Store; readonly log: Log }): RootStore {
  const kept = new Set<string>();
  const keep = async (said: RootToken): Promise<void> => {
    if (kept.has(said.token)) return;
    kept.add(said.token);
    const key = encoder.encode(prefix + sha256Hex(said.token));
    const value = encodeValue([kinds.indexOf(said.kind), said.token]);
    await store.batch([{ type: 'put', key, value }], { sync: true });
  };
  return {
    keep,
    load: async (roots) => {
      const damaged: StoreOp[] = [];
      for await (const [key, value] of store.range(range)) {
        const said = readRow(value);
        if (said !== undefined && (await takeKept(roots, said))) kept.add(said.token);
        else damaged.push({ type: 'del', key });
      }
      if (damaged.length === 0) return;
      log.warn('roots.damaged', { count: damaged.length });
      await store.batch(damaged, { sync: false });
    },
  };
}
