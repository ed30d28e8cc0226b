/** Programmer errors: conditions that hold unless our own code is wrong. */

/** Thrown by `assert`. Nobody catches it but the top of `cli/`; in the simulator it fails the seed. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

/** Stops the caller when our own code broke a promise. Never for bad input: that is a `HelixFlowError`. */
export function assert(condition: boolean, promise: string): asserts condition {
  if (!condition) throw new InvariantError(`broken promise: ${promise}`);
}
