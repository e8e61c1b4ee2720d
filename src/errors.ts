/**
 * The error class for failures that are not bugs: bad input, missing files, devices. Its message is
 * a whole sentence that names the input and a remedy; users see it without a stack trace.
 */

/** The kind of an error; scripts read it from `--json` output. */
export type ErrorCode =
  | "bad-option"
  | "bad-model"
  | "bad-weights"
  | "download"
  | "no-memory"
  | "no-device"
  | "not-finite"
  | "cancelled"
  | "rank-failed"
  | "gpu-failed"
  | "io"
  | "setup"
  | "internal";

/** An error for the user. Bugs are plain `Error`s and keep their stack trace. */
export class BasedXLError extends Error {
  override readonly name = "BasedXLError";
  /** Whether the pipeline can run no other job: close it and open a new one. */
  sessionLost = false;

  constructor(
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** The error of a setting that cannot be what it is. */
export function badOption(message: string): BasedXLError {
  return new BasedXLError("bad-option", message);
}

/** The error of a file or folder of weights at `path`, which `what` goes on about. */
export function badWeights(path: string, what: string): BasedXLError {
  return new BasedXLError("bad-weights", `${escaped(path, 300)} ${what}.`);
}

/** Throws "cancelled" once `signal` is aborted. */
export function stopIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled();
}

/** The error of work that was asked to stop. */
export function cancelled(message = "Stopped before the image was done."): BasedXLError {
  return new BasedXLError("cancelled", message);
}

/**
 * Escapes foreign text for messages: control characters, line separators and bidirectional
 * overrides, which a terminal would interpret, become \u001b; cut after `lengthMax` characters.
 */
export function escaped(text: string, lengthMax = Number.POSITIVE_INFINITY): string {
  const shown = text.length > lengthMax ? `${text.slice(0, lengthMax)} ...` : text;
  return shown.replace(
    /[\p{Cc}\p{Cs}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** As `escaped`, for text that has lines of its own, such as the output of a tool or a stack. */
export function escapedLines(text: string): string {
  return text
    .split("\n")
    .map((line) => escaped(line))
    .join("\n");
}
