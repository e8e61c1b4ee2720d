/**
 * Output of a command. Messages go to stderr, around the progress bar; stdout carries only `--json`
 * and help texts, so that it can be piped. Every message is escaped here, so that foreign text
 * cannot move the cursor or imitate a message of the program.
 */
import type { ConsolaInstance } from "consola/core";
import { createConsola, LogLevels } from "consola/core";
import { BasedXLError, escaped, escapedLines } from "../errors.ts";
import type { ProgressTarget, ProgressView } from "./progress.ts";
import { createProgressView } from "./progress.ts";

interface Verbosity {
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

/** The output of a command with these flags; `target` is stderr except in tests. */
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

/** The output flags, read from raw arguments: for errors that occur before parsing. */
export function verbosityOf(rawArgs: readonly string[]): Verbosity {
  const has = (flag: string) => rawArgs.includes(flag) || rawArgs.includes(`${flag}=true`);
  return { verbose: has("--verbose"), quiet: has("--quiet"), json: has("--json") };
}

/** Writes one object on one line of stdout, with control characters escaped. */
export function writeJson(value: unknown): void {
  process.stdout.write(`${escaped(JSON.stringify(value))}\n`);
}

/**
 * Reports an error as one sentence, with `--json` also as an object. The stack of an unexpected
 * error is shown with --verbose only.
 */
export function reportError(error: unknown, { progress, verbosity }: Output): void {
  progress.clear();
  const reported = error instanceof BasedXLError ? error : unexpected(error, verbosity.verbose);
  const { code, message } = reported;
  // A set-up error includes the output of the failed tool: keep its line breaks.
  progress.line(`error: ${code === "setup" ? escapedLines(message) : escaped(message)}`);
  if (reported !== error && verbosity.verbose && error instanceof Error) {
    progress.line(escapedLines(error.stack ?? "no stack"));
  }
  if (verbosity.json) writeJson({ error: { code, message } });
}

// --- internal ---

const prefixes: Partial<Record<string, string>> = { warn: "warning: ", error: "error: " };

function unexpected(error: unknown, verbose: boolean): BasedXLError {
  const what = error instanceof Error ? error.message : String(error);
  const more = verbose ? "" : " Run it again with --verbose for the stack trace.";
  return new BasedXLError("internal", `Internal error of basedxl: ${what}.${more}`);
}

function stderrTarget(): ProgressTarget {
  const { stderr } = process;
  return {
    write: (text) => void stderr.write(text),
    isTerminal: stderr.isTTY === true && process.env.TERM !== "dumb",
    columns: () => stderr.columns || 80,
  };
}
