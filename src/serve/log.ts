/**
 * The server's log on stderr: lines for people on a terminal, else JSON, an object a line. Foreign
 * text is escaped.
 */
import { escaped } from "../errors.ts";

type Fields = Readonly<Record<string, string | number | boolean | null | undefined>>;
type Level = "debug" | "info" | "warn" | "error";

/** `event` is a name for machines, such as "job_done". */
type Write = (event: string, fields?: Fields) => void;
export type ServeLog = Record<Level, Write>;

interface LogOptions {
  format: string;
  verbose: boolean;
}

/** `target` is stderr except in tests. */
export function createLog(
  { format, verbose }: LogOptions,
  target: Pick<NodeJS.WriteStream, "write" | "isTTY"> = process.stderr,
): ServeLog {
  const isJson = format === "json" || (format === "auto" && target.isTTY !== true);
  const at =
    (level: Level): Write =>
    (event, fields = {}) => {
      if (level === "debug" && !verbose) return;
      target.write(`${isJson ? jsonLine(level, event, fields) : textLine(level, event, fields)}\n`);
    };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

// --- internal ---

function jsonLine(level: Level, event: string, fields: Fields): string {
  const time = new Date().toISOString();
  return escaped(JSON.stringify({ time, level, event, ...fields }));
}

function textLine(level: Level, event: string, fields: Fields): string {
  const time = new Date().toTimeString().slice(0, 8);
  const word = level === "warn" || level === "error" ? ` ${level}:` : "";
  const parts = Object.entries(fields).flatMap(([name, value]) => {
    return value === undefined ? [] : [`${name}=${shown(value)}`];
  });
  return escaped([`${time}${word} ${event.replaceAll("_", " ")}`, ...parts].join(" "));
}

function shown(value: unknown): string {
  return typeof value === "string" && /[\s"]/.test(value) ? JSON.stringify(value) : String(value);
}
