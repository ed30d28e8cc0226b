/** The key in a request's headers. */

import fc from 'fast-check';
import { test } from 'vitest';
import { bearerOf } from '../../../gateway/http/auth.ts';

test('a key is found exactly where the grammar of the header has it', ({ expect }) => {
  const grammar = /^bearer +(\S+) *$/i;
  const scheme = fc.constantFrom('Bearer', 'bearer', 'BEARER', 'bEaReR', 'Basic', 'Bearer:', 'ſearer', '');
  const text = fc.oneof(fc.string({ unit: fc.constantFrom('a', ' ', '\t', '\u00a0', '.', 'ÿ', '\n') }), fc.string());
  fc.assert(
    fc.property(scheme, fc.constantFrom('', ' ', '   ', '\t'), text, (name, gap, rest) => {
      const header = `${name}${gap}${rest}`;
      expect(bearerOf(header)).toBe(grammar.exec(header)?.[1]);
    }),
    { numRuns: 2_000 },
  );
});
