/** Tables for people, and lists that come in pieces. */

/** A number with its word. @param word Of which the plural ends in s. */
export const counted = (number: number, word: string): string => `${number} ${word}${number === 1 ? '' : 's'}`;

/** Of each column the most characters; of any number of rows. */
export const widthsOf = (columnCount: number, rows: readonly (readonly string[])[]): number[] =>
  Array.from({ length: columnCount }, (_, column) =>
    rows.reduce((most, row) => Math.max(most, row[column]?.length ?? 0), 0),
  );

/** Rows in columns; nothing that somebody else wrote can steer a terminal, since `Output` prints each line cleaned. */
export function columns(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = widthsOf(head.length, all);
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** A moment for people, in seconds; `never` for none. */
export const moment = (ms: number | undefined): string =>
  ms === undefined ? 'never' : new Date(ms).toISOString().replace(/\.\d{3}Z$/, 'Z');

/** As JSON has it; undefined fields are left out there. */
export const isoOf = (ms: number | undefined): string | undefined =>
  ms === undefined ? undefined : new Date(ms).toISOString();

interface Piece<Row> {
  readonly data: readonly Row[];
  readonly hasMore: boolean;
}

/** All rows of a list. @param ask For the piece after an id; `idOf` is what the list is sorted by. */
export async function listAll<Row>(
  ask: (page: { readonly after?: string }) => Promise<Piece<Row>>,
  idOf: (row: Row) => string,
): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (let page: { readonly after?: string } = {}; ; ) {
    const { data, hasMore } = await ask(page);
    rows.push(...data);
    const last = data.at(-1);
    if (!hasMore || last === undefined) return rows;
    page = { after: idOf(last) };
  }
}
