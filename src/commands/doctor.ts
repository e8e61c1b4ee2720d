/**
 * `basedxl doctor`: what this machine can do and what would be picked, on one screen. The exit code
 * is 1 when something is wrong, so that scripts can ask.
 */
import { defineCommand } from "citty";
import { collectReport } from "../doctor/collect.ts";
import { renderReport } from "../doctor/render.ts";
import { problemsOf, type Report } from "../doctor/report.ts";
import { BasedXLError } from "../errors.ts";
import { writeJson } from "../terminal/output.ts";
import { doctorFlags, gpuLimit } from "./doctor-flags.ts";

export const doctorCommand = defineCommand({
  meta: { name: "doctor", description: "Say what this machine can do" },
  args: doctorFlags,
  async run({ args }) {
    const report = await collectReport(1000 * secondsOf(args["gpu-limit"]));
    const problems = problemsOf(report);
    if (args.json) writeJson({ ...factsOf(report), problems });
    else process.stdout.write(renderReport(report, wantsColour()));
    return problems.length === 0 ? 0 : 1;
  },
});

// --- internal ---

function secondsOf(text: string | undefined): number {
  if (text === undefined) return gpuLimit.default;
  const seconds = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (seconds >= gpuLimit.min && seconds <= gpuLimit.max) return seconds;
  throw new BasedXLError(
    "bad-option",
    `--gpu-limit must be a whole number of seconds from ${gpuLimit.min} to ${gpuLimit.max}, not \
"${text}".`,
  );
}

function factsOf(report: Report) {
  return Object.fromEntries(Object.entries(report).map(([key, { facts }]) => [key, facts]));
}

/** On a terminal, unless the user wants none (no-color.org). */
function wantsColour(): boolean {
  const { NO_COLOR, TERM } = process.env;
  return process.stdout.isTTY === true && !NO_COLOR && TERM !== "dumb";
}
