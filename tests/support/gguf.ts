/** Writes GGUF headers, right and wrong ones, for tests. */

type Value = string | number | { readonly type: number; readonly bytes: Buffer };

/** A 64-bit little-endian count. */
export const count64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};

/** A 32-bit little-endian number. */
export const count32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};

/** A text with its length in front. */
export const text = (value: string): Buffer => Buffer.concat([count64(Buffer.byteLength(value)), Buffer.from(value)]);

function encodeValue(value: Value): Buffer {
  if (typeof value === 'string') return Buffer.concat([count32(8), text(value)]);
  if (typeof value === 'number') return Buffer.concat([count32(4), count32(value)]);
  return Buffer.concat([count32(value.type), value.bytes]);
}

export interface GgufOptions {
  readonly version?: number;
  readonly metadata?: Readonly<Record<string, Value>>;
  /** Offsets of one-element tensors within the data. */
  readonly tensorOffsets?: readonly number[];
  readonly dataBytes?: number;
}

/** A GGUF file with the given header and zeros for weights. */
export function writeGguf(options: GgufOptions = {}): Buffer {
  const { version = 3, metadata = {}, tensorOffsets = [], dataBytes = 64 } = options;
  const pairs = Object.entries(metadata).map(([key, value]) => Buffer.concat([text(key), encodeValue(value)]));
  const tensors = tensorOffsets.map((offset, index) =>
    Buffer.concat([text(`t${index}`), count32(1), count64(1), count32(0), count64(offset)]),
  );
  return Buffer.concat([
    Buffer.from('GGUF'),
    count32(version),
    count64(tensors.length),
    count64(pairs.length),
    ...pairs,
    ...tensors,
    Buffer.alloc(dataBytes),
  ]);
}
