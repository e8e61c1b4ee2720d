/**
 * Runs the set-up's tools (`bun install`, `zig build`) and passes their messages to the user: live
 * on a terminal, else as part of the error. No output of a tool may reach our stdout.
 */
import { BasedXLError } from "../errors.ts";

/** Writes one progress line of the set-up. */
export type Report = (line: string) => void;

interface ToolRun {
  command: string[];
  cwd: string;
  env: Record<string, string | undefined>;
  /** What failed, as the start of a sentence: "The native library did not build". */
  failure: string;
  /** A further sentence for the error message, or "". */
  hint?: string;
  /** True: the tool inherits our stderr (progress on a terminal); false: its output is captured. */
  live: boolean;
}

/** Runs a tool to its end. Throws `BasedXLError` "setup" carrying its output when it fails. */
export async function runTool(run: ToolRun): Promise<void> {
  const { command, cwd, env, failure, hint = "", live } = run;
  let child: Bun.Subprocess<"ignore", "pipe", "pipe" | "inherit">;
  try {
    child = Bun.spawn(command, {
      cwd,
      env,
      stdin: "ignore",
      stdout: "pipe",
      stderr: live ? "inherit" : "pipe",
    });
  } catch (error) {
    throw new BasedXLError("setup", `${failure}: ${(error as Error).message}.`);
  }
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    child.stderr ? new Response(child.stderr).text() : "",
    child.exited,
  ]);
  if (exitCode === 0) return;
  const output = [stderr.trim(), stdout.trim()].filter(Boolean).join("\n");
  const cause = child.signalCode ? `stopped by ${child.signalCode}` : `exit code ${exitCode}`;
  const details = output ? `\n${output}` : " See its message above.";
  throw new BasedXLError("setup", `${failure} (${cause}).${details}${hint ? `\n${hint}` : ""}`);
}
