/** Where exports go: stdout, or a file that is there whole or not at all. */

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { WriteStream } from 'node:fs';
import { link, open, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HelixFlowError } from '../protocol/errors.ts';
import { fileExists, syncDirectory, systemCode, systemReason } from './files.ts';
import { unwritable } from './output.ts';

/** Takes text; waits while whoever reads it is slow. */
export interface Sink {
  write(text: string): Promise<void>;
  /** All of it is where it should be. */
  end(): Promise<void>;
}

/** Pieces this large leave together. */
const chunkChars = 262_144;

class StreamSink implements Sink {
  readonly #stream: NodeJS.WritableStream;
  #waiting = '';
  /** Nobody reads any more. */
  #isOver = false;
  failure: unknown;

  constructor(stream: NodeJS.WritableStream) {
    this.#stream = stream;
    stream.on('error', (error) => {
      this.#isOver = true;
      if (systemCode(error) !== 'EPIPE') this.failure = error;
    });
  }

  async write(text: string): Promise<void> {
    this.#waiting += text;
    if (this.#waiting.length >= chunkChars) await this.#flush();
  }

  async #flush(): Promise<void> {
    const text = this.#waiting;
    this.#waiting = '';
    if (text === '' || this.#isOver) return this.#check();
    if (!this.#stream.write(text)) await this.#whenDrained();
    this.#check();
  }

  #whenDrained(): Promise<void> {
    const events = ['drain', 'close', 'error'] as const;
    return new Promise((resolve) => {
      const settle = (): void => {
        for (const event of events) this.#stream.off(event, settle);
        resolve();
      };
      for (const event of events) this.#stream.on(event, settle);
    });
  }

  #check(): void {
    if (this.failure !== undefined) throw this.failure;
  }

  async end(): Promise<void> {
    await this.#flush();
  }
}

const reasons: Readonly<Record<string, string>> = {
  EEXIST: 'there is such a file already',
  ENOENT: 'its directory does not exist',
  EFBIG: 'it grows larger than files may be here',
};

const cannot = (path: string, cause: unknown): HelixFlowError => {
  const reason = reasons[systemCode(cause) ?? ''] ?? systemReason(cause);
  return new HelixFlowError('CONFIG_INVALID', { reason: `${path}: cannot be written: ${reason}` }, { cause });
};

async function closed(stream: WriteStream): Promise<void> {
  stream.end();
  // One that has failed has closed already, and says so no more.
  if (!stream.closed) await once(stream, 'close');
}

async function writeDraft(draft: string, produce: (sink: Sink) => Promise<void>): Promise<void> {
  // Before anything is read for it; its data is synced before the stream closes.
  const stream = (await open(draft, 'wx', 0o600)).createWriteStream({ flush: true });
  const sink = new StreamSink(stream);
  try {
    await produce(sink);
    await sink.end();
  } finally {
    await closed(stream);
  }
  if (sink.failure !== undefined) throw sink.failure;
}

/**
 * Has `produce` write a new file of mode 0600.
 * @throws HelixFlowError CONFIG_INVALID when there is such a file, or it cannot be written; what `produce` throws.
 */
export async function writeNewFileStream(path: string, produce: (sink: Sink) => Promise<void>): Promise<number> {
  if (await fileExists(path)) {
    throw new HelixFlowError('CONFIG_INVALID', { reason: `${path}: cannot be written: ${reasons['EEXIST']}` });
  }
  const draft = `${path}.${randomBytes(4).toString('hex')}.new`;
  try {
    await writeDraft(draft, produce);
    // A link never takes the place of a file.
    await link(draft, path);
    await syncDirectory(dirname(path));
    return (await stat(path)).size;
  } catch (cause) {
    if (cause instanceof HelixFlowError || systemCode(cause) === undefined) throw cause;
    throw cannot(path, cause);
  } finally {
    await rm(draft, { force: true });
  }
}

/** Has `produce` write to stdout, until nobody reads it any more. */
export async function writeStdout(produce: (sink: Sink) => Promise<void>): Promise<void> {
  const sink = new StreamSink(process.stdout);
  try {
    await produce(sink);
    await sink.end();
  } catch (cause) {
    if (sink.failure === undefined || cause !== sink.failure) throw cause;
    throw unwritable(cause);
  }
}
