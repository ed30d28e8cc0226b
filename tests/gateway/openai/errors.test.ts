/** Every code of the table as a client sees it. */

import { test } from 'vitest';
import { errorAnswer, errorEvent } from '../../../gateway/openai/errors.ts';
import { errorCodes, errorRow, HelixFlowError } from '../../../protocol/errors.ts';

const anyError = (code: HelixFlowError['code']) => new HelixFlowError(code, {} as never);

test.for(errorCodes.map((code) => [code]))(
  '%s has OpenAI’s shape and nothing of ours but its code',
  ([code], { expect }) => {
    const { http, type, code: wireCode } = errorRow(code as HelixFlowError['code']);
    const { status, body, headers } = errorAnswer(anyError(code as HelixFlowError['code']));
    const isForClients = http !== 0;
    expect(status).toBe(isForClients ? http : 500);
    expect(JSON.parse(body)).toEqual({
      error: {
        message: expect.any(String),
        type: isForClients ? type : 'server_error',
        param: JSON.parse(body).error.param,
        code: isForClients ? wireCode : 'internal_error',
      },
    });
    expect(headers['x-helixflow-error']).toBe(isForClients ? code : 'GATEWAY_FAILED');
  },
);

test.for([
  [new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: 1_200.4 }), '2', '1201', undefined],
  [new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: 0 }), '0', '0', undefined],
  [new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: 900_000 }), '60', '60000', undefined],
  [new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: Number.NaN }), undefined, undefined, undefined],
  [new HelixFlowError('NODE_LOST', {}), undefined, undefined, undefined],
  [new HelixFlowError('STREAM_INTERRUPTED', {}), undefined, undefined, undefined],
  [new HelixFlowError('GATEWAY_FAILED', {}), undefined, undefined, 'false'],
  [new HelixFlowError('KEY_MISSING', {}), undefined, undefined, undefined],
] as const)('$0.code tells when to come back, or that it is no use', ([error, inS, inMs, should], { expect }) => {
  const { headers } = errorAnswer(error);
  expect([headers['retry-after'], headers['retry-after-ms'], headers['x-should-retry']]).toEqual([inS, inMs, should]);
});

test('an error in mid-stream is one data line', ({ expect }) => {
  const event = errorEvent(new HelixFlowError('STREAM_INTERRUPTED', {}));
  expect(event).toMatch(/^data: [^\n]*\n\n$/);
  expect(JSON.parse(event.slice(6))).toMatchObject({
    error: { type: 'server_error', code: 'stream_interrupted' },
    helixflow: { error: 'STREAM_INTERRUPTED' },
  });
});

test('the cause of an error never leaves', ({ expect }) => {
  const error = new HelixFlowError('STORE_FAILED', { reason: 'secret' }, { cause: new Error('secret') });
  expect(errorAnswer(error).body + errorEvent(error)).not.toContain('secret');
});
