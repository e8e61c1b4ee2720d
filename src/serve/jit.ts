/**
 * How eagerly the JIT compiles a service. Its arithmetic is native; the rest runs a few dozen times
 * in a job. Compiled, all of that takes 10 MB, which come job by job over the first hundred, and
 * saves no time that could be measured. Loops over pixels are compiled as ever.
 */

/** Times as many calls as JavaScriptCore asks for by itself. */
const reluctance = 50;

/** For the rest of the process. */
export function compileLoopsAlone(): void {
  Bun.unsafe.setJITPolicy(reluctance);
}
