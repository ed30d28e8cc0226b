/** The names by which scenarios are chosen. */

import { test } from 'vitest';
import { scenarios } from '../../sim/scenario.ts';
import { scenarioNames } from '../../sim/scenario-names.ts';

test('the list of names names every scenario, in their order', ({ expect }) => {
  expect(scenarios.map(({ name }) => name)).toEqual(scenarioNames);
});
