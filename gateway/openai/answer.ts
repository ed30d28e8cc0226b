/** Answers to a chat as OpenAI writes them: one object, or a stream of chunks. */

import type { ModelDigest, PeerId, RequestId } from '../../protocol/ids.ts';
import type { Ms } from '../../protocol/units.ts';
import type { AnswerEnd } from '../service.ts';

/** What every part of one answer says. */
export interface AnswerIdentity {
  readonly request: RequestId;
  /** As the client asked for it. */
  readonly model: string;
  readonly createdS: number;
}

/** When things happened, from the arrival of the request. */
export interface AnswerTimings {
  readonly firstTokenMs: Ms;
  readonly totalMs: Ms;
}

/** What is told of how an answer was made; undefined where a gateway keeps nodes, attempts and times to itself. */
export type Told = AnswerTimings | undefined;

// What follows is written out by hand but for texts of others, since every request pays for it: ids and digests hold
// nothing that JSON would escape, and counts are whole numbers.

/** The prompt counts whole, also where a node had it in its cache. */
const usageOf = ({ promptTokens, completionTokens, cachedTokens }: AnswerEnd): string =>
  `{"prompt_tokens":${promptTokens},"completion_tokens":${completionTokens},` +
  `"total_tokens":${promptTokens + completionTokens},"prompt_tokens_details":{"cached_tokens":${cachedTokens}}}`;

const namesOf = (nodes: readonly PeerId[]): string => (nodes.length === 0 ? '' : `"${nodes.join('","')}"`);

/** HelixFlow's own part of an answer: the nodes whose content is in it, in order, and how often another one went on. */
function provenanceOf({ served: { nodes, attempts, splices, digest } }: AnswerEnd, told: Told): string {
  const facts = `"splices":${splices},"digest":"${digest}"`;
  if (told === undefined) return `{${facts}}`;
  const timings = `{"first_token_ms":${Math.round(told.firstTokenMs)},"total_ms":${Math.round(told.totalMs)}}`;
  return `{"nodes":[${namesOf(nodes)}],"attempts":${attempts},${facts},"timings":${timings}}`;
}

/** Equal for answers that came from the same model. */
const fingerprintOf = (digest: ModelDigest): string => `fp_${digest.slice(0, 10)}`;

/** The whole answer, as JSON. */
export const wholeAnswer = (identity: AnswerIdentity, text: string, end: AnswerEnd, told: Told): string =>
  `{"id":"chatcmpl-${identity.request}","object":"chat.completion","created":${identity.createdS},` +
  `"model":${JSON.stringify(identity.model)},"choices":[{"index":0,"message":{"role":"assistant","content":` +
  `${JSON.stringify(text)},"refusal":null},"logprobs":null,"finish_reason":"${end.finish}"}],` +
  `"usage":${usageOf(end)},"system_fingerprint":"${fingerprintOf(end.served.digest)}",` +
  `"helixflow":${provenanceOf(end, told)}}`;

/** The chunks of one stream, as server-sent events. All but the text of a delta is written out once. */
export interface AnswerChunks {
  /** The first event: who speaks. */
  readonly role: string;
  /** An event that says nothing, for clients that cannot take comments. */
  readonly idle: string;
  /** One event with a piece of the answer. */
  text(piece: string): string;
  /** The events after the last piece: how it ended, usage if it was asked for, `[DONE]`. */
  end(end: AnswerEnd, told: Told): string;
}

/** @param digest The model that answers; undefined while nobody has begun to. */
export function answerChunks(
  identity: AnswerIdentity,
  includeUsage: boolean,
  digest: ModelDigest | undefined,
): AnswerChunks {
  const constant = JSON.stringify({
    id: `chatcmpl-${identity.request}`,
    object: 'chat.completion.chunk',
    created: identity.createdS,
    model: identity.model,
    system_fingerprint: digest === undefined ? null : fingerprintOf(digest),
  }).slice(0, -1);
  const head = `data: ${constant},"choices":[{"index":0,"delta":`;
  const usage = includeUsage ? ',"usage":null' : '';
  const tail = `,"logprobs":null,"finish_reason":null}]${usage}}\n\n`;
  const textHead = `${head}{"content":`;
  const textTail = `}${tail}`;
  return {
    role: `${head}{"role":"assistant","content":"","refusal":null}${tail}`,
    idle: `${head}{}${tail}`,
    text: (piece) => textHead + JSON.stringify(piece) + textTail,
    end: (end, told) => {
      const provenance = provenanceOf(end, told);
      const last = `${head}{},"logprobs":null,"finish_reason":"${end.finish}"}]${usage},"helixflow":${provenance}}\n\n`;
      const usageChunk = includeUsage ? `data: ${constant},"choices":[],"usage":${usageOf(end)}}\n\n` : '';
      return `${last}${usageChunk}data: [DONE]\n\n`;
    },
  };
}
