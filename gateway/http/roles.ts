/** Who may ask for what, at both doors: a table of routes and roles, and the one hook that keeps to it. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { KeyGrant, KeyRole } from '../../protocol/grants.ts';
import { assert } from '../../protocol/invariant.ts';
import type { KeyChecker } from '../access/keys.ts';
import { operationRows, requireRole } from '../admin/operations.ts';
import { requireKey } from './auth.ts';
import { routes } from './routes.ts';

/** `public` needs no key and asks for none. */
export type Audience = 'public' | readonly KeyRole[];

/** Method and pattern of every route of a door (`GET` stands for `HEAD`, too), and who may take it. */
export type RouteTable = Readonly<Record<string, Audience>>;

const anyKey: readonly KeyRole[] = ['user', 'operator', 'admin'];

/**
 * The clients' door. Only a user's key spends: what an operator's or admin's key is for cannot be mixed up with what
 * it would cost if a client's configuration leaked it.
 */
export const publicDoor: RouteTable = {
  [`POST ${routes.chat}`]: ['user'],
  [`GET ${routes.models}`]: anyKey,
  [`GET ${routes.model}`]: anyKey,
  [`GET ${routes.self}`]: anyKey,
  [`GET ${routes.usage}`]: anyKey,
  [`GET ${routes.openaiUsage}`]: anyKey,
  [`GET ${routes.livez}`]: 'public',
  [`GET ${routes.readyz}`]: 'public',
};

/** The operators' door: the operations, with the roles of their rows. */
export const adminDoor: RouteTable = Object.fromEntries(
  operationRows.map(({ method, path, roles }) => [`${method} ${path}`, roles]),
);

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Set by `guardRoutes` for every route. */
    audience?: Audience;
  }
}

export interface Guard {
  readonly table: RouteTable;
  readonly keys: KeyChecker;
  /** Who learns that a path does not exist. */
  readonly unknown: Audience;
  /** Before any key is looked at. @throws HelixFlowError */
  admit?(request: FastifyRequest): void;
  /** After the key was found not to be good. @returns what is told of it. */
  wrong?(request: FastifyRequest, error: Error): Error;
  /** After the key was found good, its role fitting. @throws HelixFlowError */
  vet?(grant: KeyGrant): void;
}

function rowOf(table: RouteTable, method: string, url: string): Audience {
  const row = table[`${method === 'HEAD' ? 'GET' : method} ${url}`];
  assert(row !== undefined, `the route ${method} ${url} has no row in the table of roles`);
  return row;
}

/**
 * Puts the table before every route of `app` that is added afterwards. A route without a row cannot be added: the
 * process does not start. A request that no table allows is refused with KEY_MISSING, what the check of keys throws, or
 * KEY_ROLE_NOT_ALLOWED, before anything of its body is read; its key must still be good when all of that is there.
 */
export function guardRoutes(app: FastifyInstance, { table, keys, unknown, admit, wrong, vet }: Guard): void {
  const authenticate = requireKey(keys);
  const audienceOf = (request: FastifyRequest): Audience => {
    const audience = request.is404 ? unknown : request.routeOptions.config.audience;
    assert(audience !== undefined, 'every route has an audience');
    return audience;
  };
  const refusalOf = (step: () => void): Error | undefined => {
    try {
      step();
      return undefined;
    } catch (error) {
      return error as Error;
    }
  };
  const judge = ({ grant }: FastifyRequest, audience: readonly KeyRole[]): void => {
    assert(grant !== undefined, 'a key was checked');
    requireRole(grant.role, audience);
    vet?.(grant);
  };
  app.addHook('onRoute', (route) => {
    const audiences = [route.method].flat().map((method) => rowOf(table, method, route.url));
    assert(new Set(audiences).size === 1, `the methods of ${route.url} have different rows; add one route for each`);
    route.config = { ...route.config, audience: audiences[0] as Audience };
  });
  app.addHook('onRequest', (request: FastifyRequest, reply: FastifyReply, done) => {
    const audience = audienceOf(request);
    const refusal = refusalOf(() => admit?.(request));
    if (refusal !== undefined || audience === 'public') done(refusal);
    else {
      authenticate.call(app, request, reply, (error) => {
        if (error === undefined) done(refusalOf(() => judge(request, audience)));
        else done(wrong?.(request, error) ?? error);
      });
    }
  });
  // A body may take a minute to come. The key may have been taken back meanwhile, with all that it has under way.
  app.addHook('preHandler', (request: FastifyRequest, reply: FastifyReply, done) => {
    if (request.body === undefined || audienceOf(request) === 'public') done();
    else authenticate.call(app, request, reply, done);
  });
}
