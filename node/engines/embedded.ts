/** The model that comes with HelixFlow: where it lies, and the name it goes by. */

import { fileURLToPath } from 'node:url';

/** `models/` lies beside `node/` in a checkout, and beside `dist/` in the published package. */
const root = import.meta.url.endsWith('.ts') ? '../../' : '../../../';

/** What `helixflow up` serves when nothing else is named; `models/README.md` says what it is and is not. */
export const embeddedModel = {
  path: fileURLToPath(new URL(`${root}models/helix-tiny-q8_0.gguf`, import.meta.url)),
  name: 'helix-tiny',
} as const;
