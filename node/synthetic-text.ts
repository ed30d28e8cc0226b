/** Answers without a model: the same prompt gives the same tokens everywhere, at hardly any cost. */

import type { ChatRequest } from '../protocol/messages/chat.ts';
import type { EngineDelta } from '../protocol/ports.ts';

const words = (
  'a mesh of many nodes carries each answer from one hand to the next and no one in the middle holds it all ' +
  'the gateway asks a node streams tokens flow while clocks tick and lines are written down in order so that what was ' +
  'used is known to both sides long after the last word has left'
).split(' ');

const deltas: readonly EngineDelta[] = words.map((word, id) => ({ text: ` ${word}`, tokenIds: [id] }));

/** FNV-1a over roles and contents. */
export function hashPrompt(chat: ChatRequest): number {
  let hash = 0x811c9dc5;
  for (const { role, content } of chat.messages) {
    hash = Math.imul(hash ^ role.length, 0x01000193);
    for (let at = 0; at < content.length; at += 1) hash = Math.imul(hash ^ content.charCodeAt(at), 0x01000193);
  }
  return hash >>> 0;
}

/** The token at `position` of the answer to a prompt. The same object each time: do not change it. */
export function syntheticDelta(promptHash: number, position: number): EngineDelta {
  let mixed = Math.imul(promptHash ^ Math.imul(position + 1, 0x9e3779b1), 0x85ebca6b);
  mixed ^= mixed >>> 15;
  return deltas[(mixed >>> 0) % deltas.length] as EngineDelta;
}

/** Four characters a token and four tokens a message: what a tokenizer would find, roughly. */
export const countPromptTokens = (chat: ChatRequest): number =>
  chat.messages.reduce((sum, { content }) => sum + 4 + Math.ceil(content.length / 4), 0);

/** The first `tokens` tokens of the answer to a prompt, as one text. */
export function syntheticText(promptHash: number, tokens: number): string {
  let text = '';
  for (let position = 0; position < tokens; position += 1) text += syntheticDelta(promptHash, position).text;
  return text;
}
