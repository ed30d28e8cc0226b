/** The report of a run: one file, whole, and nothing in it but what happened. */

import { test } from 'vitest';
import { renderReport } from '../../sim/report.ts';
import { playScenario } from '../../sim/run.ts';
import { findScenario, type Scenario } from '../../sim/scenario.ts';

const small: Scenario = {
  ...(findScenario('swarm') as Scenario),
  about: 'a <small> mesh & its troubles',
  gateways: 2,
  nodes: 3,
  hiddenNodes: 0,
  tokens: 'fast',
};

test('a report shows machines, faults, requests and how to play it again', async ({ expect }) => {
  const played = await playScenario(small, { seed: 9 });
  const page = renderReport(played);
  for (const name of played.machines) expect(page).toContain(`>${name}</text>`);
  for (const { kind } of played.faults) expect(page).toContain(`<title>${kind}</title>`);
  expect(page).toContain('a &lt;small&gt; mesh &amp; its troubles');
  expect(page).toContain('helixflow sim run --scenario swarm --seed 9');
  expect(page.match(/: done<\/title>/g)).toHaveLength(played.result.requests.done);
  expect(page).not.toMatch(/NaN|undefined|Infinity|src=|href=/);
});

test('a report shows broken promises, and nothing of them becomes markup', async ({ expect }) => {
  const played = await playScenario(small, {
    seed: 9,
    sabotage: ({ kernel }) =>
      void kernel.schedule(5_000, () => {
        throw new Error('<script>planted</script>');
      }),
  });
  const page = renderReport(played);
  expect(page).toContain('Broken promises: ');
  expect(page).toContain('&lt;script&gt;planted&lt;/script&gt;');
  expect(page).not.toContain('<script>');
});
