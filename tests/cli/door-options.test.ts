/** What an operator says of the HTTP door is what the door gets. */

import { describe, test } from 'vitest';
import { readConfig } from '../../cli/config/read.ts';
import { gatewayOptions } from '../../cli/config/tables.ts';
import { doorOptions } from '../../cli/door-options.ts';
import { gatewayAppDefaults } from '../../gateway/http/options.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';

const read = (flags: Record<string, unknown>) => readConfig(gatewayOptions, { flags, env: {}, file: undefined });

test('without a word, no page may call and idle streams send comments', ({ expect }) => {
  expect(doorOptions(read({}))).toEqual(gatewayAppDefaults);
});

test('pages, the sign of life and what is told of nodes are taken over', ({ expect }) => {
  const origins = ['https://chat.example.com', 'http://localhost:3000', 'app://obsidian.md', 'http://[::1]:8080'];
  const flags = { corsOrigin: origins, sseKeepalive: 'chunk', provenance: 'off' };
  const wanted = { ...gatewayAppDefaults, pageOrigins: origins, keepAlive: 'chunk', tellsProvenance: false };
  expect(doorOptions(read(flags))).toEqual(wanted);
  expect(doorOptions(read({ corsOrigin: ['*'] })).pageOrigins).toEqual(['*']);
});

describe('an origin that no browser sends is refused', () => {
  test.for([
    'chat.example.com',
    'https://chat.example.com/',
    'https://chat.example.com/app',
    'https://Chat.example.com',
    'https://chat.example.com:443',
    'https://*.example.com',
    'https://a b',
    'null',
    '',
  ])('%s', (origin, { expect }) => {
    const attempt = (): unknown => {
      try {
        return read({ corsOrigin: [origin] });
      } catch (error) {
        return isHelixFlowError(error) ? error.code : error;
      }
    };
    expect(attempt()).toBe('CONFIG_INVALID');
  });
});
