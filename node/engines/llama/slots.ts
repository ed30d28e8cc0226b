/** Which sequence of the context serves an answer: the one that remembers most of its prompt. */

import type { LlamaContextSequence, Token } from 'node-llama-cpp';
import { createQueue } from '../queue.ts';

export interface Slot {
  readonly sequence: LlamaContextSequence;
  /** Larger is later. */
  lastUse: number;
}

export interface SlotPool {
  /**
   * Waits for a free slot and takes it; give it back also when `signal` has aborted since.
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
  const queue = createQueue<Slot>();
  let uses = 0;

  function pick(prompt: readonly Token[]): Slot {
    const candidates = free.map(({ sequence, lastUse }) => ({
      common: sequence.compareContextTokens(prompt as Token[]).firstDifferentIndex,
      lastUse,
    }));
    const [slot] = free.splice(pickSlot(candidates), 1);
    return slot as Slot;
  }

  return {
    async take(prompt, signal) {
      signal.throwIfAborted();
      return free.length === 0 ? await queue.wait(signal) : pick(prompt);
    },
    giveBack(slot) {
      uses += 1;
      slot.lastUse = uses;
      if (!queue.hand(slot)) free.push(slot);
    },
  };
}
