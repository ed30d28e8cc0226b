/** The line on hardware. */

import { test } from 'vitest';
import { describeHardware } from '../../../node/hardware.ts';

test('hardware is described in one short line that names the processor', async ({ expect }) => {
  const line = await describeHardware();
  expect(line).toMatch(/, [1-9]\d* cores?$/);
  expect(line.length).toBeLessThanOrEqual(256);
  expect(line).toMatch(/^[\x20-\x7e×]+$/);
});
