/**
 * What is fuzzed: how a target makes a case and what it does with it. A case ends well, or in a
 * BasedXLError whose message is one sentence; anything else is a crash.
 */
import { BasedXLError } from "../../src/errors.ts";
import type { Random } from "./random.ts";

export interface Target {
  name: string;
  make(random: Random): unknown;
  run(value: never): void | Promise<void>;
}

/** A target whose cases are of one type. */
export function target<T>(
  name: string,
  make: (random: Random) => T,
  run: (value: T) => unknown,
): Target {
  return {
    name,
    make,
    async run(value: T) {
      try {
        await run(value);
      } catch (error) {
        if (!(error instanceof BasedXLError)) throw error;
        if (!/^[^\p{Cc}\u2028\u2029]{4,8000}$/u.test(error.message)) {
          throw new Error(`no sentence: ${JSON.stringify(error.message)}`);
        }
      }
    },
  };
}
