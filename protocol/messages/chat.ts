/** The chat request as it travels from gateway to node: what the client asked for, checked, with nothing unknown left in it. */

import { z } from 'zod';
import { HelixFlowError } from '../errors.ts';

const message = z.strictObject({
  role: z.enum(['system', 'user', 'assistant', 'tool']),
  /** Plain text; content parts are joined by the gateway. */
  content: z.string(),
});

/** Sampling parameters are absent where the client left them to the model. */
const chatRequest = z.strictObject({
  messages: z.array(message).min(1).max(10_000),
  /** Cap on completion tokens; absent: as far as the context reaches. */
  maxTokens: z.int().min(1).max(10_000_000).optional(),
  /** Texts that end the answer and are not part of it. */
  stop: z.array(z.string().min(1).max(1_024)).max(16).optional(),
  temperature: z.number().min(0).max(2).optional(),
  topP: z.number().min(0).max(1).optional(),
  seed: z.int().optional(),
});

/** One turn of the conversation. */
export type ChatMessage = z.infer<typeof message>;
/** What the client asked for. */
export type ChatRequest = z.infer<typeof chatRequest>;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** The body of an `open` frame. */
export const encodeChatRequest = (chat: ChatRequest): Uint8Array => encoder.encode(JSON.stringify(chat));

/**
 * Reads the body of an `open` frame; a node trusts no gateway to have checked it.
 * @throws HelixFlowError REQUEST_MALFORMED
 */
export function parseChatRequest(body: Uint8Array): ChatRequest {
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(body));
  } catch (cause) {
    throw new HelixFlowError('REQUEST_MALFORMED', { reason: 'the body is not JSON in UTF-8' }, { cause });
  }
  const parsed = chatRequest.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const param = issue?.path.join('.') ?? '';
  throw new HelixFlowError('REQUEST_MALFORMED', { reason: `${param}: ${issue?.message ?? 'invalid'}`, param });
}
