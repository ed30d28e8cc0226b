/** The openai engine in front of local servers against the contract. */

import { openUpstreamEngine } from '../../node/engines/openai/engine.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { createLog } from '../../protocol/adapters/log.ts';
import { startKind } from '../support/upstream-kinds.ts';
import { startUpstream, type UpstreamServer } from '../support/upstream-server.ts';
import { type EngineSubject, engineContract } from './engine.ts';

async function open(starting: Promise<UpstreamServer>): Promise<EngineSubject> {
  const upstream = await starting;
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
}

engineContract('the openai engine', () => open(startUpstream()), { tokenIds: false, longPrompt: 'count' });
engineContract('the openai engine before SGLang', () => open(startKind('sglang')), {
  tokenIds: false,
  longPrompt: 'count three',
});
engineContract('the openai engine before vLLM', () => open(startKind('vllm')), {
  tokenIds: true,
  longPrompt: 'count three',
});
