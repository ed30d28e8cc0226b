/** The loaded model inside the child process: library, weights, context, slots, tokenizer and template. */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import type { Llama, LlamaContext, LlamaModel, Token } from 'node-llama-cpp';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { type ModelFile, modelFault, readModelFile } from './gguf.ts';
import type { FileHash, Loaded, LoadRequest } from './messages.ts';
import { type ChunkSize, chunkTokensExact, createChunkSize } from './prefill.ts';
import { createPromptRenderer, type PromptRenderer } from './prompt.ts';
import { createSlotPool, type SlotPool } from './slots.ts';
import { measureThreads } from './threads.ts';
import { readVocabulary } from './vocabulary.ts';

type Library = typeof import('node-llama-cpp');

const contextTokensDefault = 8_192;
const contextTokensMin = 512;
const slotsDefault = 8;
const slotsDefaultLarge = 4;
const largeModelBytes = 1_073_741_824;
const reasonMaxChars = 300;
const complaintsMax = 8;
const buildMaxChars = 200;

export interface Runtime {
  readonly model: LlamaModel;
  readonly prompts: PromptRenderer;
  readonly slots: SlotPool;
  readonly contextTokens: number;
  /** Tokens that are computed at once. */
  readonly chunk: ChunkSize;
  /** No token stands for more characters than this. */
  readonly tokenMaxChars: number;
  readonly controlTokens: ReadonlySet<Token>;
  /** Ids are below this. */
  readonly vocabularySize: number;
  readonly loaded: Loaded;
}

async function loadLibrary(): Promise<Library> {
  try {
    return await import('node-llama-cpp');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw cause;
    const reason = 'the optional package node-llama-cpp is not there; run npm ci without --omit=optional';
    throw new HelixFlowError('ENGINE_MISSING', { engine: 'llama', reason }, { cause });
  }
}

/** The library's own words on what went wrong, for a reason that people can act on. */
interface Complaints {
  list: string[];
}

async function startLlama(library: Library, gpu: LoadRequest['gpu'], complaints: Complaints): Promise<Llama> {
  try {
    return await library.getLlama({
      gpu: gpu === 'off' ? false : 'auto',
      // Never compiles llama.cpp on somebody's machine.
      build: 'never',
      progressLogs: false,
      logLevel: library.LlamaLogLevel.error,
      logger: (_level, message) => {
        if (complaints.list.length < complaintsMax) complaints.list.push(message.trim());
      },
    });
  } catch (cause) {
    if (!(cause instanceof library.NoBinaryFoundError)) throw cause;
    const reason = 'node-llama-cpp has no binary for this platform';
    throw new HelixFlowError('ENGINE_MISSING', { engine: 'llama', reason }, { cause });
  }
}

async function hashFile(path: string, known: readonly FileHash[]): Promise<FileHash> {
  const { size, mtimeMs } = await stat(path);
  const earlier = known.find((one) => one.path === path && one.bytes === size && one.modifiedMs === mtimeMs);
  if (earlier !== undefined) return earlier;
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1_048_576 })) hash.update(chunk as Buffer);
  return { path, bytes: size, modifiedMs: mtimeMs, sha256: hash.digest('hex') };
}

const hashFiles = async (file: ModelFile, known: readonly FileHash[]): Promise<FileHash[]> => {
  const hashes: FileHash[] = [];
  for (const shard of file.shards) hashes.push(await hashFile(shard, known));
  return hashes;
};

/** llama.cpp's complaints arrive a little after the failure that they explain. */
async function refuseFile(path: string, what: string, cause: unknown, complaints: Complaints): Promise<never> {
  if (cause instanceof HelixFlowError) throw cause;
  await setImmediate();
  await setImmediate();
  const why = complaints.list[0] ?? (cause instanceof Error ? cause.message : 'unknown reason');
  throw modelFault(path, `${what}: ${why.slice(0, reasonMaxChars)}`, cause);
}

async function openContext(model: LlamaModel, load: LoadRequest, threads: number | undefined): Promise<LlamaContext> {
  const wanted = Math.min(load.contextTokens ?? contextTokensDefault, model.trainContextSize);
  return await model.createContext({
    contextSize: load.contextTokens === undefined ? { min: Math.min(contextTokensMin, wanted), max: wanted } : wanted,
    sequences: load.slots ?? (model.size > largeModelBytes ? slotsDefaultLarge : slotsDefault),
    ...(threads === undefined ? {} : { threads }),
  });
}

const gpuNames = { cuda: 'CUDA', vulkan: 'Vulkan', metal: 'Metal' } as const;

/** `llama.cpp b7421, CPU, 1 thread`, or with the GPU and how much of the model is on it. */
async function describeBuild(llama: Llama, model: LlamaModel, context: LlamaContext): Promise<string> {
  const release = `llama.cpp ${llama.llamaCppRelease.release}`;
  if (llama.gpu === false || model.gpuLayers === 0) {
    const threads = context.idealThreads;
    return `${release}, CPU, ${threads} ${threads === 1 ? 'thread' : 'threads'}`;
  }
  const devices = [...new Set(await llama.getGpuDeviceNames())].join(' + ');
  const { totalLayers } = model.fileInsights;
  const part = model.gpuLayers < totalLayers ? ` (${model.gpuLayers} of ${totalLayers} layers)` : '';
  return `${release}, ${gpuNames[llama.gpu]}${part}, ${devices}`.slice(0, buildMaxChars);
}

/**
 * Loads a model for good.
 * @throws HelixFlowError ENGINE_MISSING; MODEL_FILE_INVALID with the reason.
 */
export async function loadRuntime(load: LoadRequest): Promise<Runtime> {
  const path = load.modelPath;
  const file = readModelFile(path);
  const complaints: Complaints = { list: [] };
  const library = await loadLibrary();
  const llama = await startLlama(library, load.gpu, complaints);
  complaints.list = [];
  const hashing = hashFiles(file, load.known);
  const model = await llama
    .loadModel({ modelPath: path })
    .catch((cause: unknown) => refuseFile(path, 'llama.cpp cannot load it', cause, complaints));
  const onCpu = llama.gpu === false || model.gpuLayers === 0;
  const threads = load.threads ?? (onCpu ? await measureThreads(model, llama.cpuMathCores) : undefined);
  const context = await openContext(model, load, threads).catch((cause: unknown) =>
    refuseFile(path, 'there is no memory for its context', cause, complaints),
  );
  const vocabulary = readVocabulary(model);
  const { bosString, eosString } = model.tokens;
  let prompts: PromptRenderer;
  try {
    prompts = createPromptRenderer({
      template: file.chatTemplate,
      controlTexts: vocabulary.controlTexts,
      bosText: bosString ?? '',
      eosText: eosString ?? '',
    });
  } catch (cause) {
    return await refuseFile(path, 'its chat template cannot be used', cause, { list: [] });
  }
  const contextShift = {
    strategy: () => {
      throw new HelixFlowError('ENGINE_FAILED', { reason: 'an answer outgrew its context' });
    },
  };
  const sequences = Array.from({ length: context.totalSequences }, () => context.getSequence({ contextShift }));
  return {
    ...vocabulary,
    model,
    prompts,
    slots: createSlotPool(sequences),
    contextTokens: context.contextSize,
    chunk: createChunkSize(onCpu ? Math.min(context.batchSize, chunkTokensExact) : context.batchSize),
    loaded: {
      weights: await hashing,
      chatTemplate: file.chatTemplate,
      contextTokens: context.contextSize,
      slots: context.totalSequences,
      build: await describeBuild(llama, model, context),
    },
  };
}
