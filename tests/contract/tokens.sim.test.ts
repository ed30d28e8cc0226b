/** Simulated tokens, signed and merely hashed, under the contract. */

import { createSimTokens } from '../../sim/tokens.ts';
import { tokensContract } from './tokens.ts';

tokensContract('simulated tokens', () => createSimTokens({ mode: 'real' }));
tokensContract('simulated tokens for thousands of peers', () => createSimTokens({ mode: 'fast' }));
