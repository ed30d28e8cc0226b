/** Errors as people read them. */

import { describe, test } from 'vitest';
import { describeError } from '../../cli/output.ts';
import { type ErrorCode, type ErrorDetails, errorCodes, errorTable, HelixFlowError } from '../../protocol/errors.ts';

/** A detail for every placeholder of the code's sentence. */
const sample = (code: ErrorCode): HelixFlowError => {
  const names = [...errorTable[code].text.matchAll(/\{(\w+)\}/g)].map(([, name]) => [name, `<${name}>`]);
  return new HelixFlowError(code, Object.fromEntries(names) as ErrorDetails[ErrorCode]);
};

describe('an error for people', () => {
  test.each(errorCodes)('%s says what happened and what to do', (code) => {
    const lines = describeError(sample(code)).split('\n');
    const [what = '', ...rest] = lines;
    const form = rest.length === 2 ? /^ {2}why: \S.*\n {2}do: {2}\S.*$/ : /^ {2}do: {2}\S.*$/;
    if (!/^helixflow: \S.{3,} \([A-Z_]+\)$/.test(what)) throw new Error(what);
    if (!form.test(rest.join('\n'))) throw new Error(lines.join('\n'));
    for (const [, name] of errorTable[code].text.matchAll(/\{(\w+)\}/g)) {
      if (!lines.join('\n').includes(`<${name}>`)) throw new Error(`${name} is lost`);
    }
  });

  test('details with the signs that part a sentence stay whole', ({ expect }) => {
    const error = new HelixFlowError('DATA_DIR_UNUSABLE', { path: '/a; b: c', reason: 'x; y: z' });
    expect(describeError(error)).toBe(
      [
        'helixflow: the data directory /a; b: c cannot be used (DATA_DIR_UNUSABLE)',
        '  why: x; y: z',
        '  do:  fix that, or use another --data-dir',
      ].join('\n'),
    );
  });
});
