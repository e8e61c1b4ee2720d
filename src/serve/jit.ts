/**
 * How eagerly the JIT compiles a service. Its arithmetic is native; the rest runs a few dozen times
 * in a job. Compiled, all of that takes 10 MB, which come job by job over hundreds of jobs, and
 * saves no time that could be measured. Loops over pixels are compiled, if later: the edges of a
 * hint of a megapixel take 0.1 s of the first jobs, not 0.05.
 */

/** Times as many calls as JavaScriptCore asks for by itself. */
const reluctance = 500;

/** For the rest of the process. */
export function compileLoopsAlone(): void {
  Bun.unsafe.setJITPolicy(reluctance);
}
