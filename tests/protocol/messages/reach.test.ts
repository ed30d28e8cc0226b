/** The frames by which a peer asks whether it can be dialled. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { encodeValue } from '../../../protocol/codec.ts';
import { fromHex, toHex } from '../../../protocol/crypto.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import { limits } from '../../../protocol/limits.ts';
import {
  encodeReachFrame,
  parseReachFrame,
  type ReachFrame,
  reachFrameMaxBytes,
} from '../../../protocol/messages/reach.ts';

const frames: fc.Arbitrary<ReachFrame> = fc.record({
  type: fc.constantFrom('try' as const, 'tried' as const),
  addresses: fc.array(fc.string({ maxLength: limits.addressMaxChars }), { maxLength: limits.peerAddressesMax }),
});

function outcome(bytes: Uint8Array): string {
  try {
    return parseReachFrame(bytes)?.type ?? 'unknown';
  } catch (error) {
    return isHelixFlowError(error) ? error.code : `not typed: ${error}`;
  }
}

describe('frames of /helixflow/reach/1', () => {
  test('come back as they were, and fit', ({ expect }) => {
    fc.assert(
      fc.property(frames, (frame) => {
        const bytes = encodeReachFrame(frame);
        expect(parseReachFrame(bytes)).toEqual(frame);
        expect(bytes.length).toBeLessThanOrEqual(reachFrameMaxBytes);
      }),
    );
  });

  test('are these bytes', ({ expect }) => {
    const frame: ReachFrame = { type: 'try', addresses: ['/ip4/192.0.2.1/tcp/4001'] };
    const hex = '820081772f6970342f3139322e302e322e312f7463702f34303031';
    expect(toHex(encodeReachFrame(frame))).toBe(hex);
    expect(parseReachFrame(fromHex(hex))).toEqual(frame);
    expect(toHex(encodeReachFrame({ type: 'tried', addresses: [] }))).toBe('820180');
  });

  test('are refused, or passed over, where they are not what they should be', ({ expect }) => {
    const address = '/ip4/192.0.2.1/tcp/4001';
    const cases = [
      [[2, []], 'unknown'],
      [[0, [], 'appended'], 'try'],
      [[0], 'FRAME_MALFORMED'],
      [[0, address], 'FRAME_MALFORMED'],
      [[0, [1]], 'FRAME_MALFORMED'],
      [[0, ['x'.repeat(limits.addressMaxChars + 1)]], 'FRAME_MALFORMED'],
      [[0, new Array<string>(limits.peerAddressesMax + 1).fill(address)], 'FRAME_MALFORMED'],
    ] as const;
    expect(cases.map(([value]) => outcome(encodeValue(value)))).toEqual(cases.map(([, said]) => said));
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(['try', 'tried', 'unknown', 'FRAME_MALFORMED']).toContain(outcome(bytes));
      }),
    );
  });
});
