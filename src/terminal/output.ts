/**
 * Where a command's words go. Lines for people go to stderr, around the progress bar; stdout
 * carries only what scripts read (`--json`) and help texts, so that it can be piped. Every message
 * is escaped here, so that no text from outside can move the cursor or imitate a line of ours.
 */
import type { ConsolaInstance } from "consola/core";
import { createConsola, LogLevels } from "consola/core";
import { BasedXLError, escaped, escapedLines } from "../errors.ts";
import type { ProgressTarget, ProgressView } from "./progress.ts";
import { createProgressView } from "./progress.ts";

export interface Verbosity {
  verbose: boolean;
  quiet: boolean;
  json: boolean;
}

export interface Output {
  /** `info` for everyone, `debug` for --verbose, `warn` and `error` with their word in front. */
  log: ConsolaInstance;
  progress: ProgressView;
  /** True when a bar or its plain lines are wanted. */
  showsProgress: boolean;
  verbosity: Verbosity;
}

/** The words of a command with these flags; `target` is stderr but in tests. */
export function createOutput(verbosity: Verbosity, target = stderrTarget()): Output {
  const { quiet, verbose, json } = verbosity;
  const progress = createProgressView(target, () => performance.now());
  const level = quiet ? LogLevels.error : verbose ? LogLevels.debug : LogLevels.info;
  const log = createConsola({
    level,
    reporters: [
      {
        log({ type, args }) {
          progress.line(`${prefixes[type] ?? ""}${escaped(args.join(" "))}`);
        },
      },
    ],
  });
  return { log, progress, showsProgress: !quiet && !json, verbosity };
}

/** The flags that decide about output, from raw arguments: for errors before they are parsed. */
export function verbosityOf(rawArgs: readonly string[]): Verbosity {
  const has = (flag: string) => rawArgs.includes(flag) || rawArgs.includes(`${flag}=true`);
  return { verbose: has("--verbose"), quiet: has("--quiet"), json: has("--json") };
}

/** Writes one object on one line of stdout; what a terminal would obey stands escaped in it. */
export function writeJson(value: unknown): void {
  process.stdout.write(`${escaped(JSON.stringify(value))}\n`);
}

/**
 * Tells an error as one sentence, with `--json` also as an object. An error that is not the user's
 * shows its stack with --verbose only.
 */
export function reportError(error: unknown, { progress, verbosity }: Output): void {
  progress.clear();
  const told = error instanceof BasedXLError ? error : unexpected(error, verbosity.verbose);
  // The output of a tool that failed is part of the message of a set-up, with its lines.
  const shown = told.code === "setup" ? escapedLines(told.message) : escaped(told.message);
  progress.line(`error: ${shown}`);
  if (told !== error && verbosity.verbose && error instanceof Error) {
    progress.line(escapedLines(error.stack ?? "no stack"));
  }
  if (verbosity.json) writeJson({ error: { code: told.code, message: told.message } });
}

// --- internal ---

const prefixes: Partial<Record<string, string>> = { warn: "warning: ", error: "error: " };

function unexpected(error: unknown, verbose: boolean): BasedXLError {
  const what = error instanceof Error ? error.message : String(error);
  const more = verbose ? "" : " Run it again with --verbose to see where.";
  return new BasedXLError("internal", `Something went wrong inside basedxl: ${what}.${more}`);
}

function stderrTarget(): ProgressTarget {
  const { stderr } = process;
  return {
    write: (text) => void stderr.write(text),
    isTerminal: stderr.isTTY === true && process.env.TERM !== "dumb",
    columns: () => stderr.columns || 80,
  };
}
