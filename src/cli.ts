/**
 * The command line: finds the command, checks its flags, runs it and maps the result to an exit
 * code (0 done, 1 failed, 2 wrong flags, 128 + signal). Only `main.ts` exits.
 */
import { commands } from "./commands.ts";
import { probeCommand } from "./doctor/probe-command.ts";
import { BasedXLError } from "./errors.ts";
import { resources } from "./resources.ts";
import { suggestion } from "./terminal/flags.ts";
import { createOutput, reportError, verbosityOf, writeJson } from "./terminal/output.ts";

/** Runs `argv` (without the program's name) and resolves to the exit code. Never rejects. */
export async function runCli(argv: string[]): Promise<number> {
  const [name, ...rawArgs] = argv;
  try {
    if (name === undefined || name === "help" || isHelp(name)) return print(mainHelp());
    if (name === "--version" || name === "-v") return print(await versionText());
    if (name === probeCommand) return await answerProbe();
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (!command) throw unknownCommand(name);
    if (command.asksForHelp(rawArgs)) return print(await command.helpText());
    return await command.run(rawArgs);
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

/** The hidden command that `doctor` runs in a child process. */
async function answerProbe(): Promise<number> {
  const { collectGpuFacts } = await import("./doctor/gpu-probe.ts");
  writeJson(collectGpuFacts());
  return 0;
}

/** The first line is for scripts. A binary lists its kernels; a clone loads its library. */
async function versionText(): Promise<string> {
  const { basedxl, bun, zig, cudaKernels } = resources.versions();
  const kernels =
    cudaKernels ?? (await import("./native/device-info.ts")).probeDevice().cudaKernels;
  const lines = [`basedxl ${basedxl}`, `Bun ${bun}`, `Zig ${zig}`];
  return `${[...lines, `CUDA kernels: ${kernels || "none"}`].join("\n")}\n`;
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
    `basedxl ${resources.versions().basedxl}: Stable Diffusion XL images on one GPU or several.`,
    "",
    "Usage: basedxl <command> [flags]",
    "",
    "Examples:",
    "  basedxl sample",
    '  basedxl sample "a red house on the grass" --gpus 2',
    "  basedxl doctor",
    "",
    "Commands:",
    ...Object.entries(commands).map(([name, { summary }]) => `  ${name.padEnd(13)}${summary}`),
    "",
    "Flags:",
    "  --version    Print the versions of BasedXL, Bun, Zig and the CUDA kernels",
    "  --help       Print this help",
    "",
    ...whereHelp(),
  ];
  return `${lines.join("\n")}\n`;
}

function whereHelp(): string[] {
  if (!resources.isBinary) {
    return [
      "basedxl <command> --help lists the flags of a command. In a clone of the",
      "repository, basedxl is written bun src/main.ts.",
    ];
  }
  return [
    "basedxl <command> --help lists the flags of a command. Libraries and the bundled",
    "model are extracted once, to a private folder in ~/.cache/basedxl; the variable",
    "BASEDXL_CACHE_DIR names another.",
  ];
}
