/**
 * The flags of `completions`, as --help shows them.
 */
import type { ArgsDef } from "citty";
import type { HelpText } from "../terminal/help.ts";
import { shells } from "./completions.ts";

export const completionsFlags = {
  shell: {
    type: "positional",
    required: true,
    valueHint: "shell",
    description: `${shells.join(", ")}.`,
  },
  help: { type: "boolean", description: "Print this help." },
} as const satisfies ArgsDef;

export const completionsHelp: HelpText = {
  usage: "basedxl completions <shell>",
  summary: "Prints a script that completes commands, flags and values in a shell.",
  examples: [
    "source <(basedxl completions bash)       # in ~/.bashrc",
    "source <(basedxl completions zsh)        # in ~/.zshrc, after compinit",
    "basedxl completions fish > ~/.config/fish/completions/basedxl.fish",
  ],
  groups: [["What", ["shell", "help"]]],
  notes: [],
};
