/** Which engines a node runs, by its options. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { embeddedModel } from '../node/engines/embedded.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { ModelDigest } from '../protocol/ids.ts';
import type { Engine } from '../protocol/ports.ts';
import type { ConfigOf } from './config/option.ts';
import type { upOptions } from './config/tables.ts';
import type { PeerPaths } from './data-dir.ts';
import { systemReason } from './files.ts';
import type { World } from './peer-runtime.ts';

export type EngineConfig = Pick<
  ConfigOf<typeof upOptions>,
  | 'model'
  | 'engine'
  | 'tokensPerSecond'
  | 'prefillTokensPerSecond'
  | 'cacheTokens'
  | 'upstream'
  | 'upstreamKey'
  | 'upstreamKeyFile'
  | 'upstreamContinuation'
  | 'digest'
  | 'slots'
  | 'context'
  | 'gpu'
  | 'threads'
>;

const invalid = (reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('CONFIG_INVALID', { reason }, { cause });

/** Refuses options that contradict each other. @throws HelixFlowError CONFIG_INVALID */
export function checkEngineConfig(config: EngineConfig): void {
  const { engine, model, upstream, tokensPerSecond, prefillTokensPerSecond, cacheTokens, digest } = config;
  const { upstreamKey, upstreamKeyFile, upstreamContinuation } = config;
  const problems: string[] = [];
  if (engine === 'synthetic' && model.length > 0) problems.push('--engine synthetic serves no --model');
  if (engine === 'synthetic' && upstream !== undefined) problems.push('--engine synthetic serves no --upstream');
  if (engine !== 'synthetic' && tokensPerSecond !== undefined) {
    problems.push('--tokens-per-second is for --engine synthetic only');
  }
  if (engine !== 'synthetic' && prefillTokensPerSecond !== undefined) {
    problems.push('--prefill-tokens-per-second is for --engine synthetic only');
  }
  if (prefillTokensPerSecond === undefined && cacheTokens !== undefined) {
    problems.push('--cache-tokens goes with --prefill-tokens-per-second');
  }
  if (upstream === undefined && digest !== undefined) problems.push('--digest is for --upstream only');
  if (upstream === undefined && upstreamKeyFile !== undefined) {
    problems.push('--upstream-key-file is for --upstream only');
  }
  if (upstream === undefined && upstreamContinuation !== 'auto') {
    problems.push('--upstream-continuation is for --upstream only');
  }
  if (upstreamKey !== undefined && upstreamKeyFile !== undefined) {
    problems.push('--upstream-key-file and HELIXFLOW_NODE_UPSTREAM_KEY exclude each other');
  }
  if (problems.length > 0) throw invalid(problems.join('\n'));
}

/** The first line of the file, or the value itself. */
function readUpstreamKey({ upstreamKey, upstreamKeyFile: path }: EngineConfig): string | undefined {
  if (path === undefined) return upstreamKey;
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw invalid(`--upstream-key-file ${path} cannot be read: ${systemReason(cause)}`, cause);
  }
  const line = text.split('\n')[0]?.trim() ?? '';
  if (line === '') throw invalid(`--upstream-key-file ${path}: its first line is empty`);
  return line;
}

/** `undefined` values are left out: the engines' options know absent ones only. */
const given = <T extends object>(options: T): { [Key in keyof T]: Exclude<T[Key], undefined> } =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as never;

interface ModelFile {
  readonly modelPath: string;
  readonly name?: string;
}

/** The embedded model, unless something else was asked for. */
function modelFiles({ model, upstream }: EngineConfig): readonly ModelFile[] {
  if (model.length > 0) return model.map((modelPath) => ({ modelPath }));
  return upstream === undefined ? [{ modelPath: embeddedModel.path, name: embeddedModel.name }] : [];
}

async function openLlama(world: World, config: EngineConfig, paths: PeerPaths): Promise<Engine[]> {
  const files = modelFiles(config);
  if (files.length === 0) return [];
  const { openLlamaEngine } = await import('../node/engines/llama/engine.ts');
  const { slots, context, gpu, threads } = config;
  const engines: Engine[] = [];
  try {
    for (const file of files) {
      const options = { ...file, ...given({ slots, contextTokens: context, threads }), gpu };
      engines.push(await openLlamaEngine(world, { ...options, digestCachePath: join(paths.path, 'digests.json') }));
    }
    return engines;
  } catch (error) {
    await Promise.all(engines.map((engine) => engine.close()));
    throw error;
  }
}

/**
 * Opens everything that the options ask for.
 * @throws HelixFlowError MODEL_FILE_INVALID, ENGINE_MISSING, ENGINE_FAILED, UPSTREAM_UNREACHABLE, CONFIG_INVALID
 */
export async function openEngines(
  world: World,
  config: EngineConfig,
  { owner, paths }: { readonly owner: string; readonly paths: PeerPaths },
): Promise<readonly Engine[]> {
  const { engine, tokensPerSecond, slots, context, upstream, upstreamContinuation: continuation, digest } = config;
  if (engine === 'synthetic') {
    const { createSyntheticEngine } = await import('../node/engines/synthetic.ts');
    const { prefillTokensPerSecond, cacheTokens } = config;
    const pace = { tokensPerSecond, prefillTokensPerSecond, cacheTokens };
    return [createSyntheticEngine(world, given({ ...pace, slots, contextTokens: context }))];
  }
  const apiKey = readUpstreamKey(config);
  const engines = await openLlama(world, config, paths);
  if (upstream === undefined) return engines;
  const { openUpstreamEngine } = await import('../node/engines/openai/engine.ts');
  const declared = given({ apiKey, digest: digest as ModelDigest | undefined, slots, contextTokens: context });
  try {
    return [...engines, await openUpstreamEngine(world, { url: upstream, owner, continuation, ...declared })];
  } catch (error) {
    await Promise.all(engines.map((open) => open.close()));
    throw error;
  }
}
