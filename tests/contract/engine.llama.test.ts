/** The llama engine with the embedded model against the contract. */

import { embeddedModel } from '../../node/engines/embedded.ts';
import { openLlamaEngine } from '../../node/engines/llama/engine.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { createLog } from '../../protocol/adapters/log.ts';
import { engineContract } from './engine.ts';

engineContract(
  'the llama engine',
  async () => {
    const deps = { clock: systemClock(), log: createLog({ level: 'silent', destination: 'stderr' }) };
    const { path: modelPath, name } = embeddedModel;
    const engine = await openLlamaEngine(deps, { modelPath, name, gpu: 'off', threads: 1 });
    return { engine, run: (work) => work, [Symbol.asyncDispose]: () => engine.close() };
  },
  { tokenIds: true, longPrompt: 'Count from 1 to 10' },
);
