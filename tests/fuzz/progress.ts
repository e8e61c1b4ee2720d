/**
 * What a run has done of each target, kept in its folder, so that the next run goes on from there;
 * and a table of it.
 */
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface Progress {
  /** Cases so far. */
  next: number;
  seconds: number;
  /** Of the code that ran them; a run may go on with a later one. */
  commits?: string[];
  crashes: { index: number | string; reason: string }[];
  /** Crashes that a report has found mended. */
  mendedCount?: number;
}

/** By target. */
export type State = Record<string, Progress>;

export function readState(folder: string, seed: number): State {
  const path = pathOf(folder, seed);
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : {};
}

export function writeState(folder: string, seed: number, state: State): void {
  const path = pathOf(folder, seed);
  writeFileSync(`${path}.new`, JSON.stringify(state, null, 2));
  renameSync(`${path}.new`, path);
}

/** Notes the commit that is checked out in `root`; nothing where git does not know one. */
export function noteCommit(progress: Progress, root: string): void {
  const git = Bun.spawnSync(["git", "rev-parse", "--short=8", "HEAD"], { cwd: root });
  const commit = git.success ? String(git.stdout).trim() : "unknown";
  progress.commits ??= [];
  if (progress.commits.at(-1) !== commit) progress.commits.push(commit);
}

/** Whether a case that was a crash is one again; a case of libFuzzer is not tried. */
export type Retry = (target: string, seed: number, index: number) => Promise<boolean>;

/** What a table of `reportOf` says of a seed: where a run on another machine goes on. */
export function stateOfReport(report: string, seed: number): State {
  const state: State = {};
  for (const line of report.split("\n")) {
    const row = reportRow.exec(line)?.groups;
    if (!row || Number(row.seed) !== seed) continue;
    const [next = 0, seconds = 0] = [row.cases!, row.seconds!].map((text) =>
      Number(text.replaceAll(",", "")),
    );
    const left = row.crashes === "0" ? [] : row.crashes!.split(", ");
    const crashes = left.map((index) => ({
      index: /^\d+$/.test(index) ? Number(index) : index,
      reason: `case ${index}`,
    }));
    const mendedCount = Number(row.mended ?? 0);
    state[row.target!] = { next, seconds, commits: row.commits!.split(", "), crashes, mendedCount };
  }
  return state;
}

/**
 * The states in `folders` as a table in Markdown; of runs of the same cases the longest, those of
 * the `earlier` table too.
 */
export async function reportOf(
  folders: readonly string[],
  targets: readonly string[],
  isCrash: Retry,
  earlier = "",
): Promise<string> {
  const rows: string[] = [];
  for (const target of targets) {
    const bySeed = new Map<number, Progress>();
    for (const [, seed] of earlier.matchAll(new RegExp(`^\\| ${target} \\| (\\d+) `, "gm"))) {
      bySeed.set(Number(seed), stateOfReport(earlier, Number(seed))[target]!);
    }
    for (const folder of folders) {
      for (const name of existsSync(folder) ? readdirSync(folder) : []) {
        const seed = Number(/^state-(\d+)\.json$/.exec(name)?.[1]);
        const found = Number.isNaN(seed) ? undefined : readState(folder, seed)[target];
        if (!found || found.next <= (bySeed.get(seed)?.next ?? 0)) continue;
        bySeed.set(seed, found);
      }
    }
    for (const [seed, progress] of bySeed) rows.push(await rowOf(target, seed, progress, isCrash));
  }
  return `${tableHead}${rows.join("\n")}\n`;
}

// --- internal ---

const tableHead = `# What long runs of the fuzzer have done

Written by \`bun run fuzz --report\`. Seconds are those of a clock, also where other work had the
cores. Crashes are numbers of cases (\`bun run fuzz --repeat TARGET:NUMBER\`), each tried again with
the code at hand.

| target | seed | cases | seconds | crashes | commits |
|---|---|---|---|---|---|
`;

const reportRow = new RegExp(
  [
    ...["", "(?<target>\\S+)", "(?<seed>\\d+)", "(?<cases>[\\d,]+)", "(?<seconds>[\\d,]+)"],
    ...["(?<crashes>[^(|]+?)(?: \\((?<mended>\\d+) not repeated\\))?", "(?<commits>[^|]+)", ""],
  ]
    .join(" \\| ")
    .trim(),
);

async function rowOf(
  target: string,
  seed: number,
  { next, seconds, crashes, commits = [], mendedCount = 0 }: Progress,
  isCrash: Retry,
): Promise<string> {
  const left: (number | string)[] = [];
  for (const { index } of crashes) {
    if (typeof index === "string" || (await isCrash(target, seed, index))) left.push(index);
  }
  const gone = mendedCount + crashes.length - left.length;
  const found = left.length === 0 ? "0" : left.join(", ");
  const cells = [
    ...[target, seed, next.toLocaleString("en"), Math.round(seconds).toLocaleString("en")],
    ...[gone === 0 ? found : `${found} (${gone} not repeated)`, commits.join(", ")],
  ];
  return `| ${cells.join(" | ")} |`;
}

function pathOf(folder: string, seed: number): string {
  return join(folder, `state-${seed}.json`);
}
