/**
 * The library's functions, to put others in their places.
 */
import { library } from "../../src/native/library.ts";

type Symbols = ReturnType<typeof library>;

export function writableSymbols(): { -readonly [name in keyof Symbols]: Symbols[name] } {
  return library();
}
