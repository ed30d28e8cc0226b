/** Options of what the gateway's HTTP door says to browsers and to slow clients. */

import { z } from 'zod';
import { option } from './option.ts';

/** What a browser calls a page by. */
function isOrigin(text: string): boolean {
  if (text === '*') return true;
  if (!/^[a-z][a-z0-9+.-]*:\/\/[a-z0-9._:[\]-]+$/.test(text) || !URL.canParse(text)) return false;
  const { origin } = new URL(text);
  // Of other schemes, such as a desktop program's, only the browser itself knows the origin.
  return origin === 'null' || origin === text;
}

const originsMax = 64;

export const clientOptions = {
  corsOrigin: option(z.array(z.string().max(256).refine(isOrigin)).max(originsMax).default([]), {
    flag: '--cors-origin <origin>',
    env: 'HELIXFLOW_CORS_ORIGIN',
    expected: `at most ${originsMax} origins such as https://chat.example.com, without a path or the scheme’s own port, separated by commas; or *`,
    otherwise: 'none',
    about: 'Web pages that may call the gateway from a browser, with a key of their own; * for all; may be repeated.',
  }),
  sseKeepalive: option(z.enum(['comment', 'chunk', 'off']).default('comment'), {
    flag: '--sse-keepalive <kind>',
    env: 'HELIXFLOW_SSE_KEEPALIVE',
    about:
      'What an idle stream sends every 15 s: a comment, an empty chunk for clients that take no comments, or nothing.',
  }),
  provenance: option(z.enum(['on', 'off']).default('on'), {
    flag: '--provenance <mode>',
    env: 'HELIXFLOW_PROVENANCE',
    about: 'Whether answers name their nodes, attempts and times, in headers and at their end.',
  }),
} as const;
