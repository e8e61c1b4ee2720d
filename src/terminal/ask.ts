/**
 * What the terminal says of itself: whether it shows sixel (4 among its primary device attributes)
 * and how high a cell is. It is asked once and for a moment, and only where both directions are a
 * terminal. The attributes are asked for last, since every terminal answers them.
 * Source: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html (CSI c, CSI 16 t)
 */

interface TerminalAnswer {
  hasSixel: boolean;
  /** Pixels; null where the terminal does not say. */
  cellHeight: number | null;
}

interface Input {
  isTTY?: boolean | undefined;
  isRaw?: boolean | undefined;
  setRawMode?(isRaw: boolean): unknown;
  on(event: "data", listener: (bytes: Uint8Array) => void): unknown;
  off(event: "data", listener: (bytes: Uint8Array) => void): unknown;
  resume(): unknown;
  pause(): unknown;
}

/** The answer in what a terminal sent; null where its end has not come yet. */
export function readAnswer(text: string): TerminalAnswer | null {
  const answers = text.split("\x1b[");
  const find = (form: RegExp) => answers.map((each) => form.exec(each)?.[1]).find(Boolean);
  const attributes = find(/^\?([\d;]+)c/);
  if (attributes === undefined) return null;
  const height = Number(find(/^6;(\d{1,4});\d{1,4}t/) ?? 0);
  return {
    // The first number is the terminal's class.
    hasSixel: attributes.split(";").slice(1).includes("4"),
    cellHeight: height > 0 ? height : null,
  };
}

/** null where there is nobody to ask, or no answer in time. */
export async function askTerminal(
  input: Input,
  output: Pick<NodeJS.WriteStream, "isTTY" | "write">,
  limitMs = answerLimitMs,
): Promise<TerminalAnswer | null> {
  if (input.isTTY !== true || output.isTTY !== true || input.setRawMode === undefined) return null;
  const wasRaw = input.isRaw ?? false;
  // Else the answer would be shown, and wait for the end of a line.
  input.setRawMode(true);
  const { promise, resolve } = Promise.withResolvers<TerminalAnswer | null>();
  let text = "";
  const listen = (bytes: Uint8Array) => {
    text += Buffer.from(bytes).toString("latin1");
    // In raw mode Ctrl-C is a letter.
    if (text.includes("\x03")) process.kill(process.pid, "SIGINT");
    const answer = readAnswer(text);
    if (answer !== null || text.includes("\x03")) resolve(answer);
  };
  const timer = setTimeout(() => resolve(null), limitMs);
  input.on("data", listen);
  input.resume();
  output.write("\x1b[16t\x1b[c");
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    input.off("data", listen);
    input.setRawMode(wasRaw);
    input.pause();
  }
}

// --- internal ---

/** Over a slow connection an answer takes a tenth of a second. */
const answerLimitMs = 300;
