/** An audit log in a directory of its own, with a clock that tests move and a log that they read. */

import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { type AuditLog, type AuditLogOptions, openAuditLog } from '../../ledger/adapters/audit-files.ts';
import { type AuditRecord, auditActions } from '../../ledger/audit.ts';
import type { Log } from '../../protocol/ports.ts';
import { ManualClock } from '../support/manual-clock.ts';

export const keyId = '00000000000000aa';
export const peer = '12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo';

/** Something that is never counted together with anything else. */
export const deed = (more: Partial<AuditRecord> = {}): AuditRecord => ({
  action: 'key.create',
  actor: 'local',
  object: `key:${keyId}`,
  outcome: 'done',
  reason: '',
  ...more,
});

export const refusal = (more: Partial<AuditRecord> = {}): AuditRecord => ({
  action: 'request.refuse',
  actor: `key:${keyId}`,
  object: 'POST /v1/chat/completions',
  outcome: 'refused',
  reason: 'KEY_EXPIRED',
  ...more,
});

const hexOf = (characters: number): fc.Arbitrary<string> =>
  fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: characters, maxLength: characters });

/** Records that are fit to be written, none of which is counted together with another. */
export const anyDeed: fc.Arbitrary<AuditRecord> = fc.record({
  action: fc.constantFrom(...auditActions),
  actor: fc.oneof(
    fc.constantFrom('local', 'none'),
    hexOf(16).map((id) => `key:${id}`),
  ),
  object: fc.oneof(
    fc.constant('none'),
    hexOf(16).map((id) => `account:acct-${id}`),
    hexOf(64).map((id) => `author:${id}`),
    fc.constant('POST /admin/v1/keys/:key/rotate'),
  ),
  outcome: fc.constant('done' as const),
  reason: fc.constantFrom('', 'torn', 'used-up', 'KEY_EXPIRED'),
});

export interface Told {
  readonly level: string;
  readonly event: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface AuditStage extends AsyncDisposable {
  readonly directory: string;
  readonly clock: ManualClock;
  /** What went to the process's log. */
  readonly told: Told[];
  open(options?: Partial<AuditLogOptions>): Promise<AuditLog>;
  /** Names of the files with lines, oldest first. */
  names(): Promise<string[]>;
  /** Everything in them, whole lines. */
  lines(): Promise<string[]>;
  read(name: string): Promise<string>;
}

export async function auditStage(): Promise<AuditStage> {
  const parent = await mkdtemp(join(tmpdir(), 'hx-audit-'));
  const directory = join(parent, 'audit');
  const clock = new ManualClock();
  const told: Told[] = [];
  const tell =
    (level: string) =>
    (event: string, fields: object = {}): void =>
      void told.push({ level, event, fields: { ...fields } });
  const log: Log = {
    debug: tell('debug'),
    info: tell('info'),
    warn: tell('warn'),
    error: tell('error'),
    with: () => log,
  };
  const read = (name: string): Promise<string> => readFile(join(directory, name), 'latin1');
  const names = async (): Promise<string[]> =>
    (await readdir(directory))
      .filter((name) => name.endsWith('.jsonl'))
      .sort((a, b) => Number.parseInt(a.slice(6), 10) - Number.parseInt(b.slice(6), 10));
  return {
    directory,
    clock,
    told,
    open: (options = {}) => openAuditLog(directory, { clock, log }, options),
    names,
    lines: async () => (await Promise.all((await names()).map(read))).join('').split('\n').slice(0, -1),
    read,
    [Symbol.asyncDispose]: () => rm(parent, { recursive: true, force: true }),
  };
}
