/** `helixflow up`: a mesh on this machine, a gateway and a node in one process. */

import type { RequestObserver, RequestRecord } from '../../gateway/http/exchange.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { assert } from '../../protocol/invariant.ts';
import { printBanner, printRequest } from '../banner.ts';
import type { CommandContext, RunCommand } from '../command.ts';
import type { upOptions } from '../config/tables.ts';
import { runDaemon } from '../daemon.ts';
import type { DataDir } from '../data-dir.ts';
import { checkEngineConfig, openEngines } from '../engines.ts';
import { openLocalKey } from '../local-key.ts';
import { readMesh } from '../mesh-files.ts';
import { type RunningGateway, runGateway } from '../run-gateway.ts';
import { type RunningNode, runNode } from '../run-node.ts';
import { createMeshIn } from './mesh-create.ts';

const unfit = (reason: string): HelixFlowError => new HelixFlowError('CONFIG_INVALID', { reason });

/** The directory's own mesh, made at the first start. */
async function openOwnMesh(dir: DataDir): Promise<void> {
  const known = (await readMesh(dir)) ?? (await createMeshIn(dir, { name: 'local', network: 'lan' }));
  if (known.issuer === undefined) {
    throw unfit(`${dir.path} joined a mesh that is run elsewhere: start its helixflow gateway or helixflow node`);
  }
  if (known.mesh.network === 'public') {
    throw unfit('a public mesh has no loopback addresses: start helixflow gateway and helixflow node apart');
  }
}

/** One quiet line per request, where nobody asked for JSON. */
const requestLines = ({ output, common }: CommandContext): RequestObserver[] => {
  if (output.json || common.logLevel !== undefined) return [];
  const finished = (record: RequestRecord): void => {
    const line = printRequest(record, new Date());
    if (line !== undefined) output.note(line);
  };
  return [{ finished }];
};

export const runUp: RunCommand<typeof upOptions> = async (config, context) => {
  checkEngineConfig(config);
  let gateway: RunningGateway | undefined;
  let node: RunningNode | undefined;
  const { json, logLevel } = context.common;
  return await runDaemon(context, {
    command: 'up',
    logLevel: logLevel ?? (json ? 'info' : 'warn'),
    drain: config.drain,
    status: () => ({
      ...(gateway === undefined ? {} : { gateway: gateway.status() }),
      ...(node === undefined ? {} : { node: node.status() }),
    }),
    controlled: () => gateway?.controlled,
    start: async ({ world, dir, signal, add }) => {
      await openOwnMesh(dir);
      // Models load while the door opens; what goes wrong there is told by `runNode`.
      const loading = openEngines(world, config, { owner: 'local', paths: dir.peer('node') });
      loading.catch(() => {});
      const own = { ...config, join: undefined };
      gateway = await runGateway(world, dir, { ...own, http: true, observers: requestLines(context) });
      add(gateway);
      const apiKey = await openLocalKey(gateway.localKeys, dir);
      // Nobody remembers where this node listens, so it never has to wait for a port.
      const beside = { p2pPort: 0, announce: [], metricsListen: undefined, bootstrap: [gateway.contact] };
      const { admitOwn } = gateway;
      node = await runNode(world, dir, { ...own, ...beside, admitOwn, engines: () => loading });
      add(node);
      await node.whenOffered(signal);
      const { baseUrl, metricsUrl } = gateway;
      assert(baseUrl !== undefined, 'up serves clients');
      const models = gateway.models().map(({ name }) => name);
      return {
        ready: { event: 'ready', baseUrl, apiKey, models, metricsUrl },
        text: printBanner({ baseUrl, apiKey, models: node.models() }),
      };
    },
  });
};
