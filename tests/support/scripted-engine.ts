/** An engine that does what a test tells it to, step by step. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest } from '../../protocol/ids.ts';
import type {
  Engine,
  EngineDelta,
  EngineDone,
  EngineModel,
  EngineStats,
  GenerateRequest,
} from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';

export const scriptedModel = (name = 'm', digest = 'cd', more: Partial<EngineModel> = {}): EngineModel => ({
  name,
  digest: digest.repeat(32) as ModelDigest,
  digestKind: 'declared',
  contextTokens: 1_000,
  continuation: 'none',
  build: 'scripted',
  ...more,
});

/** One running generation, in the test's hands. */
export interface Generation {
  readonly request: GenerateRequest;
  readonly signal: AbortSignal;
  emit(text: string, tokenIds?: readonly number[], isOpaque?: boolean): Promise<void> | undefined;
  finish(done?: Partial<EngineDone>): void;
  fail(error: unknown): void;
}

export class ScriptedEngine implements Engine {
  readonly kind = 'simulated';
  readonly slots: number;
  readonly running: Generation[] = [];
  /** As in `EngineStats`; undefined tells none. */
  progress: number | undefined;
  #models: readonly EngineModel[];
  #listeners = new Set<() => void>();

  constructor(slots = 2, models: readonly EngineModel[] = [scriptedModel()]) {
    this.slots = slots;
    this.#models = models;
  }

  models(): readonly EngineModel[] {
    return this.#models;
  }

  setModels(models: readonly EngineModel[]): void {
    this.#models = models;
    for (const listener of this.#listeners) listener();
  }

  generate(
    request: GenerateRequest,
    emit: (delta: EngineDelta) => Promise<void> | undefined,
    signal: AbortSignal,
  ): Promise<EngineDone> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        const index = this.running.indexOf(generation);
        if (index >= 0) this.running.splice(index, 1);
      };
      const generation: Generation = {
        request,
        signal,
        emit: (text, tokenIds = [1], isOpaque = false) => emit({ text, tokenIds, isOpaque }),
        finish: (done) => {
          end();
          resolve({
            finish: 'stop',
            promptTokens: 3,
            cachedTokens: 1,
            completionTokens: 2,
            prefillMs: ms(1),
            decodeMs: ms(2),
            ...done,
          });
        },
        fail: (error) => {
          end();
          reject(error);
        },
      };
      signal.addEventListener('abort', () => generation.fail(signal.reason), { once: true });
      this.running.push(generation);
    });
  }

  stats(): EngineStats {
    const { progress } = this;
    const told = progress === undefined ? {} : { progress };
    return { active: this.running.length, slots: this.slots, tokensPerSecond: 0, ...told };
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): Promise<void> {
    for (const generation of [...this.running])
      generation.fail(new HelixFlowError('ENGINE_FAILED', { reason: 'closed' }));
    return Promise.resolve();
  }
}
