/** Tabs at a node: what covers work, what is refused, when no more is taken. */

import { describe, test } from 'vitest';
import { NodeStage, StagedGateway } from './node-tab-stage.ts';

describe('a statement', () => {
  test('that tells what was done is countersigned, and covers it', async ({ expect }) => {
    const node = await NodeStage.open();
    const gateway = new StagedGateway();
    node.tabs.ready(gateway.link);
    for (const serial of [1, 2, 3]) node.whole(gateway, serial);
    gateway.send(
      node,
      [1, 2, 3].map((serial) => gateway.line(serial)),
    );
    await node.settle();
    expect(gateway.words).toEqual([[]]);
    expect(node.tabs.status()).toEqual([
      {
        gateway: gateway.peer,
        running: 0,
        uncovered: 0,
        uncoveredMs: 0,
        statements: 1,
        lines: 3,
        refused: 0,
        claimed: 0,
        newest: { epoch: gateway.epoch, number: 0 },
      },
    ]);
  });
});
