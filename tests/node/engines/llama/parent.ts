/** A process that opens the engine, keeps it busy and waits to be killed; prints the child's process id when busy. */

import { ask, openEmbedded } from './fixture.ts';
import { childrenOf } from './processes.ts';

const engine = await openEmbedded();
const abort = new AbortController();
const busy = async (): Promise<void> => {
  while (!abort.signal.aborted) await ask(engine, 'Write a poem about the ocean.', {}, { signal: abort.signal });
};
await ask(engine, 'hi', { maxTokens: 1 });
process.stdout.write(`${childrenOf(process.pid).join(' ')}\n`);
await Promise.all([busy(), busy()]);
