/** `helixflow node`: serves models to the gateways of a mesh, as a process of its own. */

import { describeModels } from '../banner.ts';
import type { RunCommand } from '../command.ts';
import type { nodeOptions } from '../config/tables.ts';
import { runDaemon } from '../daemon.ts';
import { checkEngineConfig, openEngines } from '../engines.ts';
import { readJoin } from '../join.ts';
import { type RunningNode, runNode } from '../run-node.ts';

export const runNodeCommand: RunCommand<typeof nodeOptions> = async (config, context) => {
  checkEngineConfig(config);
  const join = await readJoin(config.join, context.readLine);
  let node: RunningNode | undefined;
  return await runDaemon(context, {
    command: 'node',
    logLevel: context.common.logLevel ?? 'info',
    drain: config.drain,
    status: () => (node === undefined ? {} : { node: node.status() }),
    controlled: () => node?.controlled,
    start: async ({ world, dir, signal, add }) => {
      const engines = (owner: string) => openEngines(world, config, { owner, paths: dir.peer('node') });
      node = await runNode(world, dir, { ...config, join, engines, bootstrap: [] });
      add(node);
      if (node.joinNote !== undefined) context.output.note(node.joinNote);
      context.output.note(`${describeModels(node.models())}\nWaiting for a gateway of the mesh …`);
      await node.whenOffered(signal);
      const models = node.models().map(({ name }) => name);
      const { addresses, p2pPort } = node.status();
      return {
        ready: { event: 'ready', peerId: node.peer, models, addresses, p2pPort, metricsUrl: node.metricsUrl },
        text: `Node ready: a gateway holds its offer.\n  peer id  ${node.peer}`,
      };
    },
  });
};
