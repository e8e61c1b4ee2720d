/**
 * The server's settings from three sources: flags, variables (BASEDXL_SERVE_*) and a TOML file, in
 * this order. A wrong value is refused in a sentence that names it as its source does.
 */
import { badOption, escaped } from "../errors.ts";
import { readLimited } from "../limited-read.ts";
import { expandHome } from "../paths.ts";
import { type AnySetting, defaultOf } from "../settings/setting.ts";
import { demandOf, readText } from "../settings/values.ts";
import { suggestion } from "../terminal/flags.ts";
import { ObjectStore } from "./remote/object-store.ts";
import { isLoopback } from "./security.ts";
import { type ServeConfig, serveSettings } from "./settings.ts";
import { parseShare } from "./share.ts";

type Env = Readonly<Record<string, string | undefined>>;

interface Sources {
  /** By flag, as citty gives them. */
  flags: Readonly<Record<string, unknown>>;
  env: Env;
}

/** Throws "bad-option" for a wrong value, and for settings that do not go together. */
export function readConfig({ flags, env }: Sources): ServeConfig {
  const given: Record<string, unknown> = {};
  const sources = [flagSource(flags), environmentSource(env)];
  const file = sources.map((source) => source.value("configFile")).find((path) => path != null);
  if (file !== undefined) sources.push(fileSource(String(file)));
  for (const [key, setting] of Object.entries(serveSettings)) {
    const found = sources.map((source) => source.value(key)).find((value) => value !== undefined);
    given[key] = found ?? defaultOf(setting);
  }
  const config = given as unknown as ServeConfig;
  checkTogether(config);
  return config;
}

/** `BASEDXL_SERVE_MAX_QUEUE` */
export function variableOf({ flag }: Pick<AnySetting, "flag">): string {
  return `${variablePrefix}${flag.replaceAll("-", "_").toUpperCase()}`;
}

// --- internal ---

const secret = new Set(["api-key", "queue"]);
const variablePrefix = "BASEDXL_SERVE_";

interface Source {
  /** Checked; undefined where the source does not have it. */
  value(key: string): unknown;
}

function checked(setting: AnySetting, value: unknown, name: string, shown: string): unknown {
  const why = demandOf(setting, value);
  if (why === null) return value;
  // A key must not end in a log.
  const said = secret.has(setting.flag) ? "" : `, not ${escaped(shown, 100)}`;
  throw badOption(`${name} ${why}${said}.`);
}

function flagSource(flags: Sources["flags"]): Source {
  return {
    value(key) {
      const setting = serveSettings[key]!;
      const given = flags[setting.flag];
      if (given === undefined) return undefined;
      const value = typeof given === "boolean" ? given : readText(setting, String(given));
      return checked(setting, value, `--${setting.flag}`, JSON.stringify(given));
    },
  };
}

/** Entries of lists have commas between them; other entries go into the file. */
function environmentSource(env: Env): Source {
  const known = new Set(Object.values(serveSettings).map(variableOf));
  const unknown = Object.keys(env).find((name) => {
    return name.startsWith(variablePrefix) && !known.has(name);
  });
  if (unknown !== undefined) {
    const hint = suggestion(unknown, known);
    throw badOption(`The variable ${escaped(unknown, 100)} is no setting of serve.${hint}`);
  }
  return {
    value(key) {
      const setting = serveSettings[key]!;
      const text = env[variableOf(setting)];
      if (text === undefined || text === "") return undefined;
      const value =
        setting.kind === "list"
          ? text.split(",").map((each) => setting.of.read(each.trim()))
          : readText(setting, setting.kind === "path" ? expandHome(text) : text);
      return checked(setting, value, variableOf(setting), JSON.stringify(text));
    },
  };
}

function fileSource(path: string): Source {
  const values = tomlOf(path);
  const byName = new Map(
    Object.entries(serveSettings).map(([key, { flag }]) => [flag.replaceAll("-", "_"), key]),
  );
  for (const name of Object.keys(values)) {
    const key = byName.get(name);
    if (key !== undefined && key !== "configFile") continue;
    const hint = suggestion(name, byName.keys());
    throw badOption(`${escaped(path, 300)} has ${escaped(name, 100)}, which is no setting.${hint}`);
  }
  return {
    value(key) {
      const setting = serveSettings[key]!;
      const name = setting.flag.replaceAll("-", "_");
      const given = values[name];
      if (given === undefined) return undefined;
      const value = fromToml(setting, given);
      return checked(setting, value, `${name} in ${escaped(path, 300)}`, JSON.stringify(given));
    },
  };
}

function fromToml(setting: AnySetting, given: unknown): unknown {
  if (setting.kind === "list") return [given].flat().map((each) => setting.of.fromJson(each));
  return setting.kind === "path" && typeof given === "string" ? expandHome(given) : given;
}

/** Of a page of settings. */
const fileBytesMax = 2 ** 20;

function tomlOf(path: string): Record<string, unknown> {
  const shown = escaped(path, 300);
  let text: string;
  try {
    text = readLimited(path, fileBytesMax).toString();
  } catch (error) {
    const { code = "unreadable" } = error as NodeJS.ErrnoException;
    throw badOption(`The settings of ${shown} cannot be read (${code}).`);
  }
  try {
    return Bun.TOML.parse(text) as Record<string, unknown>;
  } catch (error) {
    const why = escaped(String((error as Error).message).split("\n")[0] ?? "", 200);
    throw badOption(`${shown} is no TOML: ${why.replace(/\.$/, "")}.`);
  }
}

function checkTogether({ host, apiKeys, share, rankCount, models, ...rest }: ServeConfig): void {
  if (!isLoopback(host) && apiKeys.length === 0) {
    throw badOption(
      `--host ${escaped(host, 100)} lets other machines in: give them a key with --api-key, ` +
        "or leave --host out.",
    );
  }
  const names = apiKeys.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    throw badOption(`Two keys of --api-key are called ${twice}: write NAME=KEY for each.`);
  }
  const model = models.find((name, index) => models.indexOf(name) !== index);
  if (model !== undefined) throw badOption(`--model ${escaped(model, 300)} is given twice.`);
  parseShare(share, rankCount);
  const { queue, store } = rest;
  if (queue !== undefined && !/^rediss?:\/\/./.test(queue)) {
    throw badOption("--queue must be the address of a Redis, such as redis://host:6379.");
  }
  if (store === undefined) return;
  if (queue === undefined) throw badOption("--store is for workers: it needs --queue.");
  ObjectStore.open(store);
}
