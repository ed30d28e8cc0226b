/** How a client names a model: by its name, or pinned to a digest as `name@digest8`. */

/** A request's model, as the client wrote it. */
export interface ModelReference {
  readonly name: string;
  /** First 8 to 64 characters of the digest, lower-case hex, when the client pinned one. */
  readonly digestPrefix: string | undefined;
}

const pinned = /^(.+)@([0-9a-f]{8,64})$/;

/** Splits `name@digest8`; a name may itself hold an `@`. */
export function parseModelReference(text: string): ModelReference {
  const [, name = text, digestPrefix] = pinned.exec(text) ?? [];
  return { name, digestPrefix };
}

/** True for a name that could not be told from a pinned one: no node may offer it. */
export const isPinned = (text: string): boolean => pinned.test(text);
