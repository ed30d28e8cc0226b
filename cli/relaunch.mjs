/** Runs the same command on another Node: stdio, signals and the exit code pass through. */

import { spawn } from 'node:child_process';

const signals = ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGUSR2'];

/**
 * Starts `node` with `args` and ends as it ends. The child has a channel to this process only to notice its death.
 */
export function runOn(node, args) {
  const child = spawn(node, args, {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, HELIXFLOW_RELAUNCHED: '1' },
  });
  const pass = (signal) => child.kill(signal);
  for (const signal of signals) process.on(signal, pass);
  child.once('error', (error) => {
    process.stderr.write(`helixflow cannot start ${node} (${error.code}); run npm ci again\n`);
    process.exitCode = 1;
  });
  child.once('exit', (code, signal) => {
    for (const name of signals) process.off(name, pass);
    if (signal === null) process.exit(code);
    process.kill(process.pid, signal);
  });
}
