/** Who asks: the API key of a request, checked before its body is read. */

import type { IncomingHttpHeaders } from 'node:http';
import type { onRequestHookHandler } from 'fastify';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { Access } from '../access/judge.ts';
import type { KeyChecker } from '../access/keys.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** What the request's key allows; set on every route that asks for a key. */
    grant: Access | undefined;
  }
}

const bearer = /^bearer +(\S+) *$/i;

/** The key as OpenAI's clients send it, or as Azure's do. */
function keyOf({ authorization, 'api-key': apiKey }: IncomingHttpHeaders): string | undefined {
  const token = authorization === undefined ? undefined : bearer.exec(authorization)?.[1];
  return token ?? (typeof apiKey === 'string' && apiKey !== '' ? apiKey : undefined);
}

/** Lets a request pass with its grant, or refuses it with KEY_MISSING or what the check of keys throws. */
export const requireKey =
  (keys: KeyChecker): onRequestHookHandler =>
  (request, _reply, done) => {
    const pass = (grant: Access): void => {
      request.grant = grant;
      request.exchange.staleSeconds = grant.staleSeconds;
      request.exchange.keyId = grant.keyId;
      done();
    };
    const token = keyOf(request.raw.headers);
    if (token === undefined) {
      done(new HelixFlowError('KEY_MISSING', {}));
      return;
    }
    try {
      const grant = keys.check(token);
      if (grant instanceof Promise) grant.then(pass, done);
      else pass(grant);
    } catch (error) {
      done(error as Error);
    }
  };
