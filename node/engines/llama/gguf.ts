/** Looks at a GGUF file before anything heavy does: is it one, is it whole, which shards and which chat template it has. */

import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs';
import { HelixFlowError, toHelixFlowError } from '../../../protocol/errors.ts';

/** What the rest of the engine wants to know from the file's header. */
export interface ModelFile {
  /** The files of the model, in order; one for most. */
  readonly shards: readonly string[];
  readonly bytes: number;
  readonly chatTemplate: string;
}

const chunkBytes = 1_048_576;
const stringMaxBytes = 16_777_216;
const nestingMax = 4;
/** Bytes of a value by its type number; 8 is text, 9 an array. */
const valueBytes: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};

class FileFault extends Error {}

/** Reads forward through a file without ever holding or trusting more than it must. */
class Cursor {
  readonly bytes: number;
  readonly #descriptor: number;
  #buffer = Buffer.alloc(0);
  #bufferAt = 0;
  #at = 0;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
    this.bytes = fstatSync(descriptor).size;
  }

  get at(): number {
    return this.#at;
  }

  skip(count: number): void {
    if (count > this.bytes - this.#at) throw new FileFault('it is truncated: its header reaches beyond its end');
    this.#at += count;
  }

  take(count: number): Buffer {
    const from = this.#at;
    this.skip(count);
    if (from < this.#bufferAt || from + count > this.#bufferAt + this.#buffer.length) {
      this.#buffer = Buffer.alloc(Math.min(Math.max(count, chunkBytes), this.bytes - from));
      this.#bufferAt = from;
      readSync(this.#descriptor, this.#buffer, 0, this.#buffer.length, from);
    }
    return this.#buffer.subarray(from - this.#bufferAt, from - this.#bufferAt + count);
  }

  uint32 = (): number => this.take(4).readUInt32LE();

  /** A 64-bit count; one that a double cannot hold is far beyond any file. */
  count = (): number => Number(this.take(8).readBigUInt64LE());

  text(): string {
    const length = this.count();
    if (length > stringMaxBytes) throw new FileFault('its header is damaged: a text in it is absurdly long');
    return this.take(length).toString('utf8');
  }
}

function skipValue(cursor: Cursor, type: number, nesting = 0): void {
  if (type === 8) {
    cursor.skip(cursor.count());
    return;
  }
  const bytes = valueBytes[type];
  if (bytes !== undefined) {
    cursor.skip(bytes);
    return;
  }
  if (type !== 9 || nesting >= nestingMax) throw new FileFault(`its header is damaged: it has a value of type ${type}`);
  const elementType = cursor.uint32();
  const count = cursor.count();
  const elementBytes = valueBytes[elementType];
  if (elementBytes !== undefined) cursor.skip(count * elementBytes);
  else for (let index = 0; index < count; index += 1) skipValue(cursor, elementType, nesting + 1);
}

/** The texts among the file's metadata whose keys are in `wanted`. */
function readTexts(cursor: Cursor, count: number, wanted: ReadonlySet<string>): Map<string, string> {
  const texts = new Map<string, string>();
  for (let index = 0; index < count; index += 1) {
    const key = cursor.text();
    const type = cursor.uint32();
    if (type === 8 && wanted.has(key)) texts.set(key, cursor.text());
    else skipValue(cursor, type);
  }
  return texts;
}

/** Checks that the data of every tensor begins within the file; llama.cpp checks where it ends. */
function checkTensors(cursor: Cursor, count: number): void {
  let furthest = 0;
  for (let index = 0; index < count; index += 1) {
    cursor.skip(cursor.count());
    cursor.skip(cursor.uint32() * 8 + 4);
    furthest = Math.max(furthest, cursor.count());
  }
  if (count > 0 && cursor.at + furthest >= cursor.bytes) throw new FileFault('it is truncated: weights are missing');
}

function readHeader(path: string): { bytes: number; texts: Map<string, string> } {
  const descriptor = openSync(path, 'r');
  try {
    if (!fstatSync(descriptor).isFile()) throw new FileFault('it is not a file');
    const cursor = new Cursor(descriptor);
    if (cursor.bytes < 24 || cursor.take(4).toString('latin1') !== 'GGUF') {
      throw new FileFault('it is not a GGUF file; convert the model to GGUF, or download it in that format');
    }
    const version = cursor.uint32();
    if (version !== 2 && version !== 3) throw new FileFault(`its GGUF version ${version} is not one of 2 and 3`);
    const tensors = cursor.count();
    const texts = readTexts(cursor, cursor.count(), new Set(['general.architecture', 'tokenizer.chat_template']));
    checkTensors(cursor, tensors);
    return { bytes: cursor.bytes, texts };
  } finally {
    closeSync(descriptor);
  }
}

/** `name-00001-of-00003.gguf` stands for all of its parts. */
function listShards(path: string): readonly string[] {
  const match = /^(.*-)(\d{5})-of-(\d{5})(\.gguf)$/.exec(path);
  if (match === null) return [path];
  const [, stem = '', , total = '', ending = ''] = match;
  const count = Math.min(Number(total), 999);
  return Array.from({ length: count }, (_, part) => `${stem}${String(part + 1).padStart(5, '0')}-of-${total}${ending}`);
}

/** MODEL_FILE_INVALID for `path`, with a reason for people. */
export const modelFault = (path: string, reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('MODEL_FILE_INVALID', { path, reason }, { cause });

function readShards(shards: readonly string[]): ModelFile {
  let bytes = 0;
  let chatTemplate: string | undefined;
  for (const shard of shards) {
    if (!existsSync(shard)) throw new FileFault(`there is no file ${shard}`);
    const header = readHeader(shard);
    bytes += header.bytes;
    chatTemplate ??= header.texts.get('tokenizer.chat_template');
  }
  if (chatTemplate === undefined) throw new FileFault('it carries no chat template; use an instruction-tuned model');
  return { shards, bytes, chatTemplate };
}

const systemReasons: Readonly<Record<string, string>> = {
  EACCES: 'this user may not read it',
  EISDIR: 'it is a directory',
};

/**
 * Reads the headers of a model's files; takes milliseconds, whatever the size of the model.
 * @throws HelixFlowError MODEL_FILE_INVALID
 */
export function readModelFile(path: string): ModelFile {
  try {
    return readShards(listShards(path));
  } catch (error) {
    if (error instanceof FileFault) throw modelFault(path, error.message);
    throw toHelixFlowError(error, (cause) => {
      const { code } = cause as NodeJS.ErrnoException;
      return modelFault(path, (code && systemReasons[code]) ?? `it cannot be read (${code ?? 'unknown'})`, cause);
    });
  }
}
