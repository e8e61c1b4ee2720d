/**
 * How users name what is on the hub: "org/name", "org/name@revision", "org/name:file" and addresses
 * of the hub's pages. Looks at the text alone.
 */

export interface HubReference {
  /** "org/name". */
  id: string;
  /** A branch, tag or commit; undefined where none is named, which means main. */
  revision: string | undefined;
  /** The path of one file in the repository. */
  file: string | undefined;
}

/**
 * The reference that `value` is, or null. `endpoint` is the address of another hub (HF_ENDPOINT),
 * whose pages count too. "org/name.safetensors" is null: it names a file of this machine.
 */
export function hubReference(value: string, endpoint?: string): HubReference | null {
  const path = pathInHub(value, endpoint);
  if (path === null) return referenceOfId(value);
  const parts = path.split("/").filter((part) => part !== "");
  const [owner = "", last = "", page, named, ...rest] = parts;
  if (["datasets", "spaces", "models", "docs", "blog", "api"].includes(owner)) return null;
  const [repository = "", at] = splitRevision(last);
  const id = `${owner}/${repository.replace(/\.git$/i, "")}`;
  if (!isId(id)) return null;
  if (page === undefined) return checked(id, at, undefined);
  // hf://org/name@revision/file, as huggingface_hub's file system writes it.
  if (/^hf:/i.test(value)) {
    return checked(id, at, fileOf(parts.slice(2)));
  }
  if (!revisionPages.includes(page)) return checked(id, at, undefined);
  const file = filePages.includes(page) ? fileOf(rest) : undefined;
  return checked(id, at ?? named, file);
}

/** As a user would write it. */
export function showReference({ id, revision, file }: HubReference): string {
  const at = revision === undefined ? "" : `@${revision}`;
  return `${id}${at}${file === undefined ? "" : `:${file}`}`;
}

/** Whether `revision` can be a branch, tag or commit, and the name of a file below refs/. */
function isRevision(revision: string): boolean {
  const parts = revision.split("/");
  return revision.length <= 200 && parts.every((part) => /^[\w+-][\w.+-]*$/.test(part));
}

export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/**
 * Whether `name`, which a server sent, is a path that stays below the folder that it is joined to,
 * and that can be shown.
 */
export function isFileName(name: string): boolean {
  if (name.length > 1000 || /[\p{Cc}\p{Cs}\\\u2028\u2029\u202a-\u202e\u2066-\u2069]/u.test(name)) {
    return false;
  }
  return name
    .split("/")
    .every((part) => part !== "" && part !== "." && part !== ".." && part.length <= 240);
}

// --- internal ---

/** Pages of the hub whose address names a revision next. */
const revisionPages = ["tree", "blob", "resolve", "raw", "commit", "commits", "blame"];
/** Those that name a file after it. */
const filePages = ["blob", "resolve", "raw", "blame"];

/** The part of an address after the hub's name, without its query; null where it is none. */
function pathInHub(value: string, endpoint: string | undefined): string | null {
  const [, inHub] = /^hf:\/\/([^?#]*)/i.exec(value) ?? [];
  if (inHub !== undefined) return inHub;
  const own = endpoint === undefined ? "" : `|${RegExp.escape(endpoint.replace(/^\w+:\/\//, ""))}`;
  const hosts = `(?:www\\.)?(?:huggingface\\.co|hf\\.co|hf-mirror\\.com${own})`;
  return new RegExp(`^(?:https?://)?${hosts}/+([^?#]*)`, "i").exec(value)?.[1] ?? null;
}

/** "org/name[@revision][:file]" and "org/name/path/file.safetensors". */
function referenceOfId(value: string): HubReference | null {
  const [, id = "", path, at, picked] =
    /^([\w.-]+\/[\w.-]+)((?:\/[^@:/]+)+)?(?:@([^:]*))?(?::(.*))?$/s.exec(value) ?? [];
  if (!isId(id)) return null;
  if (path === undefined) {
    if (picked === undefined && weightsFile.test(id)) return null;
    return checked(id, at, picked);
  }
  // Deeper paths are files of a repository only where they end like one: others are local.
  if (picked !== undefined || !/\.safetensors$/i.test(path)) return null;
  return checked(id, at, path.slice(1));
}

const weightsFile = /\.(safetensors|ckpt|gguf|pt|pth|bin)$/i;

/** As huggingface_hub: at most 96 characters, and nothing that the cache's names could not hold. */
function isId(id: string): boolean {
  const parts = id.split("/");
  if (parts.length !== 2 || id.length > 96 || /--|\.\./.test(id)) return false;
  return parts.every((part) => /^\w([\w.-]*\w)?$/.test(part));
}

function checked(
  id: string,
  revision: string | undefined,
  file: string | undefined,
): HubReference | null {
  // A branch with a slash, such as refs/pr/3, is written refs%2Fpr%2F3 in addresses.
  const plain = revision?.replaceAll(/%2f/gi, "/");
  if (plain !== undefined && !isRevision(plain)) return null;
  if (file !== undefined && !isFileName(file)) return null;
  return { id, revision: plain === "main" ? undefined : plain, file };
}

/** The weights that an address names; a page of a folder or a config means the repository. */
function fileOf(parts: readonly string[]): string | undefined {
  if (!weightsFile.test(parts.at(-1) ?? "")) return undefined;
  try {
    return decodeURIComponent(parts.join("/"));
  } catch {
    return parts.join("/");
  }
}

/** "name@revision", as in addresses of huggingface_hub. */
function splitRevision(text: string): string[] {
  return text.split(/@(.*)/s, 2);
}
