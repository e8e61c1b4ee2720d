/**
 * Expects a BasedXLError of the given code and returns its message. A plain Error is a bug and
 * fails the test.
 */
import { expect } from "bun:test";
import { BasedXLError, type ErrorCode } from "../../src/errors.ts";

/** Runs `run`, which must be refused with `code`; gives the sentence. */
export async function refusal(run: () => unknown, code: ErrorCode): Promise<string> {
  try {
    await run();
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    expect(error.code).toBe(code);
    return error.message;
  }
  throw new Error("nothing was refused");
}
