/** `helixflow gateway`: the door for clients, as a process of its own. */

import type { RunCommand } from '../command.ts';
import type { gatewayOptions } from '../config/tables.ts';
import { runDaemon } from '../daemon.ts';
import { readJoin } from '../join.ts';
import { type RunningGateway, runGateway } from '../run-gateway.ts';

export const runGatewayCommand: RunCommand<typeof gatewayOptions> = async (config, context) => {
  const join = await readJoin(config.join, context.readLine);
  let gateway: RunningGateway | undefined;
  return await runDaemon(context, {
    command: 'gateway',
    logLevel: context.common.logLevel ?? 'info',
    drain: config.drain,
    status: () => (gateway === undefined ? {} : { gateway: gateway.status() }),
    controlled: () => gateway?.controlled,
    start: async ({ world, dir, add }) => {
      gateway = await runGateway(world, dir, { ...config, join, observers: [] });
      add(gateway);
      if (gateway.joinNote !== undefined) context.output.note(gateway.joinNote);
      const { baseUrl, peer, meshId, adminUrl, metricsUrl } = gateway;
      const { addresses, p2pPort } = gateway.status();
      return {
        ready: { event: 'ready', baseUrl, peerId: peer, meshId, addresses, p2pPort, adminUrl, metricsUrl },
        text: [
          `Gateway ready: ${baseUrl ?? 'an archive, without clients'}`,
          `  peer id    ${peer}`,
          `  addresses  ${addresses.join(', ') || 'none'}`,
          ...(adminUrl === undefined ? [] : [`  admin API  ${adminUrl}`]),
          ...(metricsUrl === undefined ? [] : [`  metrics    ${metricsUrl}`]),
        ].join('\n'),
      };
    },
  });
};
