/** The simulated engine under the contract. */

import { SimClock } from '../../sim/clock.ts';
import { FaultCounts } from '../../sim/effects.ts';
import { SimEngine } from '../../sim/engine.ts';
import { Kernel } from '../../sim/kernel.ts';
import { engineContract } from './engine.ts';

const usual = { model: 'sim', contextTokens: 1_000, prefillMsPerToken: 0.2, decodeMsPerToken: 20, salt: '' };

for (const slots of [1, 4]) {
  engineContract(
    `the simulated engine with ${slots} slots`,
    async () => {
      const kernel = new Kernel(1);
      const running = kernel.pump();
      const clock = new SimClock(kernel, kernel.lifeline('engine'));
      const engine = new SimEngine(clock, new FaultCounts(), { ...usual, slots });
      return {
        engine,
        run: (work) => work,
        [Symbol.asyncDispose]: async () => {
          await engine.close();
          running[Symbol.dispose]();
        },
      };
    },
    { tokenIds: true, longPrompt: 'count' },
  );
}
