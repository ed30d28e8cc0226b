/** The messages of a chat as models take them: plain text, one leading system message. */

import { z } from 'zod';
import type { ChatMessage } from '../../protocol/messages/chat.ts';
import { issueError, malformed, missing, unsupported } from './refuse.ts';
import { isUsualMessage } from './usual.ts';

/** Parts that one message may have. */
const partsMax = 1_000;

const part = z.object({ type: z.string(), text: z.string().nullish(), refusal: z.string().nullish() });

// Lists are walked here and not by the schema, which would collect an issue for every bad element of millions.
const clientMessage = z.object({
  role: z.enum(['developer', 'system', 'user', 'assistant', 'tool', 'function']),
  content: z.union([z.string(), z.array(z.unknown()).max(partsMax)]).nullish(),
  refusal: z.string().nullish(),
  tool_calls: z.array(z.unknown()).nullish(),
  function_call: z.unknown().optional(),
  audio: z.unknown().optional(),
});

type ClientMessage = z.infer<typeof clientMessage>;

function checked(value: unknown, where: string): ClientMessage {
  if (isUsualMessage(value)) return value as ClientMessage;
  const parsed = clientMessage.safeParse(value);
  if (!parsed.success) throw issueError(parsed.error, value, [where]);
  return parsed.data;
}

function textOfPart(value: unknown, where: string): string {
  const parsed = part.safeParse(value);
  if (!parsed.success) throw issueError(parsed.error, value, [where]);
  const { type, text, refusal } = parsed.data;
  if (type !== 'text' && type !== 'refusal') {
    throw unsupported(where, `content of type '${type.slice(0, 64)}' is not supported; send text`);
  }
  const content = type === 'text' ? text : refusal;
  if (content === null || content === undefined) throw missing(`${where}.${type}`);
  return content;
}

function textOf(message: ClientMessage, where: string): string {
  const { content, refusal } = message;
  if (typeof content === 'string') return content;
  if (content === null || content === undefined) {
    if (message.role === 'assistant' && typeof refusal === 'string') return refusal;
    throw missing(`${where}.content`);
  }
  if (content.length === 0) throw malformed(`${where}.content`, 'send at least 1 part');
  return content.map((each, index) => textOfPart(each, `${where}.content[${index}]`)).join('\n');
}

function refuseToolTraces(message: ClientMessage, where: string): void {
  const { role } = message;
  if (role === 'tool' || role === 'function') {
    throw unsupported(`${where}.role`, `messages of role '${role}' are not supported`);
  }
  if (message.tool_calls?.length) throw unsupported(`${where}.tool_calls`, 'tool calls are not supported');
  if ((message.function_call ?? undefined) !== undefined) {
    throw unsupported(`${where}.function_call`, 'function calls are not supported');
  }
  if ((message.audio ?? undefined) !== undefined) throw unsupported(`${where}.audio`, 'audio is not supported');
}

const isSystem = ({ role }: ClientMessage): boolean => role === 'system' || role === 'developer';

/**
 * Joins parts of text by a line break, and leading system and developer messages by an empty line into one:
 * many chat templates take no second one. Fields that change nothing here (`name`) are ignored.
 * @throws HelixFlowError REQUEST_UNSUPPORTED for tools, images, audio and files; REQUEST_MALFORMED for the rest.
 */
export function plainMessages(messages: readonly unknown[]): ChatMessage[] {
  const plain: ChatMessage[] = [];
  let isLeading = true;
  messages.forEach((value, index) => {
    const where = `messages[${index}]`;
    const message = checked(value, where);
    refuseToolTraces(message, where);
    const content = textOf(message, where);
    isLeading &&= isSystem(message);
    const [first] = plain;
    if (isLeading && first !== undefined) first.content += `\n\n${content}`;
    else plain.push({ role: isSystem(message) ? 'system' : (message.role as 'user' | 'assistant'), content });
  });
  return plain;
}
