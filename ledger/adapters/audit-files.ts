/** The audit log on disk: lines are chained, fsynced in groups and bounded in size, and a full disk stops nobody. */

import { type FileHandle, open, rm } from 'node:fs/promises';
import { assert } from '../../protocol/invariant.ts';
import type { Cancel, Clock, Log } from '../../protocol/ports.ts';
import { type Ms, ms, seconds, type UnixMs } from '../../protocol/units.ts';
import type { Audit, AuditLine, AuditRecord } from '../audit.ts';
import { type Anchor, type AuditHead, hashLine, lineOf } from '../audit-chain.ts';
import { type CoalesceOptions, type Coalescer, coalesceDefaults, createCoalescer } from '../audit-coalesce.ts';
import { cleanRecord } from '../audit-record.ts';
import {
  codeOf,
  fileAt,
  firstLine,
  makeDirectory,
  removeEmpty,
  syncNames,
  unusable,
  writeAt,
  writeHead,
} from './audit-disk.ts';
import { type AuditVerdict, readAuditTail, verifyAudit } from './audit-read.ts';
import { type Found, type OpenFile, resume } from './audit-resume.ts';

export interface AuditLogDeps {
  readonly clock: Clock;
  readonly log: Log;
}

export interface AuditLogOptions {
  /** A file that would grow beyond this is followed by another. */
  readonly fileMaxBytes: number;
  /** Above this, of all files together, the oldest is removed. */
  readonly totalMaxBytes: number;
  /** Lines that wait for the disk; further ones are lost, and counted. */
  readonly waitingMax: number;
  readonly coalesce: CoalesceOptions;
}

export const auditLogDefaults: AuditLogOptions = {
  fileMaxBytes: 8_388_608,
  totalMaxBytes: 268_435_456,
  waitingMax: 8_192,
  coalesce: coalesceDefaults,
};

/** An audit log that is open for writing; disposing it writes what waits. */
export interface AuditLog extends Audit, AsyncDisposable {
  /** Writes what was noted so far, as far as the disk takes it; refusals that are still being counted stay. */
  flush(): Promise<void>;
  /** The newest `count` lines, oldest first. */
  tail(count: number): Promise<readonly AuditLine[]>;
  /** Checks the files from the first line kept to the last one noted. */
  verify(): Promise<AuditVerdict>;
}

interface Opened extends Found {
  /** The directory was made for it. */
  readonly isOwn: boolean;
}

interface Noted {
  readonly record: AuditRecord;
  readonly time: UnixMs;
}

const privateFile = 0o600;
/** At most this often the disk is asked to make lines durable. */
const groupMs = ms(100);
const retryMs = seconds(1);

class FileAuditLog implements AuditLog {
  readonly #directory: string;
  readonly #deps: AuditLogDeps;
  readonly #options: AuditLogOptions;
  readonly #coalescer: Coalescer;
  readonly #files: OpenFile[];
  #handle: FileHandle | undefined;
  /** As it is on disk. */
  #head: AuditHead;
  /** The newest line on disk; the head follows it. */
  #last: Anchor;
  #waiting: Noted[] = [];
  #dropped = 0;
  #work: Promise<void> = Promise.resolve();
  #cancel: Cancel | undefined;
  #groupMs: Ms;
  #isFailing = false;
  #isClosed = false;
  /** What was missing when it was opened. */
  readonly #made: 'directory' | 'head' | undefined;
  readonly #complained = new Set<string>();

  constructor(directory: string, deps: AuditLogDeps, options: AuditLogOptions, found: Opened) {
    this.#directory = directory;
    this.#deps = deps;
    this.#options = options;
    this.#coalescer = createCoalescer(deps.clock, (record) => this.#push(record), options.coalesce);
    this.#files = found.files;
    this.#handle = found.handle;
    this.#head = found.head;
    this.#made = found.isNew ? (found.isOwn ? 'directory' : 'head') : undefined;
    this.#last = found.last;
    this.#groupMs = ms(deps.clock.nowMs() - groupMs);
  }

  note(record: AuditRecord): void {
    if (this.#isClosed) return;
    const { record: clean, faults } = cleanRecord(record);
    if (faults.length > 0) this.#complain(clean.action, faults.join(' '));
    this.#coalescer.note(clean);
  }

  async flush(): Promise<void> {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#work = this.#work.then(() => this.#writeAll());
    await this.#work;
  }

  async tail(count: number): Promise<readonly AuditLine[]> {
    await this.flush();
    return (await readAuditTail(this.#directory, count)) ?? [];
  }

  async verify(): Promise<AuditVerdict> {
    await this.flush();
    return (await verifyAudit(this.#directory)) ?? { lines: 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) return await this.#work;
    this.#coalescer.flush();
    this.#isClosed = true;
    await this.flush();
    this.#cancel?.();
    const lines = this.#waiting.length + this.#dropped;
    if (lines > 0) this.#deps.log.error('audit.lost', { lines });
    await this.#handle?.close();
    // A start that was refused leaves nothing behind.
    if (this.#made !== undefined && this.#files.length === 0 && lines === 0) {
      const code = await removeEmpty(this.#directory, this.#made === 'directory');
      if (code !== undefined) this.#deps.log.warn('audit.empty-kept', { code });
    }
  }

  /** A caller's fault, told once of its kind. */
  #complain(action: string, members: string): void {
    const kind = `${action} ${members}`;
    if (this.#complained.has(kind)) return;
    this.#complained.add(kind);
    this.#deps.log.error('audit.record.unfit', { action, members });
  }

  #push(record: AuditRecord): void {
    if (this.#waiting.length >= this.#options.waitingMax) this.#dropped += 1;
    else this.#waiting.push({ record, time: this.#deps.clock.wallMs() });
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isClosed) return;
    const pauseMs = this.#isFailing ? retryMs : groupMs;
    const delayMs = ms(Math.max(0, this.#groupMs + pauseMs - this.#deps.clock.nowMs()));
    this.#cancel ??= this.#deps.clock.timer(delayMs, () => void this.flush());
  }

  async #writeAll(): Promise<void> {
    this.#groupMs = this.#deps.clock.nowMs();
    try {
      while (this.#waiting.length > 0 || this.#dropped > 0) await this.#writeGroup();
      if (this.#head.last.number !== this.#last.number) await this.#setHead({ ...this.#head, last: this.#last });
      if (this.#isFailing) this.#deps.log.info('audit.resumed');
      this.#isFailing = false;
    } catch (error) {
      const code = codeOf(error);
      if (!this.#isFailing) this.#deps.log.error('audit.failed', { code }, error);
      this.#isFailing = true;
      this.#schedule();
    }
  }

  /** As many waiting lines as the current file takes, on disk when it returns. */
  async #writeGroup(): Promise<void> {
    this.#tellDropped();
    const { lines, bytes, last } = this.#nextGroup();
    const file = await this.#roomFor(bytes);
    assert(this.#handle !== undefined, 'the newest file is open');
    await writeAt(this.#handle, Buffer.from(lines.join(''), 'latin1'), file.bytes);
    await this.#handle.datasync();
    file.bytes += bytes;
    this.#last = last;
    this.#waiting.splice(0, lines.length);
    await this.#setHead({ ...this.#head, last });
  }

  /** Lines that were lost become one line, after those that were not. */
  #tellDropped(): void {
    if (this.#dropped === 0 || this.#waiting.length >= this.#options.waitingMax) return;
    this.#deps.log.error('audit.dropped', { lines: this.#dropped });
    this.#self({ action: 'audit.drop', outcome: 'failed', reason: 'full', count: this.#dropped });
    this.#dropped = 0;
  }

  #self({ count = 1, ...record }: Omit<AuditRecord, 'actor' | 'object'>): void {
    const counted = { ...record, actor: 'none', object: 'none', ...(count > 1 ? { count } : {}) };
    this.#waiting.push({ record: counted, time: this.#deps.clock.wallMs() });
  }

  #nextGroup(): { readonly lines: readonly string[]; readonly bytes: number; readonly last: Anchor } {
    const { fileMaxBytes } = this.#options;
    const used = this.#files.at(-1)?.bytes ?? 0;
    const lines: string[] = [];
    let last = this.#last;
    let bytes = 0;
    for (const { record, time } of this.#waiting) {
      const text = lineOf(record, last.number + 1, time, last.hash);
      const isFull = (sum: number): boolean => sum + bytes + text.length + 1 > fileMaxBytes;
      if (lines.length > 0 && (isFull(used) || isFull(0))) break;
      lines.push(`${text}\n`);
      bytes += text.length + 1;
      last = { number: last.number + 1, hash: hashLine(text) };
    }
    return { lines, bytes, last };
  }

  /** The file that takes `bytes` more; older ones make room for it. */
  async #roomFor(bytes: number): Promise<OpenFile> {
    let file = this.#files.at(-1);
    if (file === undefined || (file.bytes > 0 && file.bytes + bytes > this.#options.fileMaxBytes)) {
      file = await this.#rotate();
    }
    const total = (): number => this.#files.reduce((sum, each) => sum + each.bytes, bytes);
    while (total() > this.#options.totalMaxBytes && this.#files.length > 1) await this.#removeOldest();
    return file;
  }

  /** The head knows all lines before the new file, whatever a crash leaves of it. */
  async #rotate(): Promise<OpenFile> {
    if (this.#head.last.number !== this.#last.number) await this.#setHead({ ...this.#head, last: this.#last });
    await syncNames(this.#directory);
    const file = { ...fileAt(this.#directory, this.#last.number + 1), bytes: 0 };
    const before = this.#handle;
    this.#handle = await open(file.path, 'w+', privateFile);
    this.#files.push(file);
    await before?.close();
    await syncNames(this.#directory);
    return file;
  }

  async #removeOldest(): Promise<void> {
    const [oldest, second] = this.#files;
    if (oldest === undefined || second === undefined) return;
    const first = { number: second.first, previous: (await firstLine(second))?.previous ?? this.#last.hash };
    await this.#setHead({ ...this.#head, first });
    await syncNames(this.#directory);
    await rm(oldest.path, { force: true });
    this.#files.shift();
    this.#self({ action: 'audit.trim', outcome: 'done', reason: '', count: second.first - oldest.first });
  }

  async #setHead(head: AuditHead): Promise<void> {
    await writeHead(this.#directory, head);
    this.#head = head;
  }
}

/**
 * Opens the audit log in a directory that no other process writes, making it, but nothing above it, if it is missing.
 *
 * What a crash left half-written is cut off and told; lines that disagree with the head are kept as they are and told,
 * and every later check finds them. Noted lines are on disk within about 100 ms; while the disk refuses them they wait,
 * and when too many wait further ones are counted instead.
 *
 * A log that is closed without a line leaves no file behind if there was none before.
 *
 * @throws HelixFlowError DATA_DIR_UNUSABLE, FORMAT_TOO_NEW
 */
export async function openAuditLog(
  directory: string,
  deps: AuditLogDeps,
  options: Partial<AuditLogOptions> = {},
): Promise<AuditLog> {
  try {
    const isOwn = await makeDirectory(directory);
    const found = { ...(await resume(directory)), isOwn };
    const log = new FileAuditLog(directory, deps, { ...auditLogDefaults, ...options }, found);
    for (const { count, ...record } of found.told) {
      deps.log.warn('audit.repaired', { reason: record.reason, lines: count ?? 1 });
      log.note({ ...record, actor: 'none', object: 'none', ...(count === undefined ? {} : { count }) });
    }
    return log;
  } catch (cause) {
    throw unusable(directory, cause);
  }
}
