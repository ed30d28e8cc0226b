/** The parent's side of one child process: starts it, loads the model in it, carries messages, notices its end. */

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { Clock } from '../../../protocol/ports.ts';
import { seconds } from '../../../protocol/units.ts';
import { modelFault } from './gguf.ts';
import type { FromChild, Loaded, LoadRequest, ToChild, WireError } from './messages.ts';

const childPath = fileURLToPath(new URL(`./child${import.meta.url.slice(-3)}`, import.meta.url));
/** Weights may have to come from a slow disk; a library that never answers must still end. */
const loadTimeoutMs = seconds(900);
const stderrMaxChars = 2_000;

export interface EngineProcess {
  readonly loaded: Loaded;
  send(message: ToChild): void;
  /** Ends the process at once; resolves when it is gone. */
  kill(): Promise<void>;
}

export interface ProcessEvents {
  message(message: FromChild): void;
  /** The process is gone. `reason` is for logs and people. */
  ended(reason: string): void;
}

export const engineFault = (reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('ENGINE_FAILED', { reason }, { cause });

export const fromWire = ({ code, details }: WireError): HelixFlowError => new HelixFlowError(code, details);

/** What a dying child said last; native libraries name the failed check there. */
function keepStderr(child: ChildProcess): () => string {
  let tail = '';
  child.stderr?.setEncoding('utf8');
  child.stderr?.on('data', (text: string) => {
    tail = (tail + text).slice(-stderrMaxChars);
  });
  return () => tail.trim().split('\n').at(-1) ?? '';
}

function describeEnd(code: number | null, signal: NodeJS.Signals | null, said: string): string {
  const how = signal === null ? `exit code ${code}` : `signal ${signal}`;
  return said === '' ? `the engine process ended with ${how}` : `the engine process ended with ${how}: ${said}`;
}

/**
 * Starts a child and loads a model in it.
 * @throws HelixFlowError ENGINE_MISSING, MODEL_FILE_INVALID (also when the child dies while loading), ENGINE_FAILED;
 * the signal's reason when that aborts before the model is loaded.
 */
export function startProcess(
  clock: Clock,
  request: LoadRequest,
  events: ProcessEvents,
  signal: AbortSignal,
): Promise<EngineProcess> {
  const child = fork(childPath, {
    serialization: 'advanced',
    execArgv: [],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  const said = keepStderr(child);
  const gone = new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(`the engine process did not start: ${error.message}`));
    child.once('close', (code, signal) => resolve(describeEnd(code, signal, said())));
  });
  const send = (message: ToChild): void => {
    // A child that is just dying is noticed through `gone`.
    if (child.connected) child.send(message, () => {});
  };
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await gone;
  };
  return new Promise((resolve, reject) => {
    let isLoaded = false;
    let refusal: { readonly error: unknown } | undefined;
    const refuse = (error: unknown): void => {
      refusal ??= { error };
      child.kill('SIGKILL');
    };
    const aborted = (): void => refuse(signal.reason);
    const cancelTimeout = clock.timer(loadTimeoutMs, () =>
      refuse(engineFault(`loading took longer than ${loadTimeoutMs / 1_000} s`)),
    );
    const settled = (): void => {
      cancelTimeout();
      signal.removeEventListener('abort', aborted);
    };
    signal.addEventListener('abort', aborted, { once: true });
    child.on('message', (messages) => {
      for (const message of messages as FromChild[]) {
        if (message.type === 'refused') refuse(fromWire(message.error));
        else if (message.type !== 'loaded') events.message(message);
        else {
          settled();
          isLoaded = true;
          resolve({ loaded: message.loaded, send, kill });
        }
      }
    });
    void gone.then((reason) => {
      settled();
      if (isLoaded) events.ended(reason);
      else reject(refusal?.error ?? modelFault(request.modelPath, `loading it failed: ${reason}`));
    });
    send({ type: 'load', load: request });
  });
}
