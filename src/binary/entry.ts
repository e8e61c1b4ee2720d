/**
 * Entry of a command in the binary: no set-up is needed. The build replaces src/setup/entry.ts by
 * this file.
 */

/** Runs `command` and resolves to its exit code. */
export async function runEntry(_argv: string[], command: () => Promise<number>): Promise<number> {
  return await command();
}
