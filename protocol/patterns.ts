/** Name patterns: `*` stands for any run of characters, everything else for itself. */

/** Each `*` is tried at its nearest place first and never reconsidered once another follows: no pattern makes this slow. */
export function matchesPattern(pattern: string, name: string): boolean {
  let at = 0;
  let next = 0;
  let star = -1;
  let resume = 0;
  while (at < name.length) {
    if (pattern[next] === '*') {
      star = next;
      resume = at;
      next += 1;
    } else if (pattern[next] === name[at]) {
      next += 1;
      at += 1;
    } else if (star >= 0) {
      resume += 1;
      at = resume;
      next = star + 1;
    } else return false;
  }
  while (pattern[next] === '*') next += 1;
  return next === pattern.length;
}
