/** Which sequence of the context serves an answer: the one that remembers most of its prompt. */

import type { LlamaContextSequence, Token } from 'node-llama-cpp';

export interface Slot {
  readonly sequence: LlamaContextSequence;
  /** Larger is later. */
  lastUse: number;
}

export interface SlotPool {
  /**
   * Waits for a free slot and takes it.
   * @throws the signal's reason when that aborts first.
   */
  take(prompt: readonly Token[], signal: AbortSignal): Promise<Slot>;
  giveBack(slot: Slot): void;
}

/** The index of the candidate with the longest common prefix; of several, the one unused for longest. */
export function pickSlot(candidates: readonly { readonly common: number; readonly lastUse: number }[]): number {
  let best = 0;
  for (const [index, { common, lastUse }] of candidates.entries()) {
    const chosen = candidates[best];
    if (chosen === undefined || common < chosen.common) continue;
    if (common > chosen.common || lastUse < chosen.lastUse) best = index;
  }
  return best;
}

export function createSlotPool(sequences: readonly LlamaContextSequence[]): SlotPool {
  const free: Slot[] = sequences.map((sequence) => ({ sequence, lastUse: 0 }));
  const waiting: (() => void)[] = [];
  let uses = 0;

  function pick(prompt: readonly Token[]): Slot {
    const candidates = free.map(({ sequence, lastUse }) => ({
      common: sequence.compareContextTokens(prompt as Token[]).firstDifferentIndex,
      lastUse,
    }));
    const [slot] = free.splice(pickSlot(candidates), 1);
    return slot as Slot;
  }

  function wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const aborted = (): void => {
        waiting.splice(waiting.indexOf(go), 1);
        reject(signal.reason);
      };
      const go = (): void => {
        signal.removeEventListener('abort', aborted);
        resolve();
      };
      waiting.push(go);
      signal.addEventListener('abort', aborted, { once: true });
    });
  }

  return {
    async take(prompt, signal) {
      signal.throwIfAborted();
      while (free.length === 0) await wait(signal);
      return pick(prompt);
    },
    giveBack(slot) {
      uses += 1;
      slot.lastUse = uses;
      free.push(slot);
      waiting.shift()?.();
    },
  };
}
