/** Request bodies: JSON, once, bounded in bytes and in pieces. */

import type { FastifyInstance, preParsingHookHandler } from 'fastify';
import { HelixFlowError } from '../../protocol/errors.ts';

/** Each piece of a chunked body costs microseconds whatever its size, so a body of single bytes would cost minutes. */
const piecesMax = 65_536;

/** What is wrong with `body`; looked up only once it is known that something is. */
function faultOf(body: string): string {
  if (body === '') return 'is empty';
  try {
    JSON.parse(body);
    return 'has a key that is not allowed (__proto__, or constructor.prototype)';
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    const place = /position \d+/.exec(error.message);
    return place === null ? 'is not valid JSON' : `is not valid JSON at ${place[0]}`;
  }
}

const notJson = (body: string): HelixFlowError =>
  new HelixFlowError('REQUEST_MALFORMED', {
    reason: `The body of the request ${faultOf(body)}; send one JSON object in UTF-8.`,
  });

/** Makes `application/json` the only media type, and every fault of a body one of ours. */
export function acceptOnlyJson(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (request, body, done) => {
    const encoding = request.headers['content-encoding'];
    if (encoding !== undefined && encoding !== 'identity') {
      done(new HelixFlowError('MEDIA_TYPE_UNSUPPORTED', { found: `content-encoding: ${encoding.slice(0, 64)}` }));
      return;
    }
    void parse(request, body, (error, value) => {
      if (error === null) done(null, value);
      else done(notJson(body));
    });
  });
}

/** Refuses a chunked body that comes in too many pieces. */
export const boundPieces: preParsingHookHandler = (request, reply, _payload, done) => {
  const { raw } = request;
  if (raw.headers['transfer-encoding'] !== undefined) {
    let pieces = 0;
    const count = (): void => {
      pieces += 1;
      if (pieces <= piecesMax) return;
      raw.off('data', count);
      reply.send(new HelixFlowError('REQUEST_MALFORMED', { reason: 'The body comes in too many small pieces.' }));
    };
    raw.on('data', count);
  }
  done();
};
