/** Where the text of an invite comes from. */

import { HelixFlowError } from '../protocol/errors.ts';
import { limits } from '../protocol/limits.ts';

/** For line ends around the token. */
const slackBytes = 64;

/** The invite itself, or what stdin holds for `-`. @throws HelixFlowError CONFIG_INVALID */
export async function readJoin(
  option: string | undefined,
  readLine: (maxBytes: number) => Promise<string>,
): Promise<string | undefined> {
  if (option !== '-') return option;
  const text = await readLine(limits.tokenMaxChars + slackBytes);
  if (text === '') throw new HelixFlowError('CONFIG_INVALID', { reason: '--join -: stdin holds no token' });
  return text;
}
