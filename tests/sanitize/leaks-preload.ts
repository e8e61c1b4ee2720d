/**
 * Runs before the tests of `bun run sanitize leaks`: they load the library that looks for leaks,
 * which ends the process where it finds one. Nothing is looked for while a session is open, so
 * tests that leave one open fail.
 */
import { afterAll, expect } from "bun:test";
import { join } from "node:path";
import { resources } from "../../src/resources.ts";
import { libraryName } from "../../src/setup/platform.ts";
import { repositoryRoot } from "../../src/setup.ts";
import { writableSymbols } from "./symbols.ts";

export const libraryPath = join(repositoryRoot, "zig-out/leaks/lib", libraryName(process.platform));
resources.nativeLibrary = () => libraryPath;

const symbols = writableSymbols();
const { bxl_session_open: open, bxl_session_free: free } = symbols;
let openCount = 0;
let checkCount = 0;
symbols.bxl_session_open = ((...args: Parameters<typeof open>) => {
  const status = open(...args);
  if (status === 0) openCount += 1;
  return status;
}) as typeof open;
symbols.bxl_session_free = ((session: Parameters<typeof free>[0]) => {
  free(session);
  openCount -= 1;
  if (openCount === 0) checkCount += 1;
}) as typeof free;

afterAll(() => {
  process.stderr.write(`${checkCount} checks for leaks.\n`);
  expect({ openCount, isChecked: checkCount > 0 }).toEqual({ openCount: 0, isChecked: true });
});
