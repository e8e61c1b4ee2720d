/**
 * How tests look at a user's mistake: it must be a BasedXLError of the right kind, and its sentence
 * is what the test then reads. A plain Error is a bug of ours and fails the test.
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
