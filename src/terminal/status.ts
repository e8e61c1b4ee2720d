/**
 * One line on stderr that says what is being done, rewritten in place; nothing where stderr is no
 * terminal.
 */
import { escaped } from "../errors.ts";

interface StatusLine {
  show(text: string): void;
  clear(): void;
}

/** `target` is stderr except in tests. */
export function createStatusLine(
  target: Pick<NodeJS.WriteStream, "isTTY" | "columns" | "write"> = process.stderr,
  clockMs: () => number = () => performance.now(),
): StatusLine {
  let isShown = false;
  let shownMs = Number.NEGATIVE_INFINITY;
  return {
    show(text) {
      if (target.isTTY !== true || clockMs() - shownMs < redrawMsMin) return;
      shownMs = clockMs();
      isShown = true;
      // One column stays free: a full line makes some terminals scroll.
      target.write(clearLine + escaped(text).slice(0, (target.columns || 80) - 1));
    },
    clear() {
      if (isShown) target.write(clearLine);
      isShown = false;
    },
  };
}

// --- internal ---

const clearLine = "\r\x1b[K";
const redrawMsMin = 100;
