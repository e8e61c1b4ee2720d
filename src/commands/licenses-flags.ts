/**
 * The flags of `licenses`, as citty reads them and as --help shows them.
 */
import type { ArgsDef } from "citty";
import type { HelpText } from "../terminal/help.ts";

export const licensesFlags = {
  name: {
    type: "positional",
    required: false,
    valueHint: "name",
    description: "Print the texts of what begins with this name. Default: the list, without texts.",
  },
  texts: { type: "boolean", description: "Print everything with its text: some 800 kB." },
  json: { type: "boolean", description: "Print one JSON array on stdout, texts included." },
  help: { type: "boolean", description: "Print this help." },
} as const satisfies ArgsDef;

export const licensesHelp: HelpText = {
  usage: "basedxl licenses [name] [flags]",
  summary: "Lists everything that is bundled, with licences and where the sources are.",
  examples: [
    "basedxl licenses",
    "basedxl licenses libvips",
    "basedxl licenses LGPL-3",
    "basedxl licenses --texts | less",
  ],
  groups: [
    ["What", ["name", "texts"]],
    ["Output", ["json", "help"]],
  ],
  notes: [
    "libvips and some libraries in it are under the LGPL: they are files of their own in the " +
      "folder that basedxl doctor names, and a changed build of libvips can be used by building " +
      "BasedXL with it (bun run build in a clone).",
  ],
};
