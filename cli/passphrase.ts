/** Where the passphrase of a root key or a backup comes from: a file, a variable, or a question at the terminal. */

import { readFileSync } from 'node:fs';
import { HelixFlowError } from '../protocol/errors.ts';
import type { CommandContext } from './command.ts';
import { systemReason } from './files.ts';

/** What the options say. */
export interface PassphraseConfig {
  readonly passphraseFile: string | undefined;
  readonly passphrase: string | undefined;
}

interface PassphraseUse {
  /** `root key`, `backup`. */
  readonly of: string;
  /** The variable that may hold it. */
  readonly env: string;
  /** A new one is asked for twice. */
  readonly isNew: boolean;
}

const unfit = (reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('CONFIG_INVALID', { reason }, { cause });

function readPassphraseFile(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw unfit(`--passphrase-file ${path} cannot be read: ${systemReason(cause)}`, cause);
  }
  const line = text.split(/\r?\n/)[0] ?? '';
  if (line === '') throw unfit(`--passphrase-file ${path}: its first line is empty`);
  return line;
}

/** True when the options hold a passphrase, so that nobody has to be asked. */
export const hasPassphrase = ({ passphrase, passphraseFile }: PassphraseConfig): boolean =>
  passphrase !== undefined || passphraseFile !== undefined;

/** @throws HelixFlowError CONFIG_INVALID when there is none to be had. */
export async function readPassphrase(
  config: PassphraseConfig,
  { readSecret }: Pick<CommandContext, 'readSecret'>,
  { of, env, isNew }: PassphraseUse,
): Promise<string> {
  if (config.passphraseFile !== undefined) return readPassphraseFile(config.passphraseFile);
  if (config.passphrase !== undefined) return config.passphrase;
  const typed = await readSecret(isNew ? `New passphrase of the ${of}: ` : `Passphrase of the ${of}: `);
  if (typed === undefined) {
    throw unfit(`the passphrase of the ${of} is missing: give it with --passphrase-file or ${env}, or at a terminal`);
  }
  if (typed === '') throw unfit(`the passphrase of the ${of} is empty`);
  if (isNew && (await readSecret('Once more: ')) !== typed) throw unfit('the two passphrases differ');
  return typed;
}
