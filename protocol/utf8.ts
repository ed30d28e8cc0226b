/** Text as bytes, counted without encoding it. */

/** Bytes of `text` in UTF-8; a lone surrogate counts as the character that replaces it. */
export function utf8Length(text: string): number {
  let bytes = 0;
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit < 0x80) bytes += 1;
    else if (unit < 0x800) bytes += 2;
    else {
      const isPair = unit >= 0xd800 && unit <= 0xdbff && (text.charCodeAt(at + 1) & 0xfc00) === 0xdc00;
      bytes += isPair ? 4 : 3;
      if (isPair) at += 1;
    }
  }
  return bytes;
}
