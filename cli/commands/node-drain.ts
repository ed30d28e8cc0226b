/** `helixflow node drain`: takes a node out of the mesh without cutting an answer. */

import type { RunCommand } from '../command.ts';
import type { drainOptions } from '../config/node-tables.ts';
import { drainDaemon } from '../drain.ts';

export const runNodeDrain: RunCommand<typeof drainOptions> = (config, context) => drainDaemon('node', config, context);
