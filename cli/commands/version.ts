/** `helixflow version`: what runs here. */

import type { RunCommand } from '../command.ts';
import { version } from '../version.ts';

export const runVersion: RunCommand<Record<never, never>> = async (_config, { output }) => {
  const { platform, arch, version: nodeVersion } = process;
  const value = { version, nodeVersion, platform, arch };
  output.data(value, `helixflow ${version}, Node ${nodeVersion}, ${platform} ${arch}`);
  return 0;
};
