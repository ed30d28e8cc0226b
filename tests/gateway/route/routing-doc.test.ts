/** `docs/routing.md` explains every word that operators see of routing, and no other. */

import { readFile } from 'node:fs/promises';
import { Registry } from '@prometheus-io/client';
import { test } from 'vitest';
import { addRouteMetrics } from '../../../gateway/http/route-metrics.ts';
import { refusalReasons } from '../../../gateway/route/candidates.ts';
import { createRouteCounts } from '../../../gateway/route/counts.ts';
import { choiceReasons } from '../../../gateway/route/plan.ts';

const text = await readFile('docs/routing.md', 'utf8');

/** What the first column of the table under a heading names. */
function named(heading: string): string[] {
  const [section = ''] = text.slice(text.indexOf(`# ${heading}\n`) + 2).split(/\n#+ /);
  const rows = section.split('\n').filter((line) => line.startsWith('| `'));
  return rows.flatMap((row) => [...(row.split(' | ')[0] ?? '').matchAll(/`([^`]+)`/g)].map(([, word = '']) => word));
}

test('every reason for which a node is passed over stands there, in the order that counts', ({ expect }) => {
  expect(named('Why a node is passed over')).toEqual([...refusalReasons]);
});

test('every reason for which a node is taken stands there', ({ expect }) => {
  expect(named('Why a node was taken')).toEqual([...choiceReasons]);
});

test('every metric of routing stands there', async ({ expect }) => {
  const registry = new Registry();
  const breakers = () => ({ closed: 0, open: 0, 'half-open': 0 });
  addRouteMetrics(registry, { counts: createRouteCounts(), waiting: () => 0, breakers });
  const metrics = [...(await registry.metrics()).matchAll(/^# TYPE (\S+)/gm)].map(([, name = '']) => name);
  expect(named('Metrics').toSorted()).toEqual(metrics.toSorted());
});
