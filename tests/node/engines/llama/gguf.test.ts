/** Model files that are none, or not whole, are refused at once and with a reason. */

import '../../../support/seed.ts';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, test } from 'vitest';
import { embeddedModel } from '../../../../node/engines/embedded.ts';
import { readModelFile } from '../../../../node/engines/llama/gguf.ts';
import { isHelixFlowError } from '../../../../protocol/errors.ts';
import { count32, count64, writeGguf } from '../../../support/gguf.ts';

const folder = mkdtempSync(join(tmpdir(), 'helixflow-gguf-'));
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** Why the file is refused; undefined when it is not. */
function refusal(path: string): string | undefined {
  try {
    readModelFile(path);
    return undefined;
  } catch (error) {
    if (isHelixFlowError(error, 'MODEL_FILE_INVALID')) return error.details.reason;
    throw error;
  }
}

const template = { 'tokenizer.chat_template': 'T' };
const embedded = readFileSync(embeddedModel.path);
const endless = { type: 9, bytes: Buffer.concat([count32(4), count64(2n ** 60n)]) };

describe('a model file', () => {
  test('is read for its template and size', ({ expect }) => {
    const file = readModelFile(embeddedModel.path);
    expect(file).toMatchObject({ shards: [embeddedModel.path], bytes: embedded.length });
    expect(file.chatTemplate).toContain('<|im_start|>');
  });

  const bad: readonly [why: string, bytes: Uint8Array, reason: RegExp][] = [
    ['is empty', Buffer.alloc(0), /not a GGUF file/],
    ['is something else', Buffer.from('PK\x03\x04 this is a zip, or says so'), /not a GGUF file/],
    ['has another version', writeGguf({ version: 9 }), /version 9/],
    ['has no chat template', writeGguf(), /no chat template/],
    ['is cut in the header', embedded.subarray(0, 3_000), /truncated/],
    ['is cut in the weights', embedded.subarray(0, 100_000), /truncated/],
    ['lacks the last weights', writeGguf({ metadata: template, tensorOffsets: [0, 64], dataBytes: 64 }), /truncated/],
    ['claims endless metadata', writeGguf({ metadata: { ...template, a: endless } }), /truncated/],
    ['claims an unknown type', writeGguf({ metadata: { a: { type: 77, bytes: Buffer.alloc(0) } } }), /damaged/],
  ];
  for (const [why, bytes, reason] of bad) {
    test(`is refused when it ${why}`, ({ expect }) => {
      expect(refusal(write('bad.gguf', bytes))).toMatch(reason);
    });
  }

  test('is refused when it is not there, or a directory', ({ expect }) => {
    expect(refusal(join(folder, 'missing.gguf'))).toMatch(/no file/);
    expect(refusal(folder)).toMatch(/directory|not a file/);
  });

  test('needs all of its parts', ({ expect }) => {
    const first = write('m-00001-of-00002.gguf', writeGguf({ metadata: template }));
    expect(refusal(first)).toMatch(/no file .*m-00002-of-00002/);
    const second = write('m-00002-of-00002.gguf', writeGguf());
    expect(readModelFile(first).shards).toEqual([first, second]);
  });

  test('whatever is wrong in it, is read or refused, never anything else', ({ expect }) => {
    const header = embedded.subarray(0, 60_000);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(header.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        (changes) => {
          const bytes = Buffer.from(header);
          for (const [at, value] of changes) bytes[at] = value;
          expect(typeof (refusal(write('fuzz.gguf', bytes)) ?? '')).toBe('string');
        },
      ),
      { numRuns: 200 },
    );
  });
});
