/**
 * Figures behind the bars of tests: with BASEDXL_SHOW_MEASURED=1 each is printed beside what is
 * allowed, as `bun run bench parity` prints its own.
 */

/** `figure`, for the caller's `expect`. */
export function measured(what: string, figure: number, allowed: number): number {
  if (process.env.BASEDXL_SHOW_MEASURED === "1") {
    process.stdout.write(`measured ${figure.toExponential(1)}, allowed ${allowed}: ${what}\n`);
  }
  return figure;
}
