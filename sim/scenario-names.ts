/** What scenarios there are, by name: for whoever need not load the simulator to know. */

/** In the order of `scenarios`; the first is played when nobody names one. */
export const scenarioNames = [
  'partition-heals',
  'carried-on',
  'cuts',
  'swarm',
  'revocations',
  'settlement',
  'restores',
  'liars',
  'one-budget',
] as const;
