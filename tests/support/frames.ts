/** Arbitrary values, frames and garbage of the session's wire, for property tests. */

import fc from 'fast-check';
import type { Value } from '../../protocol/codec.ts';
import { toHex } from '../../protocol/crypto.ts';
import { type ErrorDetails, errorCodes, HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest, PeerId, PriceId, ProcessId, RequestId, Tag } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { nodeCodes } from '../../protocol/messages/error.ts';
import type { SessionFrame } from '../../protocol/messages/session.ts';
import type { EngineModel } from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';

const uint32 = fc.oneof(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 0xffff_ffff }));
const bytes = (maxLength: number) => fc.uint8Array({ maxLength });
const exactly = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const hex = (length: number) => exactly(length).map(toHex);
const text = (maxLength: number) =>
  fc.string({ unit: 'binary', maxLength }).filter((value) => value.length <= maxLength);

/** Integers on both sides of every length that canonical CBOR distinguishes. */
export const integers = fc.oneof(
  fc.maxSafeInteger(),
  fc.integer({ min: -300, max: 300 }),
  fc
    .tuple(
      fc.constantFrom(0, 23, 0xff, 0xffff, 0xffff_ffff, Number.MAX_SAFE_INTEGER - 2),
      fc.integer({ min: -2, max: 2 }),
    )
    .map(([near, by]) => near + by),
);

/** Everything that the codec carries, nested at most four deep. */
export const values: fc.Arbitrary<Value> = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthIdentifier: 'value' },
    integers,
    text(80),
    bytes(300),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 30, depthIdentifier: 'value' }),
  ),
})).value;

const models: fc.Arbitrary<EngineModel> = fc.record({
  name: text(limits.modelNameMaxChars),
  digest: hex(32) as fc.Arbitrary<ModelDigest>,
  digestKind: fc.constantFrom('weights', 'declared', 'synthetic'),
  contextTokens: fc.integer({ min: 1, max: 100_000_000 }),
  continuation: fc.constantFrom('none', 'text', 'tokens'),
  build: text(256),
});

const details = fc.dictionary(
  fc.stringMatching(/^[a-z][A-Za-z]{0,20}$/),
  fc.oneof(fc.integer(), fc.string({ maxLength: 40 })),
  { maxKeys: 8, noNullPrototype: true },
);
const errors = fc
  .tuple(fc.constantFrom(...nodeCodes), details)
  .map(([code, values]) => new HelixFlowError(code, values as unknown as ErrorDetails[typeof code]));

const open = fc.record({
  type: fc.constant('open' as const),
  attempt: uint32,
  request: hex(16) as fc.Arbitrary<RequestId>,
  model: text(limits.modelNameMaxChars),
  digest: hex(32) as fc.Arbitrary<ModelDigest>,
  operation: fc.constant('chat' as const),
  deadlineMs: fc.integer({ min: 1, max: 86_400_000 }).map(ms),
  bodyBytes: fc.integer({ min: 0, max: limits.requestBodyMaxBytes }),
  piece: bytes(limits.bodyChunkBytes),
  serial: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  account: hex(8) as fc.Arbitrary<Tag>,
  price: fc.oneof(fc.constant(''), hex(8)) as fc.Arbitrary<PriceId | ''>,
  resumeBytes: fc.integer({ min: 0, max: limits.requestBodyMaxBytes }),
});

/** One arbitrary frame of each type, so that a test can name the type that fails. */
export const framesByType: { readonly [Type in SessionFrame['type']]: fc.Arbitrary<SessionFrame & { type: Type }> } = {
  gateways: fc.record({
    type: fc.constant('gateways' as const),
    contacts: fc.array(
      fc.record({
        peer: fc.stringMatching(/^[1-9A-HJ-NP-Za-km-z]{8,64}$/) as fc.Arbitrary<PeerId>,
        addresses: fc.array(text(limits.addressMaxChars), { maxLength: limits.peerAddressesMax }),
      }),
      { maxLength: limits.sessionsPerNodeMax },
    ),
  }),
  start: fc.record({
    type: fc.constant('start' as const),
    process: hex(16) as fc.Arbitrary<ProcessId>,
    serial: fc.maxSafeNat(),
    holds: fc.array(fc.maxSafeNat(), { maxLength: 16 }),
  }),
  offer: fc.record({
    type: fc.constant('offer' as const),
    revision: uint32,
    models: fc.array(models, { maxLength: limits.offerModelsMax }),
    slots: fc.integer({ min: 0, max: 1_000_000 }),
    hardware: text(256),
    owner: text(64),
    region: text(32),
  }),
  offered: fc.record({ type: fc.constant('offered' as const), revision: uint32 }),
  load: fc.record({
    type: fc.constant('load' as const),
    active: uint32,
    queued: uint32,
    freeSlots: uint32,
    tokensPerSecond: uint32,
    draining: fc.boolean(),
    progress: fc.maxSafeNat(),
  }),
  open,
  body: fc.record({ type: fc.constant('body' as const), attempt: uint32, piece: bytes(limits.bodyChunkBytes) }),
  delta: fc.record(
    {
      type: fc.constant('delta' as const),
      attempt: uint32,
      sequence: uint32,
      text: text(2_000),
      tokenIds: fc.array(fc.maxSafeNat(), { maxLength: 60 }),
      isOpaque: fc.constant(true),
    },
    { requiredKeys: ['type', 'attempt', 'sequence', 'text', 'tokenIds'] },
  ),
  done: fc.record({
    type: fc.constant('done' as const),
    attempt: uint32,
    finish: fc.constantFrom('stop' as const, 'length' as const),
    promptTokens: uint32,
    cachedTokens: uint32,
    completionTokens: uint32,
    queueMs: fc.maxSafeNat(),
    prefillMs: fc.maxSafeNat(),
    decodeMs: fc.maxSafeNat(),
  }),
  fail: fc.record({ type: fc.constant('fail' as const), attempt: uint32, error: errors }),
  cancel: fc.record({ type: fc.constant('cancel' as const), attempt: uint32, acknowledged: uint32 }),
  cancelled: fc.record({
    type: fc.constant('cancelled' as const),
    attempt: uint32,
    completionTokens: uint32,
    promptTokens: uint32,
  }),
  credit: fc.record({ type: fc.constant('credit' as const), attempt: uint32, bytes: uint32, acknowledged: uint32 }),
  ping: fc.record({ type: fc.constant('ping' as const), nonce: uint32 }),
  pong: fc.record({ type: fc.constant('pong' as const), nonce: uint32 }),
  goodbye: fc.record({ type: fc.constant('goodbye' as const), code: fc.constantFrom(...errorCodes) }),
  statement: fc.record({
    type: fc.constant('statement' as const),
    header: bytes(256),
    signature: exactly(64),
    index: fc.nat(limits.blockEntriesMax - 1),
    entry: bytes(2_000),
    path: fc.array(exactly(32), { maxLength: 10 }),
  }),
  countersign: fc.record({ type: fc.constant('countersign' as const), entry: bytes(2_000) }),
  claim: fc.record({ type: fc.constant('claim' as const), entry: bytes(2_000) }),
};

/** A frame of any type. */
export const frames: fc.Arbitrary<SessionFrame> = fc.oneof(...Object.values(framesByType));

/** Bytes that no peer of ours would send: random ones, and real ones cut, flipped, doubled or run together. */
export const garbageOf = (real: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Uint8Array> =>
  fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.tuple(real, fc.nat()).map(([frame, at]) => frame.slice(0, at % (frame.length + 1))),
    fc.tuple(real, fc.nat(), fc.integer({ min: 1, max: 255 })).map(([frame, at, flip]) => {
      const changed = frame.slice();
      const index = at % Math.max(1, changed.length);
      changed[index] = (changed[index] ?? 0) ^ flip;
      return changed;
    }),
    fc.tuple(real, fc.uint8Array({ minLength: 1, maxLength: 20 })).map(([frame, more]) => Buffer.concat([frame, more])),
  );
