/** A made-up language model for fake servers: the next token is a function of all bytes before it, and of nothing else. */

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Halves of a character that no byte-pair vocabulary has whole; the second follows the first, and nothing else. */
const split: readonly [Uint8Array, Uint8Array] = [Uint8Array.of(0xf0, 0x9f), Uint8Array.of(0x90, 0xa6)];
const words = [
  ' a',
  ' mesh',
  ' of',
  ' many',
  ' nodes',
  '.',
  ',',
  ' Grüße',
  ' 漢字',
  '\n',
  '\n\n',
  ' the',
  ' stop',
  ' st',
];

/** Tokens by id: bytes from 0 on (prompts are spelt with them), then words, the halves, and marks. */
const firstWord = 256;
const firstHalf = firstWord + words.length;
export const endId = firstHalf + 2;
const roles = ['<|system|>', '<|user|>', '<|assistant|>', '<|tool|>', '<|end|>'];
const firstRole = endId + 1;
export const vocabularySize = firstRole + roles.length;

const tokenBytes = (id: number): Uint8Array => {
  if (id < firstWord) return Uint8Array.of(id);
  if (id < firstHalf) return encoder.encode(words[id - firstWord]);
  if (id < endId) return split[id - firstHalf] as Uint8Array;
  return encoder.encode(id === endId ? '<|eos|>' : (roles[id - firstRole] ?? '?'));
};

const join = (parts: readonly Uint8Array[]): Uint8Array => Buffer.concat(parts);

/** What `ids` stand for, as SentencePiece decodes it: without a first space, and broken characters as U+FFFD. */
export const decodeIds = (ids: readonly number[]): string =>
  decoder.decode(join(ids.map(tokenBytes))).replace(/^ /, '');

export const bytesOf = (ids: readonly number[]): Uint8Array => join(ids.map(tokenBytes));

/** A prompt as ids: marks are one token, everything else is spelt. */
export function encodePrompt(messages: readonly { role: string; content: string }[]): number[] {
  const mark = (role: string): number => firstRole + roles.indexOf(`<|${role}|>`);
  const turns = messages.flatMap(({ role, content }) => [mark(role), ...encoder.encode(content), mark('end')]);
  return [...turns, mark('assistant')];
}

/** Text as ids of whole words, as far as it consists of them. */
export function encodeText(text: string): number[] {
  const whole = [...words.entries()].sort(([, a], [, b]) => b.length - a.length);
  const bird = decoder.decode(join(split));
  const ids: number[] = [];
  for (let rest = text; rest !== ''; ) {
    const found = whole.find(([, word]) => rest.startsWith(word));
    const piece = found?.[1] ?? (rest.startsWith(bird) ? bird : String.fromCodePoint(rest.codePointAt(0) ?? 0));
    if (found !== undefined) ids.push(firstWord + found[0]);
    else if (piece === bird) ids.push(firstHalf, firstHalf + 1);
    else ids.push(...encoder.encode(piece));
    rest = rest.slice(piece.length);
  }
  return ids;
}

function hash(bytes: Uint8Array): number {
  let value = 0x811c9dc5;
  for (const byte of bytes) value = Math.imul(value ^ byte, 0x01000193);
  value ^= value >>> 15;
  return Math.imul(value, 0x85ebca6b) >>> 8;
}

/** The token after `bytes`. A trained model seldom ends at once; this one ends about once in forty tokens. */
export function nextToken(bytes: Uint8Array): { readonly id: number; readonly bytes: Uint8Array } {
  const isHalf = bytes.at(-2) === split[0][0] && bytes.at(-1) === split[0][1];
  const draw = hash(bytes);
  const free = draw % 40 === 39 ? endId : firstWord + (draw % (words.length + 1));
  const id = isHalf ? firstHalf + 1 : free;
  return { id, bytes: tokenBytes(id) };
}
