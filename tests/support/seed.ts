/** The seed of all property tests: `TEST_SEED` where it is set, as in CI; otherwise a failing test prints its own. */

import fc from 'fast-check';

const seed = process.env['TEST_SEED'];
if (seed !== undefined) fc.configureGlobal({ seed: Number(seed) });
