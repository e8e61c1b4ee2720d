/**
 * The commands by name: their flags, their help, what completes them, and how they are loaded. A
 * command's code is imported when it runs: --help needs neither the image library nor the native
 * one.
 */
import type { CommandDef } from "citty";
import { runCommand } from "citty";
import { type Completable, completionScript, isShell, shells } from "./commands/completions.ts";
import { completionsFlags, completionsHelp } from "./commands/completions-flags.ts";
import { doctorFlags, doctorHelp } from "./commands/doctor-flags.ts";
import { infoFlags, infoHelp } from "./commands/info-flags.ts";
import { licensesFlags, licensesHelp } from "./commands/licenses-flags.ts";
import {
  modelsFlags,
  modelsHelp,
  modelsRepeatable,
  modelsValues,
} from "./commands/models-flags.ts";
import { pullFlags, pullHelp } from "./commands/pull-flags.ts";
import { serveFlags, serveHelp, serveRepeatable, serveValues } from "./commands/serve-flags.ts";
import {
  upscaleFlags,
  upscaleHelp,
  upscaleRepeatable,
  upscaleValues,
} from "./commands/upscale-flags.ts";
import { verifyDevices, verifyFlags, verifyHelp } from "./commands/verify-flags.ts";
import {
  workerFlags,
  workerHelp,
  workerRepeatable,
  workerValues,
} from "./commands/worker-flags.ts";
import { BasedXLError } from "./errors.ts";
import {
  sampleEmptyAllowed,
  sampleFlags,
  sampleHelp,
  sampleRepeatable,
  sampleValues,
} from "./settings/sample-flags.ts";
import { normalizeFlags, suggestion } from "./terminal/flags.ts";
import { type HelpText, renderHelp } from "./terminal/help.ts";

interface Command extends Completable {
  asksForHelp(rawArgs: readonly string[]): boolean;
  helpText(): Promise<string>;
  /** Resolves to the exit code. */
  run(rawArgs: string[]): Promise<number>;
}

export const commands: Record<string, Command> = {
  sample: typed({
    summary: "Generate images from a prompt",
    args: sampleFlags,
    help: sampleHelp,
    emptyAllowed: sampleEmptyAllowed,
    repeatable: sampleRepeatable,
    countsPositionals: true,
    values: sampleValues,
    load: async () => (await import("./commands/sample.ts")).sampleCommand,
  }),
  upscale: typed({
    summary: "Enlarge images by a network",
    args: upscaleFlags,
    help: upscaleHelp,
    repeatable: upscaleRepeatable,
    countsPositionals: true,
    values: upscaleValues,
    load: async () => (await import("./commands/upscale.ts")).upscaleCommand,
  }),
  serve: typed({
    summary: "Generate images for others, over HTTP",
    args: serveFlags,
    help: serveHelp,
    repeatable: serveRepeatable,
    values: serveValues,
    load: async () => (await import("./commands/serve.ts")).serveCommand,
  }),
  worker: typed({
    summary: "Generate images for servers on other machines",
    args: workerFlags,
    help: workerHelp,
    repeatable: workerRepeatable,
    values: workerValues,
    load: async () => (await import("./commands/worker.ts")).workerCommand,
  }),
  models: typed({
    summary: "List the models in folders of models",
    args: modelsFlags,
    help: modelsHelp,
    repeatable: modelsRepeatable,
    values: modelsValues,
    load: async () => (await import("./commands/models.ts")).modelsCommand,
  }),
  pull: typed({
    summary: "Fetch a model of the Hugging Face hub",
    args: pullFlags,
    help: pullHelp,
    load: async () => (await import("./commands/pull.ts")).pullCommand,
  }),
  info: typed({
    summary: "Print what an image or a model file says of itself",
    args: infoFlags,
    help: infoHelp,
    values: { file: "file" },
    load: async () => (await import("./commands/info.ts")).infoCommand,
  }),
  doctor: typed({
    summary: "Say what this machine can do and what would be picked",
    args: doctorFlags,
    help: doctorHelp,
    load: async () => (await import("./commands/doctor.ts")).doctorCommand,
  }),
  verify: typed({
    summary: "Say whether this GPU computes right",
    args: verifyFlags,
    help: verifyHelp,
    values: { device: verifyDevices },
    load: async () => (await import("./commands/verify.ts")).verifyCommand,
  }),
  bench: benchCommand(),
  licenses: typed({
    summary: "List everything that is bundled, with licences",
    args: licensesFlags,
    help: licensesHelp,
    load: async () => (await import("./commands/licenses.ts")).licensesCommand,
  }),
  completions: completionsCommand(),
};

// --- internal ---

interface TypedCommand extends Completable {
  help: HelpText;
  /** Flags for which an empty value means something. */
  emptyAllowed?: readonly string[];
  /** Flags that may be given several times. */
  repeatable?: readonly string[];
  /** True: the command itself says what is wrong with more positionals than it takes. */
  countsPositionals?: boolean;
  // biome-ignore lint/suspicious/noExplicitAny: citty's type of a command with any flags
  load(): Promise<CommandDef<any>>;
}

/** A command whose flags citty reads, after a check that citty does not make. */
function typed(command: TypedCommand): Command {
  const { args, help, load } = command;
  return {
    ...command,
    asksForHelp,
    helpText: async () => renderHelp(help, args),
    async run(rawArgs) {
      const checked = normalizeFlags(rawArgs, args, command);
      if (!command.countsPositionals) refuseSurplus(checked, command);
      const { result } = await runCommand(await load(), { rawArgs: checked });
      return Number(result);
    },
  };
}

/** citty ignores positionals that nothing asks for. */
function refuseSurplus(checked: readonly string[], { args }: Completable): void {
  const given = checked.slice(checked.indexOf("--") + 1);
  const taken = Object.values(args).filter(({ type }) => type === "positional").length;
  const [surplus] = given.slice(taken);
  if (surplus === undefined) return;
  throw new BasedXLError("bad-option", `"${surplus}" is not understood: --help lists the flags.`);
}

/** Every bench has flags of its own, and reads them itself. */
function benchCommand(): Command {
  const benches = () => import("./bench/benches.ts");
  return {
    summary: "Measure BasedXL on this machine",
    args: {},
    asksForHelp: ([first]) => first === undefined || isHelp(first),
    helpText: async () => (await benches()).benchHelp(),
    run: async (rawArgs) => (await benches()).runBench(rawArgs),
  };
}

function completionsCommand(): Command {
  return {
    summary: "Print a script that completes commands in bash, zsh or fish",
    args: completionsFlags,
    values: { shell: shells },
    asksForHelp,
    helpText: async () => renderHelp(completionsHelp, completionsFlags),
    async run(rawArgs) {
      const [, shell = "", ...more] = normalizeFlags(rawArgs, completionsFlags);
      if (!isShell(shell) || more.length > 0) {
        const hint = suggestion(shell, shells);
        const names = shells.join(", ");
        throw new BasedXLError("bad-option", `Name one shell, of ${names}.${hint}`);
      }
      process.stdout.write(completionScript(shell, commands));
      return 0;
    },
  };
}

/** After `--` everything is a prompt, even --help. */
function asksForHelp(rawArgs: readonly string[]): boolean {
  const end = rawArgs.indexOf("--");
  return rawArgs.slice(0, end < 0 ? undefined : end).some(isHelp);
}

function isHelp(arg: string): boolean {
  return arg === "--help" || arg === "-h";
}
