/** A vocabulary of byte strings; decoding shows U+FFFD for what is incomplete, as llama.cpp does. */

import type { LlamaModel, Token } from 'node-llama-cpp';

/** @param eog The token that ends an answer, if there is one. */
export function byteModel(tokens: readonly Uint8Array[], eog?: number): Pick<LlamaModel, 'detokenize' | 'isEogToken'> {
  return {
    detokenize: (ids) =>
      new TextDecoder().decode(Buffer.concat((ids as readonly Token[]).map((id) => tokens[id] ?? Buffer.alloc(0)))),
    isEogToken: (id) => id === eog,
  };
}

/** Cuts bytes anywhere, also inside of characters. */
export function cutBytes(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0, index = 0; at < bytes.length; index += 1) {
    const size = sizes[index % sizes.length] ?? 1;
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}
