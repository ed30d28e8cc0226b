/** The real tokens under the contract of `Tokens`. */

import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { tokensContract } from './tokens.ts';

tokensContract('jose', createJoseTokens);
