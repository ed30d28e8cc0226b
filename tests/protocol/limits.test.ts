/** The limits fit together: what one allows, no other makes impossible. */

import { describe, test } from 'vitest';
import { limits, limitTable } from '../../protocol/limits.ts';

describe('limits', () => {
  test('are whole and positive, and each says why', ({ expect }) => {
    const odd = Object.entries(limitTable).filter(
      ([, row]) => !Number.isSafeInteger(row.value) || row.value <= 0 || row.why.length < 10,
    );
    expect(odd).toEqual([]);
    expect(Object.keys(limits)).toEqual(Object.keys(limitTable));
  });

  test('carry their unit in the name', ({ expect }) => {
    const suffix = { bytes: /Bytes$/, ms: /Ms$/, characters: /Chars$/, count: /(Max|Min)$/, 'per second': /PerSecond/ };
    expect(Object.entries(limitTable).filter(([name, row]) => !suffix[row.unit].test(name))).toEqual([]);
  });

  test('cannot be changed at run time', ({ expect }) => {
    expect(() => Object.assign(limits, { frameMaxBytes: 1 })).toThrow(TypeError);
  });

  test('leave room in a frame for what goes into it', ({ expect }) => {
    const headBytes = 1_024;
    expect(limits.bodyChunkBytes + headBytes).toBeLessThanOrEqual(limits.frameMaxBytes);
    expect(limits.deltaTextMaxBytes + limits.deltaTokensMax * 9 + headBytes).toBeLessThanOrEqual(limits.frameMaxBytes);
    expect(limits.deltaTextMaxBytes).toBeLessThanOrEqual(limits.creditInitialBytes);
    expect(limits.requestBodyMaxBytes).toBeLessThanOrEqual(limits.sessionBodyMaxBytes);
    expect(limits.channelHighWaterBytes).toBeLessThan(limits.channelQueueMaxBytes);
  });

  test('notice silence before they act on it', ({ expect }) => {
    expect(limits.heartbeatActiveMs * limits.heartbeatMissesMax).toBeLessThan(limits.sessionStaleMs);
    // A node that is cut off is left in time for another one to go on within two seconds.
    expect(limits.heartbeatActiveMs * (limits.heartbeatMissesMax + 1)).toBeLessThanOrEqual(1_500);
    // An idle node that is cut off is known within three seconds.
    const silentMs = limits.heartbeatActiveMs * (limits.heartbeatMissesMax + 1);
    expect(limits.heartbeatWatchMs + silentMs).toBeLessThanOrEqual(3_000);
    expect(limits.heartbeatWatchMs).toBeLessThan(limits.heartbeatIdleMs);
    expect(limits.heartbeatIdleMs).toBeLessThan(limits.sessionSilentMs);
    expect(limits.sessionStaleMs).toBeLessThan(limits.sessionSilentMs);
    expect(limits.advertRenewMs * 3).toBeLessThanOrEqual(limits.advertTtlMs);
  });
});
