/** Seeded chance under the contract, and what makes it a seeded one. */

import { describe, test } from 'vitest';
import { SimRandom } from '../../sim/random.ts';
import { randomContract } from './random.ts';

randomContract('seeded chance', () => new SimRandom('7'));

const draws = (random: SimRandom): number[] => Array.from({ length: 20 }, () => random.int(1_000_000));

describe('seeded chance', () => {
  test('is the same for the same seed, and another for another', ({ expect }) => {
    expect(draws(new SimRandom('1'))).toEqual(draws(new SimRandom('1')));
    expect(draws(new SimRandom('1'))).not.toEqual(draws(new SimRandom('2')));
  });

  test('a fork does not depend on what was drawn before it', ({ expect }) => {
    const plain = new SimRandom('1');
    const busy = new SimRandom('1');
    draws(busy);
    draws(busy.fork('other'));
    expect(draws(busy.fork('a').fork('b'))).toEqual(draws(plain.fork('a').fork('b')));
  });

  test('a fork does not change what is drawn after it', ({ expect }) => {
    const plain = new SimRandom('1');
    const forked = new SimRandom('1');
    forked.fork('a');
    expect(draws(forked)).toEqual(draws(plain));
  });
});
