/** The llama engine: one GGUF model on node-llama-cpp, in a child process that is started again when it dies. */

import { basename, resolve } from 'node:path';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { limits } from '../../../protocol/limits.ts';
import type { Clock, Engine, EngineModel, Log } from '../../../protocol/ports.ts';
import { createListeners } from '../listeners.ts';
import { createMeter } from '../meter.ts';
import { createAnswers } from './answers.ts';
import { digestModel, openDigestCache } from './digest.ts';
import { readModelFile } from './gguf.ts';
import type { Loaded } from './messages.ts';
import { type Supervisor, startSupervisor } from './supervisor.ts';

/** Answers that may wait for a slot; the node's admission keeps far below. */
const waitingMax = 1_024;

export interface LlamaOptions {
  /** A GGUF file, or the first of its parts (`…-00001-of-00003.gguf`). */
  readonly modelPath: string;
  /** As clients write it; absent: the file's name. */
  readonly name?: string;
  /** Answers at the same time; absent: 8, or 4 for models above 1 GiB. */
  readonly slots?: number;
  /** Prompt and completion together, per slot; absent: what the model was trained on, at most 8,192. */
  readonly contextTokens?: number;
  /** `auto` (default) offloads to the GPU that is found. */
  readonly gpu?: 'auto' | 'off';
  /** Absent: measured when the model is loaded. */
  readonly threads?: number;
  /** Where hashes of model files are remembered between starts. */
  readonly digestCachePath?: string;
}

/** `Qwen3-8B-Q4_K_M-00001-of-00002.gguf` is served as `Qwen3-8B-Q4_K_M`. */
const nameModel = (path: string): string =>
  basename(path)
    .replace(/\.gguf$/i, '')
    .replace(/-\d{5}-of-\d{5}$/, '')
    .slice(0, limits.modelNameMaxChars) || 'model';

const describeModel = (name: string, loaded: Loaded): EngineModel => ({
  name,
  digest: digestModel(loaded),
  digestKind: 'weights',
  contextTokens: loaded.contextTokens,
  continuation: 'tokens',
  build: loaded.build,
});

/**
 * Opens a model file; resolves when it is served.
 * @throws HelixFlowError MODEL_FILE_INVALID, ENGINE_MISSING, ENGINE_FAILED.
 */
export async function openLlamaEngine(
  deps: { readonly clock: Clock; readonly log: Log },
  options: LlamaOptions,
): Promise<Engine> {
  const { clock } = deps;
  const modelPath = resolve(options.modelPath);
  readModelFile(modelPath);
  const name = options.name ?? nameModel(modelPath);
  const log = deps.log.with({ engine: 'llama', model: name });
  const cache = await openDigestCache(log, options.digestCachePath);
  const meter = createMeter(clock);
  const changes = createListeners();
  let models: readonly EngineModel[] = [];
  let slots = 0;
  let remembering = Promise.resolve();

  const answers = createAnswers({
    clock,
    meter,
    send: (message) => supervisor.send(message),
    stuck() {
      log.error('engine_stuck');
      supervisor.kill();
    },
  });
  const supervisor: Supervisor = await startSupervisor(
    { clock, log },
    {
      request() {
        const { slots: wanted, contextTokens, gpu = 'auto', threads } = options;
        return { modelPath, slots: wanted, contextTokens, gpu, threads, known: cache.known() };
      },
      message: answers.hear,
      up(loaded) {
        const { contextTokens: wanted } = options;
        if (wanted !== undefined && loaded.contextTokens < wanted) {
          log.warn('context_capped', { wanted, contextTokens: loaded.contextTokens });
        }
        slots = loaded.slots;
        models = [describeModel(name, loaded)];
        remembering = cache.remember(loaded.weights);
        changes.tell();
      },
      down(reason) {
        models = [];
        answers.failAll(reason);
        changes.tell();
      },
    },
  );

  await remembering;
  return {
    kind: 'llama',
    get slots() {
      return slots;
    },
    models: () => models,
    stats: () => ({ active: answers.active, slots, tokensPerSecond: meter.perSecond(), progress: meter.progress }),
    onChange: changes.add,
    async generate(request, emit, signal) {
      signal.throwIfAborted();
      if (models[0]?.name !== request.model) throw new HelixFlowError('NODE_MODEL_MISSING', { model: request.model });
      if (answers.active >= slots + waitingMax) throw new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: 1_000 });
      return await answers.generate(request, emit, signal);
    },
    close: () => supervisor.close(),
  };
}
