/**
 * Reads the JSON of a safetensors header value by value, from bytes that nobody vouches for: depth
 * is limited, nothing is kept that was not asked for, and keys that come twice are seen twice. Its
 * grammar is that of zig/weights/safetensors.zig: RFC 8259, with UTF-8 and surrogates in pairs.
 */

/** The text breaks the grammar. */
export class NotJson extends Error {}

/** The text is nested deeper than `depthMax`. */
export class TooDeep extends Error {}

/** Limit of serde_json, the parser of the reference implementation. */
export const depthMax = 128;

export class JsonReader {
  private at = 0;
  private depth = 0;
  /** A letter for each byte: texts of it are cheap to look at and to cut. */
  private readonly letters: string;

  constructor(private readonly bytes: Buffer) {
    this.letters = bytes.toString("latin1");
  }

  /** Whether the next value is an object, which is then open: `keys` are next. */
  opensObject(): boolean {
    return this.opens(openBrace);
  }

  /** The keys of the object that was opened; each one's value must be read before the next key. */
  *keys(): Generator<string> {
    if (this.closes(closeBrace)) return;
    for (;;) {
      if (this.peek() !== quote) throw new NotJson();
      const key = this.text();
      if (this.peek() !== colon) throw new NotJson();
      this.at++;
      yield key;
      if (this.closes(closeBrace)) return;
      this.comma();
    }
  }

  /** The next value if it is a string; else null, and nothing is read. */
  string(): string | null {
    return this.peek() === quote ? this.text() : null;
  }

  /**
   * The next value as a list of at most `countMax` whole numbers from 0 to 2^64 - 1, as bigint
   * where a number is not exact; null where it is anything else, and reading cannot go on.
   */
  counts(countMax: number): (number | bigint)[] | null {
    if (!this.opens(openBracket)) return null;
    const list: (number | bigint)[] = [];
    if (this.closes(closeBracket)) return list;
    for (;;) {
      const count = list.length < countMax ? this.count() : null;
      if (count === null) return null;
      list.push(count);
      if (this.closes(closeBracket)) return list;
      this.comma();
    }
  }

  /** Skips a value of any kind and returns its text. */
  skip(): { start: number; end: number } {
    this.peek();
    const start = this.at;
    this.skipValue();
    return { start, end: this.at };
  }

  textOf({ start, end }: { start: number; end: number }): string {
    return this.bytes.toString("utf8", start, end);
  }

  /** Throws unless nothing is left but space. */
  end(): void {
    if (!Number.isNaN(this.peek())) throw new NotJson();
  }

  // --- internal ---

  private skipValue(): void {
    const first = this.peek();
    if (first === quote) {
      this.text();
    } else if (first === openBrace) {
      this.opens(openBrace);
      for (const _ of this.keys()) this.skipValue();
    } else if (first === openBracket) {
      this.opens(openBracket);
      if (this.closes(closeBracket)) return;
      do this.skipValue();
      while (!this.closes(closeBracket) && this.comma());
    } else if (first === minus || isDigit(first)) {
      this.number();
    } else if (!literals.some((word) => this.literal(word))) {
      throw new NotJson();
    }
  }

  /** The next byte that is no space; NaN at the end. */
  private peek(): number {
    let byte = this.letters.charCodeAt(this.at);
    while (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) {
      byte = this.letters.charCodeAt(++this.at);
    }
    return byte;
  }

  private opens(bracket: number): boolean {
    if (this.peek() !== bracket) return false;
    this.at++;
    this.depth++;
    if (this.depth >= depthMax) throw new TooDeep();
    return true;
  }

  private closes(bracket: number): boolean {
    if (this.peek() !== bracket) return false;
    this.at++;
    this.depth--;
    return true;
  }

  private comma(): true {
    if (this.peek() !== comma) throw new NotJson();
    this.at++;
    return true;
  }

  private literal(word: string): boolean {
    if (!this.letters.startsWith(word, this.at)) return false;
    this.at += word.length;
    return true;
  }

  /** A whole number of 64 bits without a sign, else null. */
  private count(): number | bigint | null {
    if (!isDigit(this.peek())) return null;
    const start = this.at;
    this.number();
    const text = this.letters.slice(start, this.at);
    if (!isWhole(text)) return null;
    if (text.length <= 15) return Number(text);
    // Longer ones are no numbers of 64 bits, and would take time to read.
    const exact = text.length <= 20 ? BigInt(text) : countMax + 1n;
    if (exact > countMax) return null;
    return exact <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(exact) : exact;
  }

  private number(): void {
    const byteAt = () => this.letters.charCodeAt(this.at);
    if (byteAt() === minus) this.at++;
    if (byteAt() === zero) this.at++;
    else this.digits();
    if (byteAt() === dot) {
      this.at++;
      this.digits();
    }
    if (byteAt() === lowerE || byteAt() === upperE) {
      this.at++;
      if (byteAt() === plus || byteAt() === minus) this.at++;
      this.digits();
    }
  }

  private digits(): void {
    if (!isDigit(this.letters.charCodeAt(this.at))) throw new NotJson();
    while (isDigit(this.letters.charCodeAt(this.at))) this.at++;
  }

  /** The string that begins at the quote where the reader is. */
  private text(): string {
    const { letters } = this;
    const start = this.at;
    const quoteAt = letters.indexOf('"', start + 1);
    if (quoteAt < 0) throw new NotJson();
    const plain = letters.slice(start + 1, quoteAt);
    if (!notPlain.test(plain)) {
      this.at = quoteAt + 1;
      return plain;
    }
    let at = start + 1;
    for (; letters.charCodeAt(at) !== quote; at++) {
      if (at >= letters.length) throw new NotJson();
      if (letters.charCodeAt(at) === backslash) at++;
    }
    this.at = at + 1;
    return decoded(this.bytes.subarray(start, this.at));
  }
}

// --- internal ---

const [openBrace, closeBrace, openBracket, closeBracket] = [0x7b, 0x7d, 0x5b, 0x5d];
const [quote, backslash, colon, comma] = [0x22, 0x5c, 0x3a, 0x2c];
const [zero, minus, plus, dot, lowerE, upperE] = [0x30, 0x2d, 0x2b, 0x2e, 0x65, 0x45];
// What can stand in a string as it is: letters of ASCII but the quote and the backslash.
const notPlain = /[^ !#-[\]-~\x7f]/;
const literals = ["true", "false", "null"];
const countMax = 2n ** 64n - 1n;
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** NaN is the end of the text. */
function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}

function isWhole(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (!isDigit(text.charCodeAt(at))) return false;
  return true;
}

/** A string with escapes or letters beyond ASCII, in its quotes. */
function decoded(bytes: Buffer): string {
  let text: string;
  try {
    text = JSON.parse(decoder.decode(bytes)) as string;
  } catch {
    throw new NotJson();
  }
  // JavaScript's parser takes half a pair.
  if (!text.isWellFormed()) throw new NotJson();
  return text;
}
