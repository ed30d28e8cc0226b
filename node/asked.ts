/** What an attempt asks for, read from its body. */

import { HelixFlowError } from '../protocol/errors.ts';
import { type ChatRequest, parseChatRequest } from '../protocol/messages/chat.ts';
import { parseResume } from '../protocol/messages/resume.ts';
import type { Open } from '../protocol/messages/session.ts';
import type { Resume } from '../protocol/ports.ts';

export interface Asked {
  readonly chat: ChatRequest;
  /** Where the answer goes on from; absent for one that begins. */
  readonly resume?: Resume;
  /** Of the body without its resume: the prompt cannot come to more tokens. */
  readonly chatBytes: number;
  /** Tokens that the answer may still have; undefined: as many as fit. */
  readonly tokensLeft: number | undefined;
}

/** @throws HelixFlowError REQUEST_MALFORMED */
export function readAsked({ resumeBytes }: Pick<Open, 'resumeBytes'>, body: Uint8Array): Asked {
  const chatBytes = body.length - resumeBytes;
  if (chatBytes < 0) {
    throw new HelixFlowError('REQUEST_MALFORMED', { reason: 'what the answer goes on from is longer than the body' });
  }
  const chat = parseChatRequest(body.subarray(0, chatBytes));
  if (resumeBytes === 0) return { chat, chatBytes, tokensLeft: chat.maxTokens };
  const resume = parseResume(body.subarray(chatBytes));
  const tokensLeft = chat.maxTokens === undefined ? undefined : Math.max(0, chat.maxTokens - resume.tokens);
  return { chat, resume, chatBytes, tokensLeft };
}
