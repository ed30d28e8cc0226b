/** The openai engine in front of a local server against the contract. */

import { openUpstreamEngine } from '../../node/engines/openai/engine.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { createLog } from '../../protocol/adapters/log.ts';
import { startUpstream } from '../support/upstream-server.ts';
import { engineContract } from './engine.ts';

engineContract(
  'the openai engine',
  async () => {
    const upstream = await startUpstream();
    const deps = { clock: systemClock(), log: createLog({ level: 'silent', destination: 'stderr' }) };
    const engine = await openUpstreamEngine(deps, { url: upstream.url, owner: 'tests' });
    return {
      engine,
      run: (work) => work,
      async [Symbol.asyncDispose]() {
        await engine.close();
        await upstream[Symbol.asyncDispose]();
      },
    };
  },
  { tokenIds: false, longPrompt: 'count' },
);
