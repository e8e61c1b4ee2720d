/**
 * The one error class for what can go wrong in the world. Its message is a whole sentence that
 * names the input and what would work: it is shown to the user as it stands, without a stack trace.
 */

/** What kind of thing went wrong; scripts read it from `--json` output. */
export type ErrorCode =
  | "bad-option"
  | "bad-model"
  | "bad-weights"
  | "no-memory"
  | "no-device"
  | "not-finite"
  | "cancelled"
  | "rank-failed"
  | "gpu-failed"
  | "io"
  | "setup"
  | "internal";

/** An error for the user. Our own bugs are plain `Error`s and keep their stack. */
export class BasedXLError extends Error {
  override readonly name = "BasedXLError";

  constructor(
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** Throws "cancelled" once `signal` is aborted. */
export function stopIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new BasedXLError("cancelled", "Stopped before the image was done.");
}

/** For words out of a model's files: what a terminal would obey is shown, not sent. */
export function withoutControls(text: string): string {
  return text.replace(/\p{Cc}/gu, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
