/** Which servers are told apart, and what is known of how each goes on with an answer that was begun elsewhere. */

import type { EngineModel } from '../../../protocol/ports.ts';

/** Servers whose ways are known from their sources; every other one is taken at OpenAI's word only. */
export type ServerKind = 'vllm' | 'sglang' | 'llamacpp' | 'ollama' | 'other';

/** What the operator says of the server, or that it is to be found out. */
export type DeclaredContinuation = EngineModel['continuation'] | 'auto';

/** What a server does with an answer that was begun elsewhere. */
export interface Continuing {
  readonly by: EngineModel['continuation'];
  /** It shows the text that it goes on from once more. */
  readonly echoes: boolean;
  /** White space at the end of that text reaches the model; many chat templates cut it off. */
  readonly keepsSpace: boolean;
}

/** Of a server that nobody has found out about. */
export const notContinuing: Continuing = { by: 'none', echoes: false, keepsSpace: false };

/** What vLLM, SGLang and llama-server write into `owned_by`; Ollama writes a namespace of its own there. */
const owners: Readonly<Record<string, ServerKind>> = { vllm: 'vllm', sglang: 'sglang', llamacpp: 'llamacpp' };

/** By what the list of models says; undefined where it does not tell. */
export const kindByOwner = (owner: string): ServerKind | undefined => owners[owner];

const names: Readonly<Record<Exclude<ServerKind, 'other'>, string>> = {
  vllm: 'vLLM',
  sglang: 'SGLang',
  llamacpp: 'llama-server',
  ollama: 'Ollama',
};

/** For people: `vLLM`, `OpenAI-compatible server (somebody)`. */
export function describeServer(kind: ServerKind, owner: string): string {
  if (kind !== 'other') return names[kind];
  return owner === '' ? 'OpenAI-compatible server' : `OpenAI-compatible server (${owner})`;
}
