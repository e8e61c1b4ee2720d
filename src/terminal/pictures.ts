/**
 * Pictures in terminals, by the protocols of kitty and iTerm2. A picture keeps its place: the next
 * one is drawn over it, as long as no line was printed between.
 * Sources: https://sw.kovidgoyal.net/kitty/graphics-protocol,
 * https://iterm2.com/documentation-images.html
 */

export type PictureProtocol = "kitty" | "iterm";

/** The protocol of the terminal behind `stream`; null where it shows no pictures, or is none. */
export function pictureProtocol(
  env: Readonly<Record<string, string | undefined>>,
  isTerminal: boolean,
): PictureProtocol | null {
  const { TERM = "", TERM_PROGRAM = "", KITTY_WINDOW_ID, TMUX } = env;
  // tmux and screen swallow them.
  if (!isTerminal || TMUX !== undefined || /^(screen|tmux|dumb)/.test(TERM)) return null;
  if (KITTY_WINDOW_ID !== undefined || /kitty|ghostty/i.test(`${TERM} ${TERM_PROGRAM}`)) {
    return "kitty";
  }
  return /^(iTerm\.app|WezTerm|vscode)$/.test(TERM_PROGRAM) ? "iterm" : null;
}

/**
 * What shows the PNG file in `rows` lines, which the cursor is below afterwards; `isAgain` draws
 * over the picture that stands there.
 */
export function pictureText(
  protocol: PictureProtocol,
  png: Uint8Array,
  rows: number,
  isAgain: boolean,
): string {
  // Lines are made first: a picture at the bottom would scroll by a height that nobody knows.
  const room = isAgain ? "" : "\n".repeat(rows);
  const picture = protocol === "kitty" ? kittyText(png, rows) : itermText(png, rows);
  return `${room}\x1b[${rows}A\r\x1b7${picture}\x1b8\x1b[${rows}B`;
}

// --- internal ---

/** Of base64, in one command. */
const kittyPieceMax = 4096;
/** A number for the picture: the same one again replaces it. */
const kittyId = 1919;

function kittyText(png: Uint8Array, rows: number): string {
  const text = Buffer.from(png).toString("base64");
  const pieces = text.match(new RegExp(`.{1,${kittyPieceMax}}`, "g")) ?? [""];
  return pieces
    .map((piece, index) => {
      const head = index === 0 ? `a=T,f=100,q=2,C=1,i=${kittyId},p=1,r=${rows},` : "";
      return `\x1b_G${head}m=${index < pieces.length - 1 ? 1 : 0};${piece}\x1b\\`;
    })
    .join("");
}

function itermText(png: Uint8Array, rows: number): string {
  const text = Buffer.from(png).toString("base64");
  return `\x1b]1337;File=inline=1;size=${png.length};height=${rows}:${text}\x07`;
}
