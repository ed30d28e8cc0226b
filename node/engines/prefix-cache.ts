/** Which beginnings of prompts an engine without a model pretends to hold: blocks of tokens, the least used forgotten first. */

import type { ChatMessage } from '../../protocol/messages/chat.ts';

/** As vLLM's prefix cache has it. */
const blockTokens = 16;
const tokenChars = 4;
const blockChars = blockTokens * tokenChars;

export interface PrefixCache {
  /** How many tokens at the beginning of a prompt need no computing; always whole blocks. */
  match(blocks: readonly number[]): number;
  /** The first `tokens` of a prompt have been computed. */
  remember(blocks: readonly number[], tokens: number): void;
}

/** A name for each whole block of a conversation, which tells it apart together with all that is before it. */
export function promptBlocks(messages: readonly ChatMessage[]): number[] {
  const text = messages.map(({ role, content }) => `${role}\0${content}\0`).join('');
  const blocks: number[] = [];
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
    if (at % blockChars === blockChars - 1) blocks.push(hash >>> 0);
  }
  return blocks;
}

/** @param tokensMax What the cache holds at most. */
export function createPrefixCache(tokensMax: number): PrefixCache {
  const blocksMax = Math.floor(tokensMax / blockTokens);
  /** The one used last stands last. */
  const held = new Set<number>();

  /** Of a prompt its later blocks are forgotten first: without the earlier ones they are worth nothing. */
  function touch(blocks: readonly number[]): void {
    for (const block of blocks.toReversed()) {
      held.delete(block);
      held.add(block);
    }
  }

  return {
    match(blocks) {
      const missing = blocks.findIndex((block) => !held.has(block));
      const common = missing === -1 ? blocks.length : missing;
      touch(blocks.slice(0, common));
      return common * blockTokens;
    },
    remember(blocks, tokens) {
      touch(blocks.slice(0, Math.floor(tokens / blockTokens)));
      for (const block of held) {
        if (held.size <= blocksMax) break;
        held.delete(block);
      }
    },
  };
}
