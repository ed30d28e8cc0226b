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

const scheme = 'bearer ';
const blank = /\s/;

/** As `/^bearer +(\S+) *$/i` would find it, at a fifth of the price: keys are long. */
export function bearerOf(authorization: string): string | undefined {
  if (authorization.slice(0, scheme.length).toLowerCase() !== scheme) return undefined;
  let start = scheme.length;
  while (authorization[start] === ' ') start += 1;
  let end = authorization.length;
  while (end > start && authorization[end - 1] === ' ') end -= 1;
  const token = authorization.slice(start, end);
  return token === '' || blank.test(token) ? undefined : token;
}

/** The key as OpenAI's clients send it, or as Azure's do. */
function keyOf({ authorization, 'api-key': apiKey }: IncomingHttpHeaders): string | undefined {
  const token = authorization === undefined ? undefined : bearerOf(authorization);
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
      const grant = keys.check(token, request.grant);
      if (grant instanceof Promise) grant.then(pass, done);
      else pass(grant);
    } catch (error) {
      done(error as Error);
    }
  };
