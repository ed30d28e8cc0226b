/** Questions at the terminal whose answers are not shown. */

import { StringDecoder } from 'node:string_decoder';

/** What a terminal's input has, and a pipe lacks. */
export interface TerminalInput {
  readonly isTTY?: boolean;
  setRawMode?(raw: boolean): unknown;
  on(event: 'data', listener: (chunk: Buffer) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
  off(event: 'data', listener: (chunk: Buffer) => void): unknown;
  off(event: 'end', listener: () => void): unknown;
  resume(): unknown;
  pause(): unknown;
}

const answerMaxChars = 1_024;
const [interrupt, endOfText, backspace, deleted] = ['\u0003', '\u0004', '\u0008', '\u007f'];

/** A line without its last character, as people count characters. */
const shortened = (line: string): string => [...line].slice(0, -1).join('');

/**
 * Asks, and reads one line without showing it.
 * @returns undefined where `input` is no terminal, or ends before the line does.
 */
export function askUnseen(
  input: TerminalInput,
  output: { write(text: string): unknown },
  question: string,
): Promise<string | undefined> {
  if (input.isTTY !== true || input.setRawMode === undefined) return Promise.resolve(undefined);
  output.write(question);
  input.setRawMode(true);
  const decoder = new StringDecoder('utf8');
  let line = '';
  return new Promise((resolve) => {
    const settle = (answer: string | undefined): void => {
      input.off('data', take);
      input.off('end', ended);
      input.setRawMode?.(false);
      input.pause();
      output.write('\n');
      resolve(answer);
    };
    const ended = (): void => settle(undefined);
    /** False when the line has ended. */
    const put = (character: string): boolean => {
      if (character === '\r' || character === '\n') settle(line);
      else if (character === endOfText) settle(line === '' ? undefined : line);
      else if (character === interrupt) {
        settle(undefined);
        // Raw mode keeps the signal from us; whoever pressed Ctrl-C means it.
        process.kill(process.pid, 'SIGINT');
      } else {
        if (character === backspace || character === deleted) line = shortened(line);
        else if (line.length < answerMaxChars) line += character;
        return true;
      }
      return false;
    };
    const take = (chunk: Buffer): void => {
      for (const character of decoder.write(chunk)) if (!put(character)) break;
    };
    input.on('data', take);
    input.on('end', ended);
    input.resume();
  });
}
