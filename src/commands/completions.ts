/**
 * `basedxl completions SHELL`: a script for the shell, made from the commands' own flags, so that
 * it cannot fall behind them.
 */
import type { ArgsDef } from "citty";
import { aliasesOf, type Values } from "../terminal/flags.ts";

export const shells = ["bash", "zsh", "fish"] as const;
type Shell = (typeof shells)[number];

export function isShell(text: string): text is Shell {
  return (shells as readonly string[]).includes(text);
}

export interface Completable {
  summary: string;
  args: ArgsDef;
  /** By flag, or by a positional's name; others are not completed. */
  values?: Readonly<Record<string, Values>>;
}

interface Flag {
  /** Without dashes. */
  name: string;
  takesValue: boolean;
  values: Values | undefined;
  /** One line. */
  text: string;
}

/** The script for `shell`. */
export function completionScript(
  shell: Shell,
  commands: Readonly<Record<string, Completable>>,
): string {
  const scripts = { bash: bashScript, zsh: zshScript, fish: fishScript };
  return scripts[shell](commands);
}

// --- internal ---

type Commands = Readonly<Record<string, Completable>>;

/** Every way to type a flag; one that is on unless switched off appears as --no-NAME. */
function flagsOf({ args, values = {} }: Completable): Flag[] {
  return Object.entries(args).flatMap(([name, arg]) => {
    if (arg.type === "positional") return [];
    const negative = arg.type === "boolean" ? arg.negativeDescription : undefined;
    const names = negative === undefined ? [name, ...aliasesOf(arg)] : [`no-${name}`];
    const text = (negative ?? arg.description ?? "").split(/[.;\n]/)[0] ?? "";
    return names.map((each) => ({
      name: each,
      takesValue: arg.type !== "boolean",
      values: values[name],
      text,
    }));
  });
}

/** What can stand where no flag does: names of benches, shells. */
function wordsOf({ args, values = {} }: Completable): readonly string[] {
  return Object.entries(args).flatMap(([name, arg]) => {
    const words = arg.type === "positional" ? values[name] : undefined;
    return Array.isArray(words) ? words : [];
  });
}

function bashScript(commands: Commands): string {
  const names = Object.keys(commands).join(" ");
  const cases = Object.entries(commands).map(([name, command]) => {
    const flags = flagsOf(command);
    const values = flags.flatMap((flag) => (flag.takesValue ? [bashValue(flag)] : []));
    const offered = [...flags.map((flag) => `--${flag.name}`), ...wordsOf(command)].join(" ");
    return `    ${name})
      case $previous in
${values.join("\n")}
        *) COMPREPLY=($(compgen -W "${offered}" -- "$word")) ;;
      esac ;;`.replace("\n\n", "\n");
  });
  return `# basedxl completions bash
_basedxl() {
  local word=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${names} help --help --version" -- "$word"))
    return
  fi
  case \${COMP_WORDS[1]} in
${cases.join("\n")}
  esac
}
complete -o filenames -F _basedxl basedxl
`;
}

/**
 * Prints names of models. The scripts take them as texts: `compgen -W` would run commands that
 * stand in them.
 */
function namesCommand({ models }: { models: string }): string {
  return `basedxl models --names --kind ${models} 2>/dev/null`;
}

function isModels(values: Values | undefined): values is { models: string } {
  return typeof values === "object" && "models" in values;
}

function bashValue({ name, values }: Flag): string {
  if (isModels(values)) {
    return `        --${name})
          local name
          while IFS= read -r name; do
            [[ $name == "$word"* ]] && COMPREPLY+=("$name")
          done < <(${namesCommand(values)}; compgen -f -- "$word") ;;`;
  }
  const generate =
    values === "file"
      ? '-f -- "$word"'
      : values === "folder"
        ? '-d -- "$word"'
        : `-W "${(values ?? []).join(" ")}" -- "$word"`;
  return `        --${name}) COMPREPLY=($(compgen ${generate})) ;;`;
}

function zshScript(commands: Commands): string {
  const list = Object.entries(commands).map(
    ([name, { summary }]) => `    ${quoted(`${name}:${summary}`)}`,
  );
  const cases = Object.entries(commands).map(([name, command]) => {
    const specs = flagsOf(command).map((flag) => `        ${zshFlag(flag)}`);
    const words = wordsOf(command);
    if (words.length > 0) specs.push(`        ${quoted(`1:name:(${words.join(" ")})`)}`);
    return `    ${name})\n      _arguments \\\n${specs.join(" \\\n")} ;;`;
  });
  return `#compdef basedxl
# basedxl completions zsh
_basedxl_models() {
  local -a names=("\${(@f)$(${namesCommand({ models: '"$1"' })})}")
  compadd -a names
  _files
}
_basedxl() {
  local -a commands=(
${list.join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=\${words[2]}
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join("\n")}
  esac
}
compdef _basedxl basedxl
`;
}

function zshFlag({ name, takesValue, values, text }: Flag): string {
  const told = text.replace(/[[\]:\\]/g, " ");
  if (!takesValue) return quoted(`--${name}[${told}]`);
  if (isModels(values)) return quoted(`--${name}=[${told}]:value:_basedxl_models ${values.models}`);
  const action =
    values === "file"
      ? "_files"
      : values === "folder"
        ? "_files -/"
        : values === undefined
          ? " "
          : `(${values.join(" ")})`;
  return quoted(`--${name}=[${told}]:value:${action}`);
}

function fishScript(commands: Commands): string {
  const lines = ["# basedxl completions fish", "complete -c basedxl -f"];
  for (const [name, command] of Object.entries(commands)) {
    const summary = quoted(command.summary);
    lines.push(`complete -c basedxl -n __fish_use_subcommand -a ${name} -d ${summary}`);
    const when = `-n '__fish_seen_subcommand_from ${name}'`;
    const words = wordsOf(command);
    if (words.length > 0) lines.push(`complete -c basedxl ${when} -a ${quoted(words.join(" "))}`);
    for (const flag of flagsOf(command)) {
      lines.push(`complete -c basedxl ${when} -l ${flag.name} ${fishValue(flag)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

function fishValue({ takesValue, values, text }: Flag): string {
  const told = `-d ${quoted(text)}`;
  if (!takesValue) return told;
  if (values === "file") return `-r -F ${told}`;
  if (isModels(values)) return `-r -F -a '(${namesCommand(values)})' ${told}`;
  if (values === "folder") return `-x -a '(__fish_complete_directories)' ${told}`;
  return values === undefined ? `-x ${told}` : `-x -a ${quoted(values.join(" "))} ${told}`;
}

/** For all three shells alike: in single quotes, without any inside. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "’")}'`;
}
