/**
 * Looks at a file of a model before anything reads it: the commonest broken downloads (Git LFS
 * pointers, dangling links, HTML pages, empty files) have an error message of their own, with the
 * remedy. Only regular files are opened: reading a pipe or a device might never end.
 */
import { closeSync, lstatSync, openSync, readlinkSync, readSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { BasedXLError, escaped } from "../errors.ts";
import { foreignFormat } from "./files-foreign.ts";

/** Both parts follow the path: `${path} ${what}; ${advice}.` */
interface FileProblem {
  what: string;
  advice: string;
  /** True where there is nothing at the path, not even a link. */
  missing: boolean;
}

/** The problem of the file at `path`, as far as its first bytes show; null where there is none. */
export function fileProblem(path: string): FileProblem | null {
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return absence(path);
    if (stat.isDirectory()) return problem("is a folder, not a file", again);
    if (!stat.isFile()) return problem("is no regular file", again);
    return stat.size === 0 ? problem("is empty", again) : contentProblem(headOf(path));
  } catch (error) {
    return readProblem(error as NodeJS.ErrnoException);
  }
}

/** As `fileProblem`, for safetensors files, which begin with a length and never with text. */
export function weightsProblem(path: string): FileProblem | null {
  const found = fileProblem(path);
  if (found !== null) return found;
  const whole = headOf(path);
  const foreign = foreignFormat(path, whole);
  if (foreign !== null) return problem(foreign.what, foreign.advice);
  const head = whole.subarray(0, 60);
  const isText = head.subarray(0, 8).every((byte) => byte >= 32 || (byte >= 9 && byte <= 13));
  if (!isText || head.length === 0) return null;
  return problem(`is text that begins with "${escaped(head.toString(), 40)}", not weights`, again);
}

/**
 * True for any entry at `path`, also a dangling link, and for a path that cannot be looked at: what
 * is wrong is reported by whoever reads it, not left out.
 */
export function isPresent(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return true;
  }
}

/** A problem as the end of a sentence: `${path} ${sentenceOf(problem)}`. */
export function sentenceOf({ what, advice }: FileProblem): string {
  return `${what}; ${advice}.`;
}

/** What is wrong with a file that could not be read. */
export function readProblem({ code, message }: NodeJS.ErrnoException): FileProblem {
  if (code === "ELOOP") return problem("is behind a link that leads back to itself", again);
  if (code === "ENOTDIR") return problem("cannot be there: a folder above it is a file", again);
  const advice = code === "EIO" ? "check its disk" : "check its permissions";
  return problem(`cannot be read (${escaped(message)})`, advice);
}

/**
 * The UTF-8 text of the file at `path`, without a byte order mark. Throws "bad-model"; `needed` is
 * the advice where the file is missing.
 */
export async function readTextFile(path: string, needed: string): Promise<string> {
  const refuse = (found: FileProblem) =>
    new BasedXLError("bad-model", `${path} ${sentenceOf(found)}`);
  const found = fileProblem(path);
  if (found !== null) throw refuse(found.missing ? { ...found, advice: needed } : found);
  const size = statSync(path).size;
  if (size > textBytesMax) {
    throw refuse(problem(`has ${size} bytes, which is too much for a text file`, again));
  }
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw refuse(readProblem(error));
  });
  const [first, second] = bytes;
  const hasMark = (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff);
  if (hasMark || first === 0 || second === 0) {
    throw refuse(problem("is UTF-16 text, but models' files are UTF-8", "save it as UTF-8"));
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw refuse(problem("is not UTF-8 text", again));
  }
}

// --- internal ---

const again = "download it again";
/** CLIP's largest file has 4 MB. */
const textBytesMax = 2 ** 28;
const headBytes = 1024;

function problem(what: string, advice: string, missing = false): FileProblem {
  return { what, advice, missing };
}

function absence(path: string): FileProblem {
  const link = lstatSync(path, { throwIfNoEntry: false });
  if (link === undefined) return problem("does not exist", again, true);
  const target = escaped(readlinkSync(path), 100);
  return problem(
    `is a link to ${target}, which does not exist`,
    "the download is not whole: `basedxl pull` completes it",
  );
}

function headOf(path: string): Buffer {
  const file = openSync(path, "r");
  try {
    const head = Buffer.alloc(headBytes);
    return head.subarray(0, readSync(file, head, 0, headBytes, 0));
  } finally {
    closeSync(file);
  }
}

function contentProblem(head: Buffer): FileProblem | null {
  // Some programs reserve the whole file first and fill it in any order.
  if (head.length >= 8 && head.every((byte) => byte === 0)) {
    return problem("begins with zeros: its download was not finished", again);
  }
  const text = head.toString("latin1").replace(/^\u00ef\u00bb\u00bf/, "");
  if (/^version https:\/\/(git-lfs|hawser)\.github\.com\//.test(text)) {
    return problem(
      "is a Git LFS pointer, not the file that it stands for",
      "run `git lfs pull` in the model's folder, or get the model with `basedxl pull`",
    );
  }
  if (/^\s*<(!doctype\s+html|html|head|\?xml)\b/i.test(text)) {
    return problem(
      "is a web page, not the file that its name promises",
      "get the model with `basedxl pull`",
    );
  }
  return null;
}
