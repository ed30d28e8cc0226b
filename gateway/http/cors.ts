/** Which web pages may use the clients' door from a browser (CORS): none that was not named. */

import type { IncomingHttpHeaders } from 'node:http';
import type { FastifyInstance } from 'fastify';

/** Web pages by the origin that browsers name them by (`https://app.example.com`); `*` is all of them. */
export interface PageRules {
  readonly origins: readonly string[];
  /** The methods of a path, as `allow` lists them; undefined where nothing is. */
  methodsOf(url: string): string | undefined;
}

/** Whatever an answer may say in a header beside the few that every page may read. */
const exposedHeaders = [
  'openai-processing-ms',
  'openai-version',
  'retry-after',
  'retry-after-ms',
  'x-helixflow-attempts',
  'x-helixflow-error',
  'x-helixflow-idempotent-replay',
  'x-helixflow-node',
  'x-helixflow-stale',
  'x-ratelimit-limit-requests',
  'x-ratelimit-limit-tokens',
  'x-ratelimit-remaining-requests',
  'x-ratelimit-remaining-tokens',
  'x-ratelimit-reset-requests',
  'x-ratelimit-reset-tokens',
  'x-request-id',
  'x-should-retry',
].join(', ');

const preflightMaxAgeS = 600;

/** Clients add headers of their own (`x-stainless-…`), so a page may send what it asks for: none of them has power here. */
const headersFor = ({ 'access-control-request-headers': asked = '' }: IncomingHttpHeaders): string =>
  /^[\w\-, ]{0,4096}$/.test(asked) ? asked : '';

/**
 * Answers the browser's question before a request, and lets pages of `origins` read answers and errors. No answer
 * allows credentials, so a page has what its user gave it: a key, never a cookie. Must stand before the guard, since
 * a browser asks without a key.
 */
export function allowPages(app: FastifyInstance, { origins, methodsOf }: PageRules): void {
  const known = new Set(origins);
  const isAny = known.has('*');
  app.addHook('onRequest', (request, reply, done) => {
    const { raw } = reply;
    const { origin } = request.headers;
    if (!isAny) raw.setHeader('vary', 'origin');
    if (origin === undefined || !(isAny || known.has(origin))) {
      done();
      return;
    }
    raw.setHeader('access-control-allow-origin', isAny ? '*' : origin);
    raw.setHeader('access-control-expose-headers', exposedHeaders);
    const isQuestion = request.method === 'OPTIONS' && 'access-control-request-method' in request.headers;
    const methods = isQuestion ? methodsOf(request.url) : undefined;
    if (methods === undefined) {
      done();
      return;
    }
    reply.hijack();
    raw.writeHead(204, {
      ...request.exchange.headers(),
      'access-control-allow-methods': methods,
      'access-control-allow-headers': headersFor(request.headers),
      'access-control-max-age': String(preflightMaxAgeS),
    });
    raw.end();
  });
}
