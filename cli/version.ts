/** The version of this package. */

import { readFileSync } from 'node:fs';

/** `package.json` lies beside `cli/` in a checkout, and beside `dist/` in the published package. */
const root = import.meta.url.endsWith('.ts') ? '../' : '../../';
const manifest: { readonly version: string } = JSON.parse(
  readFileSync(new URL(`${root}package.json`, import.meta.url), 'utf8'),
);

export const version = manifest.version;
