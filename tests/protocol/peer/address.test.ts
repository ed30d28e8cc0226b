/** The address policy: what is dialled on a lan, what anywhere, and what nowhere. */

import { BlockList, isIPv6 } from 'node:net';
import { multiaddr } from '@multiformats/multiaddr';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { NetworkKind } from '../../../protocol/grants.ts';
import type { PeerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import {
  checkAddress,
  filterAddresses,
  isRelayed,
  parseRelayed,
  relayedAddress,
  sourceOf,
} from '../../../protocol/peer/address.ts';

const networks: readonly NetworkKind[] = ['lan', 'public'];
const allows = (text: string, network: NetworkKind): boolean => checkAddress(text, network).ok;

/** The text that libp2p makes of an address; undefined for what it cannot read. */
function asLibp2pWrites(text: string): string | undefined {
  try {
    return multiaddr(text).toString();
  } catch (error) {
    if (error instanceof Error) return undefined;
    throw error;
  }
}

const anywhere = [
  '/ip4/1.1.1.1/tcp/7421',
  '/ip4/223.255.255.255/tcp/1',
  '/ip4/172.32.0.1/tcp/9',
  '/ip4/100.128.0.1/tcp/9',
].concat(['/ip6/2606:4700::1111/tcp/7421', '/ip6/2a00:1450:4001:81b::200e/tcp/65535']);

const onlyLan = [
  '/ip4/127.0.0.1/tcp/7421',
  '/ip4/127.255.255.254/tcp/7421',
  '/ip4/10.0.0.1/tcp/7421',
  '/ip4/172.16.0.1/tcp/7421',
  '/ip4/172.31.255.255/tcp/7421',
  '/ip4/192.168.178.20/tcp/7421',
  '/ip4/100.64.0.1/tcp/7421',
  '/ip6/::1/tcp/7421',
  '/ip6/fd12:3456::1/tcp/7421',
  '/ip6/fc00::1/tcp/7421',
];

const nowhere = [
  // Link-local and the metadata services of clouds, plain and in disguise.
  '/ip4/169.254.0.1/tcp/80',
  '/ip4/169.254.169.254/tcp/80',
  '/ip4/100.100.100.200/tcp/80',
  '/ip4/168.63.129.16/tcp/80',
  '/ip4/192.0.0.192/tcp/80',
  '/ip6/fe80::1/tcp/80',
  '/ip6/febf::1/tcp/80',
  '/ip6/fd00:ec2::254/tcp/80',
  '/ip6/fd00:0ec2:0:0:0:0:0:0254/tcp/80',
  '/ip6/::ffff:169.254.169.254/tcp/80',
  '/ip6/::ffff:a9fe:a9fe/tcp/80',
  '/ip6/0:0:0:0:0:ffff:7f00:1/tcp/80',
  '/ip6/::ffff:0:127.0.0.1/tcp/80',
  '/ip6/::127.0.0.1/tcp/80',
  '/ip6/64:ff9b::169.254.169.254/tcp/80',
  '/ip6/64:ff9b::1.1.1.1/tcp/80',
  '/ip6/64:ff9b:1::7f00:1/tcp/80',
  '/ip6/2002:a9fe:a9fe::1/tcp/80',
  '/ip6/2001:0:1::1/tcp/80',
  // Nobody's own address.
  '/ip4/0.0.0.0/tcp/80',
  '/ip4/0.1.2.3/tcp/80',
  '/ip4/224.0.0.1/tcp/80',
  '/ip4/239.255.255.255/tcp/80',
  '/ip4/255.255.255.255/tcp/80',
  '/ip4/240.0.0.1/tcp/80',
  '/ip6/::/tcp/80',
  '/ip6/ff02::1/tcp/80',
  '/ip6/fec0::1/tcp/80',
  '/ip4/192.0.2.7/tcp/80',
  '/ip4/198.51.100.7/tcp/80',
  '/ip4/203.0.113.7/tcp/80',
  '/ip6/2001:db8::1/tcp/80',
  '/ip6/2001:20::1/tcp/80',
  '/ip6/3fff:1::1/tcp/80',
  '/ip6/100::1/tcp/80',
  '/ip6/5f00::1/tcp/80',
  '/ip6/4000::1/tcp/80',
  '/ip6/f000::1/tcp/80',
  // Other forms of the same, and other transports.
  '/dns4/localhost/tcp/80',
  '/dns/example.com/tcp/80',
  '/dnsaddr/example.com',
  '/ip4/1.1.1.1/udp/80',
  '/ip4/1.1.1.1/tcp/80/ws',
  '/ip4/1.1.1.1/tcp/80/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf',
  '/ip4/1.1.1.1/udp/80/quic-v1',
  '/unix/tmp/x',
  '/ip6zone/eth0/ip6/fe80::1/tcp/80',
  '/ip6/fe80::1%eth0/tcp/80',
  // Not addresses.
  '',
  '/',
  '1.1.1.1:80',
  'ip4/1.1.1.1/tcp/80',
  '/ip4/1.1.1.1/tcp/80/',
  '/ip4/1.1.1.1/tcp/0',
  '/ip4/1.1.1.1/tcp/65536',
  '/ip4/1.1.1.1/tcp/080',
  '/ip4/1.1.1.1/tcp/-1',
  '/ip4/1.1.1.1/tcp/',
  '/ip4/1.1.1.1',
  '/ip4/1.1.1/tcp/80',
  '/ip4/0x7f.0.0.1/tcp/80',
  '/ip4/0177.0.0.1/tcp/80',
  '/ip4/2130706433/tcp/80',
  '/ip4/256.1.1.1/tcp/80',
  '/ip4/1.1.1.1.1/tcp/80',
  '/ip6/1::2::3/tcp/80',
  '/ip6/1:2:3:4:5:6:7/tcp/80',
  '/ip6/1:2:3:4:5:6:7:8:9/tcp/80',
  '/ip6/12345::/tcp/80',
  '/ip6/1.2.3.4::1/tcp/80',
  '/ip6/2606:1.1.1.1:1::/tcp/80',
  '/ip6/1:2:3:4::5:6:7:8/tcp/80',
  `/ip6/${'0'.repeat(limits.addressMaxChars)}::1/tcp/80`,
];

describe('the address policy', () => {
  test('allows public addresses in every mesh', ({ expect }) => {
    expect(anywhere.filter((text) => !networks.every((network) => allows(text, network)))).toEqual([]);
  });

  test('allows loopback and private addresses on a lan only', ({ expect }) => {
    expect(onlyLan.filter((text) => !allows(text, 'lan') || allows(text, 'public'))).toEqual([]);
  });

  test('allows nothing else, with a reason', ({ expect }) => {
    const verdicts = nowhere.flatMap((text) => networks.map((network) => [text, checkAddress(text, network)] as const));
    expect(verdicts.filter(([, verdict]) => verdict.ok || verdict.reason === '')).toEqual([]);
  });

  test('judges an address as libp2p writes it like the text it came from', ({ expect }) => {
    for (const text of [...anywhere, ...onlyLan]) {
      for (const network of networks) expect(allows(multiaddr(text).toString(), network)).toBe(allows(text, network));
    }
    // Where only the text is at fault, libp2p's is right.
    const wrong = nowhere.filter((text) => !text.startsWith('/ip4/1.1.1.1'));
    const rewritten = wrong.map(asLibp2pWrites).filter((text) => text !== undefined);
    expect(rewritten.length).toBeGreaterThan(20);
    expect(rewritten.filter((text) => networks.some((network) => allows(text, network)))).toEqual([]);
  });

  test('never allows an IPv4 address in any IPv6 disguise', ({ expect }) => {
    const disguise = fc.constantFrom('::ffff:', '::', '64:ff9b::', '::ffff:0:');
    fc.assert(
      fc.property(disguise, fc.ipV4(), fc.constantFrom(...networks), (prefix, ip, network) => {
        expect(allows(`/ip6/${prefix}${ip}/tcp/80`, network)).toBe(false);
      }),
    );
  });

  test('agrees with lists of the system that nobody here wrote, next to their borders most of all', ({ expect }) => {
    const nets4 = ['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12'].concat(
      ['192.0.0.0/24', '192.0.2.0/24', '192.168.0.0/16', '198.18.0.0/15', '198.51.100.0/24', '203.0.113.0/24'],
      ['224.0.0.0/3', '168.63.129.16/32', '192.88.99.0/24'],
    );
    const nets6 = ['::/3', '4000::/2', '8000::/1', '2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20'];
    // One list each: a list of Node's looks for IPv4 addresses among IPv6 ones, too.
    const listOf = (nets: readonly string[], family: 'ipv4' | 'ipv6'): BlockList => {
      const list = new BlockList();
      for (const net of nets) list.addSubnet(net.split('/')[0] ?? '', Number(net.split('/')[1]), family);
      return list;
    };
    const [special4, special6] = [listOf(nets4, 'ipv4'), listOf(nets6, 'ipv6')];
    const near4 = fc
      .tuple(fc.constantFrom(...nets4), fc.integer({ min: -3, max: 3 }), fc.boolean())
      .map(([net, by, end]) => {
        const [text = '', bits = ''] = net.split('/');
        const start = text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
        const at = (start + (end ? 2 ** (32 - Number(bits)) : 0) + by + 2 ** 32) % 2 ** 32;
        return [24, 16, 8, 0].map((shift) => Math.floor(at / 2 ** shift) % 256).join('.');
      });
    fc.assert(
      fc.property(fc.oneof(near4, fc.ipV4()), (ip) => {
        expect(allows(`/ip4/${ip}/tcp/80`, 'public'), ip).toBe(!special4.check(ip, 'ipv4'));
      }),
      { numRuns: 2_000 },
    );
    const near6 = fc.tuple(fc.constantFrom(...nets6), fc.ipV6()).map(([net, other]) => {
      const [head = ''] = net.split('::');
      const tail = asLibp2pWrites(`/ip6/${other}/tcp/80`)?.split('/')[2] ?? '::1';
      const rest = tail
        .split(':')
        .filter((part) => part !== '')
        .slice(-4)
        .join(':');
      return `${head}::${rest}`;
    });
    fc.assert(
      fc.property(fc.oneof(near6, fc.ipV6()), (ip) => {
        fc.pre(isIPv6(ip));
        expect(allows(`/ip6/${ip}/tcp/80`, 'public'), ip).toBe(!special6.check(ip, 'ipv6'));
      }),
      { numRuns: 2_000 },
    );
  });

  test('allows in public only what it allows on a lan', ({ expect }) => {
    const address = fc.oneof(
      fc.ipV4().map((ip) => `/ip4/${ip}/tcp/80`),
      fc.ipV6().map((ip) => `/ip6/${ip}/tcp/80`),
      fc.string(),
      fc.string().map((text) => `/ip4/${text}/tcp/80`),
    );
    fc.assert(
      fc.property(address, (text) => {
        expect(allows(text, 'public') && !allows(text, 'lan')).toBe(false);
      }),
    );
  });

  test('keeps the first few distinct ones of a list, in its order', ({ expect }) => {
    const list = ['/dns4/a/tcp/1', ...onlyLan, ...onlyLan, ...anywhere];
    expect(filterAddresses(list, 'lan')).toEqual(onlyLan.slice(0, limits.peerAddressesMax));
    expect(filterAddresses([...list, ...list], 'public')).toEqual(anywhere.slice(0, limits.peerAddressesMax));
    expect(filterAddresses(['/ip4/1.1.1.1/tcp/1', '/ip4/1.1.1.1/tcp/1'], 'lan')).toEqual(['/ip4/1.1.1.1/tcp/1']);
    expect(filterAddresses([], 'lan')).toEqual([]);
  });
});

describe('where a connection comes from', () => {
  test('is an IPv4 address, in IPv6 too, or the network of an IPv6 host', ({ expect }) => {
    expect(sourceOf('203.0.113.9')).toBe('203.0.113.9');
    for (const mapped of ['::ffff:203.0.113.9', '::ffff:cb00:7109', '0:0:0:0:0:ffff:cb00:7109']) {
      expect(sourceOf(mapped)).toBe('203.0.113.9');
    }
    expect(sourceOf('2001:db8:1:2::1')).toBe('20010db800010002/64');
    expect(sourceOf('2001:db8:1:2:ffff:ffff:ffff:ffff')).toBe(sourceOf('2001:db8:1:2::1'));
    expect(sourceOf('2001:db8:1:3::1')).not.toBe(sourceOf('2001:db8:1:2::1'));
    expect(sourceOf('fe80::1%eth0')).toBe(sourceOf('fe80::2'));
    expect([sourceOf(''), sourceOf('what')]).toEqual(['', 'what']);
  });
});

describe('an address through a relay', () => {
  const relay = '12D3KooWSNhyUEmycmZ1aCFWWCXSJ4cBinm8bdMjZDYaYsoZfk3X' as PeerId;
  const through = (address: string): string => relayedAddress({ relay, address });

  test('may be dialled where the relay may, and is read as libp2p writes it', ({ expect }) => {
    for (const network of networks) {
      for (const address of [...anywhere, ...onlyLan, ...nowhere]) {
        expect([address, allows(through(address), network)]).toEqual([address, allows(address, network)]);
      }
    }
    const text = through('/ip4/1.1.1.1/tcp/7421');
    expect([asLibp2pWrites(text), parseRelayed(text)]).toEqual([text, { relay, address: '/ip4/1.1.1.1/tcp/7421' }]);
  });

  test('is of exactly this form: one relay, named by its id, and nothing behind it', ({ expect }) => {
    const address = '/ip4/1.1.1.1/tcp/7421';
    const wrong = [
      '/p2p-circuit',
      `${address}/p2p-circuit`,
      `/p2p/${relay}/p2p-circuit`,
      `${address}/p2p//p2p-circuit`,
      `${address}/p2p/nobody/p2p-circuit`,
      `${through(address)}/p2p/${relay}`,
      `${through(address)}/p2p/${relay}/p2p-circuit`,
      `${through(through(address))}`,
      `${through(address)}/p2p-circuit`,
      `${address}/p2p/${relay}/p2p/${relay}/p2p-circuit`,
      `${address}/ws/p2p/${relay}/p2p-circuit`,
      `${through(address)}/`,
      ` ${through(address)}`,
    ];
    for (const text of wrong) expect([text, allows(text, 'lan'), isRelayed(text)]).toEqual([text, false, true]);
    expect([allows(`${address}/p2p/${relay}`, 'lan'), isRelayed(address)]).toEqual([false, false]);
  });

  test('is never read out of anything that is not one', ({ expect }) => {
    const part = fc.constantFrom('/ip4/1.1.1.1/tcp/1', '/p2p/', relay, '/p2p-circuit', '/', 'x', '/tcp/2');
    fc.assert(
      fc.property(fc.array(part, { maxLength: 8 }), (parts) => {
        const text = parts.join('');
        const parsed = parseRelayed(text);
        if (parsed !== undefined) expect(relayedAddress(parsed)).toBe(text);
        if (allows(text, 'lan')) expect([1, 2]).toContain(text.split('/p2p').length - (isRelayed(text) ? 1 : 0));
      }),
      { numRuns: 2_000 },
    );
  });
});
