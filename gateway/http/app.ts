/** The clients' door: OpenAI's routes over the service; built here, listening elsewhere. */

import type { FastifyInstance } from 'fastify';
import { createDoor } from './door.ts';
import { addEndpoints } from './endpoints.ts';
import { type GatewayAppDeps, type GatewayAppOptions, gatewayAppDefaults } from './options.ts';
import { publicDoor } from './roles.ts';
import { unknownRoute } from './routes.ts';

/** Builds the app, as `createDoor` does. */
export function createGatewayApp(
  deps: GatewayAppDeps,
  options: GatewayAppOptions = gatewayAppDefaults,
): FastifyInstance {
  const guard = { table: publicDoor, keys: deps.keys, unknown: 'public' } as const;
  const app = createDoor(deps, options, { guard, paths: 'forgiving', unknownRoute });
  addEndpoints(app, deps, { options, responding: { clock: deps.clock, log: deps.log, stallMs: options.stallMs } });
  return app;
}
