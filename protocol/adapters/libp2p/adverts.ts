/** The newest advert of each peer that this one has seen: what makes the validator refuse what is older. */

import { HelixFlowError } from '../../errors.ts';
import type { MeshId } from '../../ids.ts';
import { type Advert, judgeAdvert, parseAdvert } from '../../messages/advert.ts';
import type { Clock } from '../../ports.ts';

/** The namespace of adverts among Kademlia's records. */
export const ADVERT_NAMESPACE = 'hx';

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Under which key the advert of `peer` is kept. */
export const advertKey = (peer: string): Uint8Array => encoder.encode(`/${ADVERT_NAMESPACE}/${peer}`);

export interface SeenAdverts {
  /**
   * Checks `bytes` as an advert of `peer` against everything seen, and remembers it.
   * @throws HelixFlowError ADVERT_INVALID for one that is older than a seen one, or a fork of it, or wrong in itself.
   */
  see(peer: string, bytes: Uint8Array): Advert;
  /** The newest one of `peer` that has not expired. */
  newest(peer: string): Uint8Array | undefined;
  /** `see` as a validator of Kademlia, for a record under `advertKey`. */
  validate(key: Uint8Array, bytes: Uint8Array): void;
  /** The index of the newest; a selector of Kademlia, for records that passed `validate`. */
  select(records: readonly Uint8Array[]): number;
}

const invalid = (reason: string): HelixFlowError => new HelixFlowError('ADVERT_INVALID', { reason });

export function createSeenAdverts(
  clock: Clock,
  options: { readonly meshId: MeshId; readonly peersMax: number },
): SeenAdverts {
  const seen = new Map<string, Uint8Array>();
  const parse = (bytes: Uint8Array): Advert => parseAdvert(bytes, { meshId: options.meshId, nowMs: clock.wallMs() });
  const remember = (peer: string, bytes: Uint8Array): void => {
    seen.delete(peer);
    seen.set(peer, bytes);
    const [oldest] = seen.keys();
    if (seen.size > options.peersMax && oldest !== undefined) seen.delete(oldest);
  };
  const see = (peer: string, bytes: Uint8Array): Advert => {
    const advert = parse(bytes);
    if (advert.peer !== peer) throw invalid('of another peer');
    const order = judgeAdvert(seen.get(peer), bytes);
    if (order === 'older') throw invalid('older than one that was seen');
    if (order === 'fork') throw invalid('another one of the same number was seen');
    remember(peer, order === 'same' ? (seen.get(peer) ?? bytes) : new Uint8Array(bytes));
    return advert;
  };
  return {
    see,
    newest: (peer) => {
      const bytes = seen.get(peer);
      if (bytes === undefined) return undefined;
      try {
        parse(bytes);
        return bytes;
      } catch (error) {
        if (error instanceof HelixFlowError && error.code === 'ADVERT_INVALID') return undefined;
        throw error;
      }
    },
    validate: (key, bytes) => {
      const [, , peer = ''] = decoder.decode(key).split('/');
      see(peer, bytes);
    },
    select: (records) => {
      let best = 0;
      for (const [index, record] of records.entries()) {
        if (judgeAdvert(records[best], record) === 'newer') best = index;
      }
      return best;
    },
  };
}
