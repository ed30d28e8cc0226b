/** The error table: every row makes sense on every surface, and errors are told apart by code. */

import { describe, test } from 'vitest';
import { type ErrorRow, errorTable } from '../../protocol/error-table.ts';
import {
  type ErrorCode,
  type ErrorDetails,
  errorCodes,
  errorRow,
  errorText,
  HelixFlowError,
  isErrorCode,
  isHelixFlowError,
  toHelixFlowError,
} from '../../protocol/errors.ts';
import { InvariantError } from '../../protocol/invariant.ts';

const rows = Object.entries<ErrorRow>(errorTable);
const faults = (check: (row: ErrorRow, code: string) => boolean): string[] =>
  rows.filter(([code, row]) => !check(row, code)).map(([code]) => code);

describe('the table', () => {
  test('names codes AREA_WHAT', ({ expect }) => {
    expect(faults((_, code) => /^[A-Z]+(_[A-Z0-9]+)+$/.test(code))).toEqual([]);
  });

  test('answers clients with a status of theirs or ours, or not at all', ({ expect }) => {
    expect(faults(({ http }) => http === 0 || (http >= 400 && http <= 599))).toEqual([]);
  });

  test('calls what a client did wrong a fault of the client, and never tries it again', ({ expect }) => {
    expect(faults(({ http, type }) => http < 400 || http > 498 || type !== 'server_error')).toEqual([]);
    expect(faults(({ http, retry }) => http < 400 || http > 428 || http === 408 || retry === 'never')).toEqual([]);
    expect(faults(({ http, type }) => http < 500 || type === 'server_error')).toEqual([]);
  });

  test('fills every sentence from the details that its code has', ({ expect }) => {
    expect(faults(({ text }) => text.length > 0 && /^[^{}]*(\{\w+\}[^{}]*)*$/.test(text))).toEqual([]);
  });

  test('is frozen in its names: no two codes share their text', ({ expect }) => {
    const texts = rows.map(([, { text }]) => text).filter((text) => text !== '{reason}');
    expect(new Set(texts).size).toBe(texts.length);
  });
});

describe('errorText', () => {
  test('fills in details', ({ expect }) => {
    expect(errorText('MODEL_NOT_FOUND', { model: 'x' })).toContain("'x'");
  });

  test('shows a gap for what a peer left out, and takes nothing from a prototype', ({ expect }) => {
    const empty = {} as ErrorDetails['PROTOCOL_VIOLATION'];
    expect(errorText('PROTOCOL_VIOLATION', empty)).toBe('the peer broke the protocol: ?');
  });

  test('does not fill in what a detail itself contains', ({ expect }) => {
    expect(errorText('PORT_IN_USE', { host: '{port}', port: 1, option: '--port' })).toContain('on {port} is');
  });
});

describe('HelixFlowError', () => {
  test('carries code, details and cause', ({ expect }) => {
    const cause = new Error('disk');
    const error = new HelixFlowError('STORE_FAILED', { reason: 'disk full' }, { cause });
    expect(error).toMatchObject({
      name: 'HelixFlowError',
      code: 'STORE_FAILED',
      details: { reason: 'disk full' },
      cause,
    });
    expect(error.message).toBe('STORE_FAILED: the store failed: disk full');
  });

  test('is told apart by its code', ({ expect }) => {
    const error: unknown = new HelixFlowError('NODE_LOST', {});
    expect(isHelixFlowError(error)).toBe(true);
    expect(isHelixFlowError(error, 'NODE_LOST')).toBe(true);
    expect(isHelixFlowError(error, 'KEY_INVALID')).toBe(false);
    expect(isHelixFlowError({ name: 'HelixFlowError', code: 'NODE_LOST' })).toBe(false);
  });

  test('knows its codes, and no other name', ({ expect }) => {
    expect(errorCodes.every(isErrorCode)).toBe(true);
    for (const other of ['', 'toString', '__proto__', 'node_lost', 7, null]) expect(isErrorCode(other)).toBe(false);
    expect(errorCodes.map((code: ErrorCode) => errorRow(code))).toEqual(rows.map(([, row]) => row));
  });
});

describe('toHelixFlowError', () => {
  const fallback = (cause: unknown) => new HelixFlowError('GATEWAY_FAILED', {}, { cause });

  test('keeps ours, and wraps anything else', ({ expect }) => {
    const ours = new HelixFlowError('NODE_LOST', {});
    expect(toHelixFlowError(ours, fallback)).toBe(ours);
    for (const other of [new Error('x'), 'x', undefined, null]) {
      expect(toHelixFlowError(other, fallback)).toMatchObject({ code: 'GATEWAY_FAILED', cause: other });
    }
  });

  test('lets a broken promise of our own code through', ({ expect }) => {
    const broken = new InvariantError('x');
    expect(() => toHelixFlowError(broken, fallback)).toThrow(broken);
  });
});
