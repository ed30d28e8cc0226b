#!/usr/bin/env node
/** The command `helixflow`: starts the CLI on a Node that can run it. Plain JavaScript, so that an old Node gets here. */

import { existsSync } from 'node:fs';
import { nodeCandidates, planLaunch } from './launch.mjs';
import { runOn } from './relaunch.mjs';

const here = new URL('.', import.meta.url);
const plan = planLaunch({
  version: process.versions.node,
  candidates: nodeCandidates(here, process.platform).filter((path) => existsSync(path)),
  isRelaunched: process.env.HELIXFLOW_RELAUNCHED !== undefined,
});

if (plan.kind === 'missing') {
  process.stderr.write(`${plan.message}\n`);
  process.exitCode = 1;
} else if (plan.kind === 'relaunch') {
  runOn(plan.node, process.argv.slice(1));
} else {
  if (process.env.HELIXFLOW_RELAUNCHED !== undefined && process.connected) {
    delete process.env.HELIXFLOW_RELAUNCHED;
    // The one who started us passes signals on. Without it nobody could stop this process, so it goes, too.
    process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'));
    process.channel.unref();
  }
  const source = new URL('main.ts', here);
  const main = existsSync(source) ? source : new URL('../dist/cli/main.js', here);
  void import(main.href).then((cli) => cli.main(process.argv.slice(2)));
}
