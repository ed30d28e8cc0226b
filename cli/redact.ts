/** Keys, invites and other long values as messages may show them: their beginning. */

/** Where a key, an invite or a handover's line begins inside a text, and any other signed token. */
const secrets = /(?<![a-z\d])(?:(?:sk-|hx-invite-|hx-handover-)[^\s'",;…]{7,}|eyJ[\w-]+\.[\w-]+\.[\w-]+)/gi;
const valueMaxChars = 80;
const shownChars = 12;

const beginning = (text: string): string =>
  text.length <= shownChars ? text : `${[...text].slice(0, shownChars).join('')}…`;

/** `text` with the beginnings of the secrets in it. */
export const redact = (text: string): string => text.replaceAll(secrets, beginning);

/** A value that somebody gave: like `redact`, and of a long one its beginning, whatever it is. */
export const redactValue = (value: string): string => (value.length > valueMaxChars ? beginning(value) : redact(value));
