/** Options of what a node serves, against each other. */

import { test } from 'vitest';
import { readConfig } from '../../cli/config/read.ts';
import { upOptions } from '../../cli/config/tables.ts';
import { checkEngineConfig } from '../../cli/engines.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';

function refusal(flags: Record<string, string>): string | undefined {
  try {
    checkEngineConfig(readConfig(upOptions, { flags, env: {}, file: undefined }));
    return undefined;
  } catch (error) {
    if (isHelixFlowError(error, 'CONFIG_INVALID')) return error.details.reason;
    throw error;
  }
}

test('what is said of an upstream server is refused without one', ({ expect }) => {
  const upstream = 'http://127.0.0.1:8000/v1';
  for (const [name, value] of [
    ['upstreamContinuation', 'text'],
    ['upstreamKeyFile', 'key.txt'],
    ['digest', 'ab'.repeat(32)],
  ] as const) {
    expect(refusal({ [name]: value })).toMatch(/for --upstream only$/);
    expect(refusal({ upstream, [name]: value })).toBeUndefined();
  }
  expect(refusal({ upstreamContinuation: 'auto' })).toBeUndefined();
});
