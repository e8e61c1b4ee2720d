/**
 * How a command of the binary starts: at once, since nothing needs setting up. Takes the place of
 * src/setup/entry.ts in the build.
 */

/** Runs `command` and resolves to its exit code. */
export async function runEntry(_argv: string[], command: () => Promise<number>): Promise<number> {
  return await command();
}
