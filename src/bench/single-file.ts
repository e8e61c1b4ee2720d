/**
 * `bun run bench single-file`: a checkpoint in one file against a folder of the same weights, at
 * SDXL's full size: the time from the start of the command to its first step, and the anonymous
 * memory (RssAnon) at its largest. Files are sparse, so that weights are zeros and take no space;
 * with --random they are random numbers (13.8 GB). The exit code is 1 when a figure exceeds its
 * limit.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { badOption } from "../errors.ts";
import { openModelFolder } from "../models/folder.ts";
import { medianMs } from "../pipeline/timings.ts";
import { clipVocabulary } from "../prompt/clip-vocabulary.ts";
import { writeFullSize, writeFullSizeHeaders } from "./full-size.ts";
import { writeSingleFile } from "./support/single-file.ts";

const runCount = 3;
/** Of the folder's time and memory. */
const ratioAllowed = 1.1;

interface Measures {
  firstStepMs: number[];
  anonBytes: number[];
}

/** Takes `--random` or nothing. */
export async function run(args: string[]): Promise<number> {
  const isRandom = args.length === 1 && args[0] === "--random";
  if (args.length > 0 && !isRandom) {
    throw badOption(`bench single-file takes --random or nothing, not ${args.join(" ")}.`);
  }
  const work = mkdtempSync(join(tmpdir(), "basedxl-single-file-"));
  try {
    const folder = join(work, "folder");
    const file = join(work, "model.safetensors");
    if (isRandom) writeFullSize(folder);
    else writeFullSizeHeaders(folder);
    writeVocabulary(folder);
    writeSingleFile(await openModelFolder(folder), file, { isSparse: !isRandom });
    return report(await measure({ folder, file }));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

// --- internal ---

/** Both read CLIP's vocabulary: the folder from files, as SDXL's repositories have them. */
function writeVocabulary(folder: string): void {
  const { ids, merges } = clipVocabulary();
  for (const name of ["tokenizer", "tokenizer_2"]) {
    writeFileSync(join(folder, name, "vocab.json"), JSON.stringify(Object.fromEntries(ids)));
    const lines = merges.map((merge) => merge.join(" "));
    writeFileSync(join(folder, name, "merges.txt"), ["#version: 0.2", ...lines, ""].join("\n"));
  }
}

async function measure(models: Record<"folder" | "file", string>) {
  const empty = (): Measures => ({ firstStepMs: [], anonBytes: [] });
  const measures = { folder: empty(), file: empty() };
  // In turns: a machine's pace changes over minutes. The first turn fills the page cache.
  for (let turn = 0; turn <= runCount; turn += 1) {
    for (const name of ["folder", "file"] as const) {
      const { firstStepMs, anonBytes } = await sampleOnce(models[name]);
      if (turn === 0) continue;
      measures[name].firstStepMs.push(firstStepMs);
      measures[name].anonBytes.push(anonBytes);
    }
  }
  return measures;
}

async function sampleOnce(model: string) {
  const startMs = performance.now();
  const flags = ["--device", "cpu", "--steps", "1", "--width", "256", "--height", "256"];
  const main = join(import.meta.dir, "../main.ts");
  const child = Bun.spawn(
    [process.execPath, main, "sample", "--model", model, "--prompt", "a cat", ...flags],
    { cwd: join(model, ".."), stdin: "ignore", stdout: "ignore", stderr: "pipe" },
  );
  const decoder = new TextDecoder();
  let output = "";
  let firstStepMs = 0;
  let anonBytes = 0;
  const poll = setInterval(() => {
    anonBytes = Math.max(anonBytes, anonBytesOf(child.pid));
  }, 20);
  for await (const chunk of child.stderr) {
    output += decoder.decode(chunk, { stream: true });
    if (firstStepMs === 0 && /^Step 1\/1/m.test(output)) firstStepMs = performance.now() - startMs;
  }
  clearInterval(poll);
  if ((await child.exited) !== 0 || firstStepMs === 0) throw new Error(output);
  return { firstStepMs, anonBytes };
}

/** 0 when the process has ended, and on systems without /proc. */
function anonBytesOf(pid: number): number {
  try {
    const [, kilobytes] = /^RssAnon:\s+(\d+) kB/m.exec(
      readFileSync(`/proc/${pid}/status`, "utf8"),
    ) ?? [null, "0"];
    return Number(kilobytes) * 1024;
  } catch {
    return 0;
  }
}

function report({ folder, file }: Record<"folder" | "file", Measures>): number {
  const rows = [
    ["time to the first step, s", medianMs(folder.firstStepMs), medianMs(file.firstStepMs), 1e3],
    ["RssAnon at its largest, MB", medianMs(folder.anonBytes), medianMs(file.anonBytes), 1e6],
  ] as const;
  const print = (cells: string[]) => {
    const [first = "", ...rest] = cells;
    process.stdout.write(`${first.padEnd(28)}${rest.map((cell) => cell.padStart(9)).join("")}\n`);
  };
  print([`median of ${runCount}`, "folder", "file", "ratio", "allowed"]);
  for (const [what, first, second, unit] of rows) {
    const values = [first / unit, second / unit, second / first, ratioAllowed];
    print([what, ...values.map((value) => value.toFixed(2))]);
  }
  return rows.every(([, first, second]) => second <= ratioAllowed * first) ? 0 : 1;
}
