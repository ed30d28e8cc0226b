/** The child process of the llama engine: files it refuses, its death, and that of its parent. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, describe, test } from 'vitest';
import { embeddedModel } from '../../../../node/engines/embedded.ts';
import { ask, failureOf, openEmbedded } from './fixture.ts';
import { childrenOf, isAlive, until } from './processes.ts';

const folder = mkdtempSync(join(tmpdir(), 'helixflow-llama-'));
afterAll(() => rmSync(folder, { recursive: true }));
const embedded = readFileSync(embeddedModel.path);

/** Children that were not there before. */
function watchChildren(): () => number[] {
  const before = new Set(childrenOf(process.pid));
  return () => childrenOf(process.pid).filter((pid) => !before.has(pid));
}

describe('a file that cannot be served', () => {
  const refuse = async (name: string, bytes: Uint8Array) => {
    const modelPath = join(folder, name);
    writeFileSync(modelPath, bytes);
    return await failureOf(openEmbedded({ modelPath }));
  };

  test('is refused when it is no GGUF file, before anything is started', async ({ expect }) => {
    const children = watchChildren();
    expect(await refuse('a.gguf', Buffer.from('not a model at all, whatever its name says'))).toMatchObject({
      code: 'MODEL_FILE_INVALID',
    });
    expect(children()).toEqual([]);
  });

  test('is refused with llama.cpp’s reason when its weights are cut short', async ({ expect }) => {
    const failure = await refuse('b.gguf', embedded.subarray(0, embedded.length - 1_000));
    expect(failure).toMatchObject({ code: 'MODEL_FILE_INVALID' });
    expect(failure?.reason).toMatch(/llama\.cpp cannot load it: .*within the file bounds/);
  });

  test('is refused when its chat template does not render', async ({ expect }) => {
    const bytes = Buffer.from(embedded);
    const at = bytes.indexOf('{%- if tools %}');
    bytes.write('{%- if toolsX}}', at);
    expect(await refuse('c.gguf', bytes)).toMatchObject({
      code: 'MODEL_FILE_INVALID',
      reason: expect.stringMatching(/chat template/),
    });
  });

  test('leaves no process behind', async ({ expect }) => {
    const children = watchChildren();
    await refuse('d.gguf', embedded.subarray(0, 2_000_000));
    expect(children()).toEqual([]);
  });
});

describe('the digest', () => {
  test('follows the weights, not the name; hashes are remembered for unchanged files', async ({ expect }) => {
    const digestCachePath = join(folder, 'digests.json');
    const modelPath = join(folder, 'copy.gguf');
    writeFileSync(modelPath, embedded);
    const open = async (): Promise<string | undefined> => {
      await using engine = await openEmbedded({ modelPath, name: 'other', digestCachePath });
      return engine.models()[0]?.digest;
    };
    await using original = await openEmbedded();
    const digest = await open();
    expect(digest).toBe(original.models()[0]?.digest);
    const cache = JSON.parse(readFileSync(digestCachePath, 'utf8'));
    expect(cache).toMatchObject({ format: 1, files: [{ path: modelPath, bytes: embedded.length }] });

    cache.files[0].sha256 = '0'.repeat(64);
    writeFileSync(digestCachePath, JSON.stringify(cache));
    expect(await open()).not.toBe(digest);
    utimesSync(modelPath, new Date(), new Date(1_000));
    expect(await open()).toBe(digest);
    writeFileSync(digestCachePath, 'not JSON');
    expect(await open()).toBe(digest);
  });
});

describe('the child process', () => {
  test('is started again when it is killed; what it had under way fails', async ({ expect }) => {
    const children = watchChildren();
    await using engine = await openEmbedded();
    const changes: number[] = [];
    engine.onChange(() => changes.push(engine.models().length));
    const [pid = 0] = children();
    const answer = failureOf(
      engine.generate(
        { model: 'helix-tiny', chat: { messages: [{ role: 'user', content: 'Count from 1 to 10' }] } },
        () => {
          if (isAlive(pid)) process.kill(pid, 'SIGKILL');
          return new Promise(() => {});
        },
        new AbortController().signal,
      ),
    );
    expect(await answer).toMatchObject({ code: 'ENGINE_FAILED', reason: expect.stringMatching(/SIGKILL/) });
    expect(engine.models()).toEqual([]);
    expect(engine.stats().active).toBe(0);
    expect(await failureOf(ask(engine, 'hi'))).toMatchObject({ code: 'NODE_MODEL_MISSING' });
    await until(() => engine.models().length === 1);
    expect(changes).toEqual([0, 1]);
    expect((await ask(engine, 'What is 2 + 2?', { temperature: 0 })).text).toMatch(/4/);
    expect(children()).not.toContain(pid);
  });

  test('is gone when the engine is closed, which ends what is under way', async ({ expect }) => {
    const children = watchChildren();
    const engine = await openEmbedded();
    const other = await openEmbedded();
    expect(children().length).toBe(2);
    const running = failureOf(ask(engine, 'Write a poem about the ocean.'));
    await engine.close();
    expect(await running).toMatchObject({ code: 'ENGINE_FAILED' });
    expect(children().length).toBe(1);
    await engine.close();
    expect((await ask(other, 'hi', { maxTokens: 2 })).text).not.toBe('');
    await other.close();
    expect(children()).toEqual([]);
  });

  test('does not outlive a parent that is killed, even when it is busy', async ({ expect }) => {
    const script = fileURLToPath(new URL('./parent.ts', import.meta.url));
    const parent = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(parent.stdout, 'data');
    const pid = Number(String(line));
    expect(isAlive(pid)).toBe(true);
    parent.kill('SIGKILL');
    await until(() => !isAlive(pid));
  });

  test('does not end with the signals that its whole group gets', async ({ expect }) => {
    const children = watchChildren();
    await using engine = await openEmbedded();
    const [pid = 0] = children();
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(pid, signal);
    expect((await ask(engine, 'hi', { maxTokens: 2 })).done.completionTokens).toBeGreaterThan(0);
    expect(children()).toEqual([pid]);
  });

  test('is not there without node-llama-cpp, which is said', async ({ expect }) => {
    const root = resolve(import.meta.dirname, '../../../..');
    const copy = join(folder, 'bare');
    mkdirSync(join(copy, 'node_modules/@huggingface'), { recursive: true });
    for (const name of ['node', 'protocol', 'package.json'])
      cpSync(join(root, name), join(copy, name), { recursive: true });
    for (const name of ['@huggingface/jinja', 'zod', 'pino']) {
      symlinkSync(join(root, 'node_modules', name), join(copy, 'node_modules', name));
    }
    const code = `
      const { openLlamaEngine } = await import(${JSON.stringify(String(pathToFileURL(join(copy, 'node/engines/llama/engine.ts'))))});
      const { systemClock } = await import(${JSON.stringify(String(pathToFileURL(join(copy, 'protocol/adapters/clock.ts'))))});
      const log = { with: () => log };
      const failure = await openLlamaEngine({ clock: systemClock(), log }, { modelPath: ${JSON.stringify(embeddedModel.path)} }).catch((error) => error);
      process.stdout.write(failure.code);`;
    const bare = spawn(process.execPath, ['--input-type=module', '--eval', code], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    for await (const piece of bare.stdout) said += String(piece);
    expect(said).toBe('ENGINE_MISSING');
  });
});
