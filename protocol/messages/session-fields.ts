/** Fields that several frames of a session share: how they are written, bounded and read. */

import type { Value } from '../codec.ts';
import { fromHex, toHex } from '../crypto.ts';
import { HelixFlowError } from '../errors.ts';
import { isPeerId, type ModelDigest, type PriceId } from '../ids.ts';
import { limits } from '../limits.ts';
import type { Contact, EngineModel } from '../ports.ts';
import { Reader } from '../reader.ts';

/** How an answer may end; on the wire by index, as the three below. */
export const finishes = ['stop', 'length'] as const;
export const digestKinds = ['weights', 'declared', 'synthetic'] as const;
export const continuations = ['none', 'text', 'tokens'] as const;
export const operations = ['chat'] as const;
/** Text for people. */
export const textMaxChars = 256;
/** `eu-central`, `home`: a name that operators agree on. */
export const regionMaxChars = 32;

/** The positions of a model, for `readModel`. */
export const modelFields = (model: EngineModel): Value => [
  model.name,
  fromHex(model.digest),
  digestKinds.indexOf(model.digestKind),
  model.contextTokens,
  continuations.indexOf(model.continuation),
  model.build.slice(0, textMaxChars),
];

/** What an engine says it measured, as the wire takes it: one wrong number must not end a session. */
export function wireNumber(measured: number, max: number): number {
  return Number.isNaN(measured) ? 0 : Math.min(Math.max(Math.round(measured), 0), max);
}
export const wireCount = (tokens: number): number => wireNumber(tokens, uint32);
export const wireMs = (time: number): number => wireNumber(time, Number.MAX_SAFE_INTEGER);

/** Sessions that one start names; a pair holds more only for moments. */
export const startHoldsMax = 16;
export const uint32 = 0xffff_ffff;

/** One of `names`, by its index. */
export function pick<T extends string>(names: readonly T[], reader: Reader): T {
  return names[reader.int(names.length - 1)] as T;
}

/** A model of an offer. @throws HelixFlowError FRAME_MALFORMED */
export function readModel(value: Value): EngineModel {
  const reader = new Reader(value, 'model');
  return {
    name: reader.text(limits.modelNameMaxChars),
    digest: toHex(reader.bytes(32, 32)) as ModelDigest,
    digestKind: pick(digestKinds, reader),
    contextTokens: reader.int(100_000_000, 1),
    continuation: pick(continuations, reader),
    build: reader.text(textMaxChars),
  };
}

/** A peer and its addresses. @throws HelixFlowError FRAME_MALFORMED */
export function readContact(value: Value): Contact {
  const reader = new Reader(value, 'contact');
  const peer = reader.text(64);
  if (!isPeerId(peer)) throw new HelixFlowError('FRAME_MALFORMED', { reason: 'contact: no peer id' });
  const addresses = reader.list(limits.peerAddressesMax, (address) => {
    if (typeof address === 'string' && address.length <= limits.addressMaxChars) return address;
    throw new HelixFlowError('FRAME_MALFORMED', { reason: 'contact: no address' });
  });
  return { peer, addresses };
}

/** The entry that a price comes from; no bytes where there is none. */
export function readPriceId(reader: Reader): PriceId | '' {
  const bytes = reader.bytes(8);
  if (bytes.length % 8 === 0) return toHex(bytes) as PriceId | '';
  throw new HelixFlowError('FRAME_MALFORMED', { reason: 'frame: no price' });
}
