/** The synthetic engine, instant and paced, against the contract. */

import { createSyntheticEngine, type SyntheticOptions } from '../../node/engines/synthetic.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { type EngineSubject, engineContract } from './engine.ts';

const open = (options: SyntheticOptions) => async (): Promise<EngineSubject> => {
  const engine = createSyntheticEngine({ clock: systemClock() }, options);
  return { engine, run: (work) => work, [Symbol.asyncDispose]: () => engine.close() };
};
const capabilities = { tokenIds: true, longPrompt: 'count' };

engineContract('the instant synthetic engine', open({ contextTokens: 1_000 }), capabilities);
engineContract('the paced synthetic engine', open({ contextTokens: 1_000, tokensPerSecond: 1_000 }), capabilities);
