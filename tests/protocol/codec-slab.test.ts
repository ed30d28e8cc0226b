/** Values that are encoded one behind the other come out as they went in, wherever in the shared memory each of them falls. */

import { test } from 'vitest';
import { decodeValue, encodeValue, type Value } from '../../protocol/codec.ts';

test('texts and bytes of any length are whole at every place', ({ expect }) => {
  const wrong: unknown[] = [];
  for (let length = 0; length <= 40; length += 1) {
    const values: Value[] = ['x'.repeat(length), 'ü'.repeat(length), new Uint8Array(length).fill(7), [length, 'ab']];
    // Each length meets the end of the memory at other distances.
    for (let round = 0; round < 3_000; round += 1) {
      const value = values[round % values.length] as Value;
      const read = decodeValue(encodeValue(value));
      if (JSON.stringify(read) !== JSON.stringify(value)) wrong.push([length, value, read]);
    }
  }
  expect(wrong).toEqual([]);
});
