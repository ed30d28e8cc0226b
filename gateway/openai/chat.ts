/** `POST /v1/chat/completions`: what a client may ask for, and the request that goes to a node. */

import { z } from 'zod';
import type { ChatRequest } from '../../protocol/messages/chat.ts';
import type { Preferences } from '../../protocol/preferences.ts';
import { plainMessages } from './messages.ts';
import { refuseUnsupported } from './params.ts';
import { readPreferences } from './preferences.ts';
import { issueError } from './refuse.ts';
import { isUsualBody, messagesMax, modelMaxChars } from './usual.ts';

/** More than any context holds; what is above is taken as this. */
const completionTokensMax = 10_000_000;

const tokens = z.int().min(1).nullish();
const stopText = z.string().min(1).max(1_024);

const chatBody = z.object({
  model: z.string().min(1).max(modelMaxChars),
  messages: z.array(z.unknown()).min(1).max(messagesMax),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
  max_completion_tokens: tokens,
  max_tokens: tokens,
  stop: z.union([stopText, z.array(z.unknown()).max(16).pipe(z.array(stopText))]).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  seed: z.int().nullish(),
  helixflow: z.unknown().optional(),
});

type ChatBody = z.infer<typeof chatBody>;

/** A chat that a client asked for, checked. */
export interface ChatAsked {
  /** As the client wrote it: a name, or `name@digest8`. */
  readonly model: string;
  readonly chat: ChatRequest;
  readonly stream: boolean;
  /** The stream ends with a chunk that has no choices but the usage. */
  readonly includeUsage: boolean;
  /** What it asks of the nodes that serve it. */
  readonly preferences?: Preferences;
}

function chatOf(body: ChatBody): ChatRequest {
  const chat: ChatRequest = { messages: plainMessages(body.messages) };
  const maxTokens = body.max_completion_tokens ?? body.max_tokens;
  const { stop, temperature, top_p: topP, seed } = body;
  if (typeof maxTokens === 'number') chat.maxTokens = Math.min(maxTokens, completionTokensMax);
  if (typeof stop === 'string') chat.stop = [stop];
  else if (stop?.length) chat.stop = stop;
  if (typeof temperature === 'number') chat.temperature = temperature;
  if (typeof topP === 'number') chat.topP = topP;
  if (typeof seed === 'number') chat.seed = seed;
  return chat;
}

function checked(body: unknown): ChatBody {
  if (isUsualBody(body)) return body as ChatBody;
  const parsed = chatBody.safeParse(body);
  if (!parsed.success) throw issueError(parsed.error, body);
  return parsed.data;
}

/**
 * Reads a request's body: unknown fields are ignored, `null` counts as absent, and what is known but
 * cannot be honoured is refused unless it is the default.
 * @param body Any JSON value.
 * @throws HelixFlowError REQUEST_MALFORMED, REQUEST_UNSUPPORTED; both name the parameter.
 */
export function parseChatBody(body: unknown): ChatAsked {
  const asked = checked(body);
  refuseUnsupported(body as Readonly<Record<string, unknown>>);
  const { model, stream, stream_options: streamOptions, helixflow } = asked;
  const preferences = readPreferences(helixflow);
  return {
    model,
    chat: chatOf(asked),
    stream: stream === true,
    includeUsage: streamOptions?.include_usage === true,
    ...(preferences === undefined ? {} : { preferences }),
  };
}
