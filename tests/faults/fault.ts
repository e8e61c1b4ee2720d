/**
 * What a fault is, and the four things that are held of a run with one: the sentence, the exit
 * code, the files, and that the next run works.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Program } from "./programs.ts";
import { ended, filesIn, isCrash, type Run } from "./run.ts";

export interface Fault {
  /** As the table names it. */
  name: string;
  apply(run: Run): void;
  /** The sentence of its error; null where it changes nothing. */
  ends: RegExp | null;
  /** Default 1, or 0 where it changes nothing. */
  exitCode?: number;
  /** Whether it may strike or not, as where memory decides. */
  mayPass?: boolean;
}

/** A row of the table: the faults that befall one run of a program. */
export interface Row {
  name: string;
  program: Program;
  faults: readonly Fault[];
}

type Files = Record<string, string>;

/** What is wrong with the run of a row, and the next one; empty where nothing is. */
export async function problemsOf({ program, faults }: Row): Promise<string[]> {
  const after = await resultOf(program);
  const folder = mkdtempSync(join(tmpdir(), "basedxl-fault-"));
  try {
    await program.prepare(folder);
    const before = filesIn(join(folder, program.out), program.ignored);
    const run = program.run(folder);
    for (const fault of faults) fault.apply(run);
    const first = await ended(run);
    for (const mend of run.mended) mend();
    const left = filesIn(join(folder, program.out), program.ignored);
    const next = await ended(program.run(folder));
    const last = filesIn(join(folder, program.out), program.ignored);
    return [
      ...(faults.length === 1 ? missed(first.hits) : []),
      ...wrongEnd(first, faults),
      ...brokenFiles(left, before, after, first.exitCode === 0),
      ...(next.exitCode === 0 ? [] : [`the next run ends with ${next.exitCode}: ${next.stderr}`]),
      ...(Bun.deepEquals(last, after) ? [] : [`the next run leaves ${shown(last)}`]),
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

// --- internal ---

const results = new Map<Program, Promise<Files>>();

/** What a run without faults leaves. */
function resultOf(program: Program): Promise<Files> {
  const known = results.get(program) ?? plainResult(program);
  results.set(program, known);
  return known;
}

async function plainResult(program: Program): Promise<Files> {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-fault-"));
  await program.prepare(folder);
  const { exitCode, stderr } = await ended(program.run(folder));
  if (exitCode !== 0) throw new Error(`without a fault it ends with ${exitCode}: ${stderr}`);
  const files = filesIn(join(folder, program.out), program.ignored);
  rmSync(folder, { recursive: true, force: true });
  return files;
}

/** A fault that does not strike tests nothing. */
function missed(hits: readonly number[]): string[] {
  return hits.some((count) => count === 0) ? ["the fault did not strike"] : [];
}

function wrongEnd(run: { exitCode: number; stderr: string }, faults: readonly Fault[]): string[] {
  const { exitCode, stderr } = run;
  const lines = stderr.trimEnd().split("\n");
  if (isCrash(stderr)) return [`it crashed: ${stderr}`];
  // Of a pair either may be the one that is told; one may hide the other.
  const isOneOf = faults.some(({ ends, exitCode: code = ends === null ? 0 : 1, mayPass }) => {
    if (exitCode === 0 && mayPass) return true;
    return exitCode === code && (ends === null || ends.test(lines.at(-1) ?? ""));
  });
  const errors = lines.filter((line) => line.startsWith("error: ")).length;
  if (isOneOf && errors <= 1) return [];
  return [`it ends with ${exitCode}: ${lines.slice(-4).join("\n")}`];
}

/** Each file is as before or as it should become, and none is there that should not be. */
function brokenFiles(left: Files, before: Files, after: Files, isDone: boolean): string[] {
  if (isDone) return Bun.deepEquals(left, after) ? [] : [`it leaves ${shown(left)}`];
  const names = new Set([...Object.keys(left), ...Object.keys(before)]);
  return [...names].flatMap((name) => {
    const file = left[name];
    if (file === before[name] || (file !== undefined && file === after[name])) return [];
    return [file === undefined ? `${name} is gone` : `${name} is broken`];
  });
}

function shown(files: Files): string {
  return JSON.stringify(files);
}
