/** Which paths there are, and what to tell someone who asks for another. */

import { HelixFlowError } from '../../protocol/errors.ts';

export const routes = {
  chat: '/v1/chat/completions',
  models: '/v1/models',
  model: '/v1/models/*',
  /** What the key of the request may do. */
  self: '/v1/keys/self',
  /** What the key of the request, or its account, has used. */
  usage: '/v1/usage',
  /** The same where OpenAI's clients ask for it. */
  openaiUsage: '/v1/organization/usage/completions',
  livez: '/livez',
  readyz: '/readyz',
} as const;

const known: ReadonlyMap<string, string> = new Map([
  [routes.chat, 'POST'],
  [routes.models, 'GET, HEAD'],
  [routes.self, 'GET, HEAD'],
  [routes.usage, 'GET, HEAD'],
  [routes.openaiUsage, 'GET, HEAD'],
  [routes.livez, 'GET, HEAD'],
  [routes.readyz, 'GET, HEAD'],
]);

const allowedOn = (path: string): string | undefined =>
  known.get(path) ?? (path.startsWith(`${routes.models}/`) ? known.get(routes.models) : undefined);

/** The methods of a URL's path, as the header `allow` lists them; undefined where nothing is. */
export const methodsOf = (url: string): string | undefined => allowedOn(pathOf(url));

const pathOf = (url: string): string => {
  const path = (url.split('?', 1)[0] ?? '').replace(/\/{2,}/g, '/');
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
};

function hintFor(path: string): string {
  if (allowedOn(`/v1${path}`) !== undefined) {
    return `Did you mean /v1${path.slice(0, 100)}? Set the base URL to http://<host>:<port>/v1.`;
  }
  if (path.startsWith('/v1/v1/')) return 'The base URL has one /v1 too many.';
  return `This gateway serves GET ${routes.models}, GET ${routes.usage} and POST ${routes.chat}.`;
}

/** Why no route took this request: METHOD_NOT_ALLOWED, or ROUTE_NOT_FOUND with a hint. The query is not repeated. */
export function unknownRoute(method: string, url: string): { error: HelixFlowError; headers: Record<string, string> } {
  const path = pathOf(url);
  const allowed = allowedOn(path);
  const shown = path.slice(0, 200);
  if (allowed !== undefined) {
    return {
      error: new HelixFlowError('METHOD_NOT_ALLOWED', { method, path: shown, allowed }),
      headers: { allow: allowed },
    };
  }
  return { error: new HelixFlowError('ROUTE_NOT_FOUND', { method, path: shown, hint: hintFor(path) }), headers: {} };
}
