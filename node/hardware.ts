/** What this machine computes with, in a line for people; engines find out for themselves what they can use. */

import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';

const lineMaxChars = 256;
const probeTimeoutMs = 2_000;
const drmCardsMax = 8;
const nvidiaTool = 'nvidia-smi';

/** `NVIDIA H200 (140 GiB)` for each GPU that the driver's own tool lists; none without that tool. */
function listNvidia(): Promise<string[]> {
  const args = ['--query-gpu=name,memory.total', '--format=csv,noheader,nounits'];
  return new Promise((resolve) => {
    execFile(nvidiaTool, args, { timeout: probeTimeoutMs, windowsHide: true }, (error, stdout) => {
      const lines = error === null ? stdout.split('\n').filter((line) => line.includes(',')) : [];
      resolve(
        lines.map((line) => {
          const [name = '', mebibytes = ''] = line.split(',').map((cell) => cell.trim());
          return `${name} (${Math.round(Number(mebibytes) / 1_024)} GiB)`;
        }),
      );
    });
  });
}

async function readLine(path: string): Promise<string> {
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch (error) {
    if (error instanceof Error && 'code' in error) return '';
    throw error;
  }
}

/** AMD's driver names its cards in sysfs. */
async function listAmd(): Promise<string[]> {
  const cards = Array.from({ length: drmCardsMax }, (_, card) => `/sys/class/drm/card${card}/device`);
  const names = await Promise.all(
    cards.map(async (card) => {
      if ((await readLine(`${card}/vendor`)) !== '0x1002') return '';
      return (await readLine(`${card}/product_name`)) || 'AMD GPU';
    }),
  );
  return names.filter((name) => name !== '');
}

/** `2 × NVIDIA H200 (140 GiB)` for equal ones. */
function countEqual(names: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].map(([name, count]) => (count === 1 ? name : `${count} × ${name}`));
}

/** `CPU, 2 cores`, with the GPUs in front where some are found; at most 256 characters of printable ASCII and `×`. */
export async function describeHardware(): Promise<string> {
  const [nvidia, amd] = await Promise.all([listNvidia(), listAmd()]);
  const cores = availableParallelism();
  const chip = /^Apple /.test(cpus()[0]?.model ?? '') ? (cpus()[0]?.model ?? 'CPU') : 'CPU';
  const cpu = `${chip}, ${cores} ${cores === 1 ? 'core' : 'cores'}`;
  const line = [...countEqual([...nvidia, ...amd]), cpu].join('; ').replace(/[^\x20-\x7e×]/g, '');
  return line.length <= lineMaxChars ? line : `${line.slice(0, lineMaxChars - 1 - cpu.length)} ${cpu}`;
}
