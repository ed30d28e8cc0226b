/** `helixflow gateway drain`: ends a gateway once its clients have their answers. */

import type { RunCommand } from '../command.ts';
import type { drainOptions } from '../config/node-tables.ts';
import { drainDaemon } from '../drain.ts';

export const runGatewayDrain: RunCommand<typeof drainOptions> = (config, context) =>
  drainDaemon('gateway', config, context);
