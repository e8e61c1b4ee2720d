/**
 * Pictures in terminals, by the protocols of kitty and iTerm2, and as sixel. A picture keeps its
 * place: the next one is drawn over it, as long as no line was printed between.
 * Sources: https://sw.kovidgoyal.net/kitty/graphics-protocol,
 * https://iterm2.com/documentation-images.html
 */

/** By which terminals show pictures; "sixel" is an image of few colours (`sixel.ts`). */
export const pictureProtocols = ["kitty", "iterm", "sixel"] as const;
export type PictureProtocol = (typeof pictureProtocols)[number];

/**
 * The protocol that the environment names; null where the terminal is to be asked, or `stream` is
 * none.
 */
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
  if (/^(iTerm\.app|WezTerm|vscode)$/.test(TERM_PROGRAM)) return "iterm";
  const hasSixel = /^(foot|mlterm|contour|yaft)\b|sixel/.test(TERM) || TERM_PROGRAM === "mintty";
  return hasSixel ? "sixel" : null;
}

/** Whether to ask the terminal: it understands questions, and may be any. */
export function mayBeAsked({ TERM = "dumb" }: Readonly<Record<string, string | undefined>>) {
  return !/^(dumb|linux|vt52|screen)/.test(TERM);
}

/**
 * What shows a picture, of `pictureText`'s protocols or sixel, in `rows` lines, which the cursor is
 * below afterwards; `isAgain` draws over the picture that stands there.
 */
export function placed(picture: string, rows: number, isAgain: boolean): string {
  // Lines are made first: a picture at the bottom would scroll by a height that nobody knows.
  const room = isAgain ? "" : "\n".repeat(rows);
  return `${room}\x1b[${rows}A\r\x1b7${picture}\x1b8\x1b[${rows}B`;
}

/** What shows the PNG file in `rows` lines. */
export function pngText(protocol: "kitty" | "iterm", png: Uint8Array, rows: number): string {
  return protocol === "kitty" ? kittyText(png, rows) : itermText(png, rows);
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
