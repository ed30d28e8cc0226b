/** `helixflow why`: where one of the newest requests went, and why. */

import type { RunCommand } from '../command.ts';
import type { whyOptions } from '../config/tables.ts';
import { callOperation } from '../control-client.ts';
import { openDataDir } from '../data-dir.ts';
import { whyText, whyValue } from '../why-text.ts';

export const runWhy: RunCommand<typeof whyOptions> = async ({ request }, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  const trace = await callOperation(dir.socket, 'requests.why', { request });
  output.data(whyValue(trace), whyText(trace));
  return 0;
};
