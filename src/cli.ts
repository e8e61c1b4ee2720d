/**
 * The command line: finds the command, checks its flags, runs it and turns what happened into an
 * exit code (0 done, 1 failed, 2 wrong flags, 128 + signal). Nothing here exits: `main.ts` does.
 */
import type { ArgsDef, CommandDef } from "citty";
import { runCommand } from "citty";
import packageJson from "../package.json" with { type: "json" };
import { sampleEmptyAllowed, sampleFlags, sampleHelp } from "./commands/sample-flags.ts";
import { BasedXLError } from "./errors.ts";
import { normalizeFlags, suggestion } from "./flags.ts";
import type { HelpText } from "./help.ts";
import { renderHelp } from "./help.ts";
import { createOutput, reportError, verbosityOf } from "./output.ts";

interface CommandEntry {
  summary: string;
  args: ArgsDef;
  help: HelpText;
  emptyAllowed: readonly string[];
  /** Imported when it runs: --help needs neither the image library nor the native one. */
  // biome-ignore lint/suspicious/noExplicitAny: citty's type of a command with any flags
  load(): Promise<CommandDef<any>>;
}

const commands: Record<string, CommandEntry> = {
  sample: {
    summary: "Draw pictures from a prompt",
    args: sampleFlags,
    help: sampleHelp,
    emptyAllowed: sampleEmptyAllowed,
    load: async () => (await import("./commands/sample.ts")).sampleCommand,
  },
};

/** Runs `argv` (without the program's name) and resolves to the exit code. Never rejects. */
export async function runCli(argv: string[]): Promise<number> {
  const [name, ...rawArgs] = argv;
  try {
    if (name === undefined || name === "help" || isHelp(name)) return print(mainHelp());
    if (name === "--version" || name === "-v") return print(`${packageJson.version}\n`);
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (!command) throw unknownCommand(name);
    if (asksForHelp(rawArgs)) return print(renderHelp(command.help, command.args));
    const checked = normalizeFlags(rawArgs, command.args, command);
    const { result } = await runCommand(await command.load(), { rawArgs: checked });
    return Number(result);
  } catch (error) {
    reportError(error, createOutput(verbosityOf(argv)));
    return error instanceof BasedXLError && error.code === "bad-option" ? 2 : 1;
  }
}

// --- internal ---

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

function isHelp(arg: string): boolean {
  return arg === "--help" || arg === "-h";
}

/** After `--` everything is a prompt, even --help. */
function asksForHelp(rawArgs: readonly string[]): boolean {
  const end = rawArgs.indexOf("--");
  return rawArgs.slice(0, end < 0 ? undefined : end).some(isHelp);
}

function unknownCommand(name: string): BasedXLError {
  const names = Object.keys(commands);
  if (name.startsWith("-")) {
    return new BasedXLError("bad-option", `Name a command before ${name}: ${names.join(", ")}.`);
  }
  return new BasedXLError(
    "bad-option",
    `There is no command "${name}".${suggestion(name, names)} The commands: ${names.join(", ")}.`,
  );
}

function mainHelp(): string {
  const lines = [
    `basedxl ${packageJson.version}: Stable Diffusion XL pictures on one GPU or several.`,
    "",
    "Usage: basedxl <command> [flags]",
    "",
    "Examples:",
    "  basedxl sample",
    '  basedxl sample "a red house on the grass" --gpus 2',
    "",
    "Commands:",
    ...Object.entries(commands).map(([name, { summary }]) => `  ${name.padEnd(12)}${summary}`),
    "",
    "basedxl <command> --help lists the flags of a command. In a clone of the",
    "repository, basedxl is written bun src/main.ts.",
  ];
  return `${lines.join("\n")}\n`;
}
