/** Numbers that carry their unit in the type, at no cost at run time. */

type Unit<Name extends string> = number & { readonly unit: Name };

/** A length of time in milliseconds; may have a fraction. */
export type Ms = Unit<'ms'>;
/** A moment: whole milliseconds since the Unix epoch. */
export type UnixMs = Unit<'unix-ms'>;

/** Brands a plain number as milliseconds. */
export const ms = (value: number): Ms => value as Ms;
/** Brands `value` seconds as milliseconds. */
export const seconds = (value: number): Ms => (value * 1_000) as Ms;
/** Brands a plain number as a Unix moment. */
export const unixMs = (value: number): UnixMs => value as UnixMs;
/** A day of UTC: the ledger knows no leap seconds. */
export const dayMs: Ms = 86_400_000 as Ms;
