/** Test projects: `unit` and `contract` are part of `npm run check`, `e2e` starts real processes; `npm test` runs all. */

import { defineConfig } from 'vitest/config';

// A test of real sockets or processes may lose a race on a busy machine: it gets one more try, and the report shows it.
const project = (name: string, include: string[], extra: object = {}) => ({
  test: { name, include, retry: 1, setupFiles: ['tests/support/seed.ts'], exclude: ['**/node_modules/**'], ...extra },
});

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      project('unit', ['tests/{protocol,ledger,node,gateway,sim,cli,security}/**/*.test.ts', 'tests/*.test.ts'], {
        testTimeout: 120_000,
      }),
      project('contract', ['tests/contract/**/*.test.ts'], { testTimeout: 180_000, hookTimeout: 180_000 }),
      project('e2e', ['tests/e2e/**/*.test.ts'], {
        testTimeout: 120_000,
        hookTimeout: 120_000,
        fileParallelism: false,
      }),
    ],
  },
});
