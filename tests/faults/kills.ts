/**
 * `bun run kills`: kills programs with SIGKILL at moments that the seed chooses, half of them at a
 * call that writes, renames or flushes a file: downloads, the extraction of a binary's files,
 * images and latents, a server with its jobs. No file may look whole that is not, and no job may be
 * lost.
 *
 *     bun run kills                        200 kills
 *     bun run kills --count 20 --seed 7    fewer
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { writeGoldenModel } from "../../src/bench/support/golden-model.ts";
import { Random } from "../fuzz/random.ts";
import { killServers } from "./kill-servers.ts";
import { extraction, longSample, type Program, pulling, sample } from "./programs.ts";
import { commandOf, ended, filesIn } from "./run.ts";
import { noToolsReason } from "./tools.ts";

/** Kills between two runs that go to their end, in one folder. */
const killsInRow = 5;
const calls = ["open", "write", "sync", "rename", "mkdir"];

const { values } = parseArgs({
  options: { count: { type: "string", default: "200" }, seed: { type: "string", default: "1" } },
});
writeGoldenModel();
const random = new Random(Number(values.seed));
process.exitCode = await killAll(Number(values.count));

async function killAll(count: number): Promise<number> {
  const noTools = await noToolsReason();
  if (noTools !== null) throw new Error(noTools);
  const pull = await pulling();
  // The whole file is then sent over half a second, in which most moments are.
  pull.hub.fault = ({ isCdn }) => (isCdn && random.once(4) ? { cutAfter: 900_000 } : undefined);
  const share = (part: number) => Math.ceil(count * part);
  const parts: [string, number, (kills: number) => Promise<string[]>][] = [
    ["downloads", share(0.25), (kills) => killProgram(pull, kills)],
    ["extraction", share(0.2), (kills) => killProgram(extraction, kills)],
    ["images", share(0.15), (kills) => killProgram(sample, kills)],
    ["images of many steps", share(0.1), (kills) => killProgram(longSample, kills)],
    ["servers", share(0.3), (kills) => killServers(kills, random)],
  ];
  let problemCount = 0;
  for (const [name, kills, run] of parts) {
    const problems = await run(kills);
    problemCount += problems.length;
    say(`${name}: ${kills} kills, ${problems.length} problems`);
    for (const problem of problems) say(`  ${problem}`);
  }
  pull.hub.stop();
  return problemCount === 0 ? 0 : 1;
}

// --- internal ---

async function killProgram(program: Program, count: number): Promise<string[]> {
  const problems: string[] = [];
  const plain = await newFolder(program);
  const startMs = performance.now();
  await ended(program.run(plain));
  const wholeMs = performance.now() - startMs;
  const after = filesIn(join(plain, program.out), program.ignored);
  rmSync(plain, { recursive: true });
  for (let done = 0; done < count; done += killsInRow) {
    const folder = await newFolder(program);
    const before = filesIn(join(folder, program.out), program.ignored);
    for (let i = done; i < Math.min(count, done + killsInRow); i++) {
      await killOnce(program, folder, wholeMs);
      const left = Object.entries(filesIn(join(folder, program.out), program.ignored));
      for (const [name, file] of left)
        if (file !== before[name] && file !== after[name] && !isTemporary(name))
          problems.push(`kill ${i}: ${name} is broken`);
    }
    const { exitCode, stderr } = await ended(program.run(folder));
    const last = Object.entries(filesIn(join(folder, program.out), program.ignored));
    const kept = Object.fromEntries(last.filter(([name]) => !isTemporary(name)));
    if (exitCode !== 0) problems.push(`after kill ${done} it ends with ${exitCode}: ${stderr}`);
    if (!Bun.deepEquals(kept, after)) problems.push(`after kill ${done} files are not whole`);
    rmSync(folder, { recursive: true });
  }
  return problems;
}

/** At a moment, or at a call on its results. */
async function killOnce(program: Program, folder: string, wholeMs: number): Promise<void> {
  const run = program.run(folder);
  if (random.once(2)) {
    const call = random.pick(calls);
    run.calls.push(`${call}:kill:${1 + random.below(4)}:1:${join(folder, program.out)}`);
  }
  const { command, env } = commandOf(run);
  const stdio = { stdout: "ignore", stderr: "ignore" } as const;
  const child = Bun.spawn(command, { cwd: folder, env, ...stdio });
  await Promise.race([child.exited, Bun.sleep((random.below(1000) / 1000) * wholeMs)]);
  child.kill("SIGKILL");
  await child.exited;
}

/** What a program that was killed leaves beside its results, by its name no image. */
function isTemporary(name: string): boolean {
  return /(^|\/)\.basedxl-[0-9a-f-]{36}\.tmp$/.test(name);
}

async function newFolder(program: Program): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-kill-"));
  await program.prepare(folder);
  return folder;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
