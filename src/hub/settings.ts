/**
 * The hub by the variables of huggingface_hub: where it is, where its cache lies, which token opens
 * it. The token is a secret: it goes into one header of requests to the hub's own host
 * (`http.ts`), and into no message.
 */
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import { readLimited } from "../limited-read.ts";
import { expandHome } from "../paths.ts";

export type Env = Record<string, string | undefined>;

export interface HubSettings {
  /** "https://huggingface.co" or HF_ENDPOINT, without a slash at the end. */
  endpoint: string;
  /** Absolute; `models--ORG--NAME` lie in it. */
  cacheFolder: string;
  token: string | null;
  /** Where the token is from, for messages: "HF_TOKEN" or a path. */
  tokenSource: string | null;
  /** True: no request is made. */
  offline: boolean;
  /** Without an answer or a byte for so long, a request is given up and made again. */
  timeoutMs: number;
  /** The first pause before a request is made again; it doubles. */
  pauseMs: number;
}

/** Throws "bad-model" where a variable has a value that cannot be used. */
export function hubSettings(env: Env = process.env): HubSettings {
  const cacheFolder = hubCacheFolder(env);
  if (cacheFolder === null) {
    throw unusable("HF_HOME", "is not set and there is no home folder; set it to a folder");
  }
  const [token, tokenSource] = tokenOf(env);
  const seconds = Number(env.HF_HUB_DOWNLOAD_TIMEOUT || 30);
  return {
    endpoint: hubEndpoint(env),
    cacheFolder,
    token,
    tokenSource,
    offline: isOn(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
    timeoutMs: 1000 * (seconds > 0 ? Math.min(seconds, 600) : 30),
    pauseMs: 500,
  };
}

/** The hub's address. Throws "bad-model" for a value of HF_ENDPOINT that is none. */
export function hubEndpoint(env: Env = process.env): string {
  const named = (env.HF_ENDPOINT || "https://huggingface.co").trim().replace(/\/+$/, "");
  if (!/^https?:\/\/[^/?#\s@]+(\/[^?#\s]*)?$/i.test(named) || !URL.canParse(named)) {
    const shown = escaped(named.replace(/\/\/.*@/, "//...@"), 200);
    throw unusable("HF_ENDPOINT", `is "${shown}", which is no address; it is https://HOST`);
  }
  return named;
}

/** The cache folder of huggingface_hub; null without a home folder. */
export function hubCacheFolder(env: Env = process.env): string | null {
  const named = env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE;
  const home = hubHome(env);
  const folder = named ? expanded(named, env) : home && join(home, "hub");
  return folder && isAbsolute(folder) ? folder : folder && join(process.cwd(), folder);
}

// --- internal ---

function unusable(name: string, problem: string): BasedXLError {
  return new BasedXLError("bad-model", `The variable ${name} ${problem}.`);
}

/** HF_HOME: the folder above the cache, where `hf auth login` leaves the token. */
function hubHome(env: Env): string | null {
  if (env.HF_HOME) return expanded(env.HF_HOME, env);
  const caches = env.XDG_CACHE_HOME || (homeFolder(env) && join(homeFolder(env), ".cache"));
  return caches ? join(expandHome(caches), "huggingface") : null;
}

function homeFolder(env: Env): string {
  if (env.HOME) return env.HOME;
  try {
    return homedir();
  } catch {
    return "";
  }
}

/** `~` and `$NAME`, as huggingface_hub expands them in its variables. */
function expanded(path: string, env: Env): string {
  const named = (whole: string, a?: string, b?: string) => env[a ?? b ?? ""] ?? whole;
  return expandHome(path.replace(/\$(?:(\w+)|\{(\w+)\})/g, named));
}

function isOn(value: string | undefined): boolean {
  return ["1", "ON", "YES", "TRUE"].includes((value ?? "").trim().toUpperCase());
}

function tokenOf(env: Env): [token: string | null, source: string | null] {
  if (isOn(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return [null, null];
  for (const name of ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
    const token = env[name]?.trim();
    if (token) return [checkedToken(token, `The variable ${name}`), name];
  }
  const home = hubHome(env);
  const path = env.HF_TOKEN_PATH ? expanded(env.HF_TOKEN_PATH, env) : home && join(home, "token");
  if (!path) return [null, null];
  const token = textOf(path)?.trim();
  return token ? [checkedToken(token, path), path] : [null, null];
}

/** A header holds visible characters alone. */
function checkedToken(token: string, source: string): string {
  if (/^[\x21-\x7e]{1,4096}$/.test(token)) return token;
  throw new BasedXLError(
    "bad-model",
    `${source} holds no token of the hub (there are spaces or odd characters in it); make one at ` +
      "https://huggingface.co/settings/tokens.",
  );
}

/** A token has some dozen characters. */
const tokenBytesMax = 2 ** 16;

function textOf(path: string): string | null {
  try {
    return readLimited(path, tokenBytesMax).toString();
  } catch {
    return null;
  }
}
