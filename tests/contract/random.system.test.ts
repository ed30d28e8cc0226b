/** The operating system's chance under the contract. */

import { systemRandom } from '../../protocol/adapters/random.ts';
import { randomContract } from './random.ts';

randomContract('the system’s chance', systemRandom);
