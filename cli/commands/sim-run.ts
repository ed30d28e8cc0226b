/** `helixflow sim run`: a scenario under virtual time, decided by one seed. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { RunCommand } from '../command.ts';
import type { simRunOptions } from '../config/tables.ts';

export const runSim: RunCommand<typeof simRunOptions> = async () => {
  throw new HelixFlowError('CHECK_FAILED', { reason: 'pending' });
};
