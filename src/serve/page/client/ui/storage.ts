/**
 * Texts that the browser keeps for the page, over reloads. A browser that refuses has none, and the
 * page works without them.
 */

/** localStorage is of all tabs and lasts, sessionStorage is of this one. */
type Area = "localStorage" | "sessionStorage";

/** null for nothing. */
export function storedText(area: Area, key: string): string | null {
  try {
    return window[area].getItem(key);
  } catch {
    return null;
  }
}

/** null removes it. */
export function storeText(area: Area, key: string, text: string | null): void {
  try {
    if (text === null) window[area].removeItem(key);
    else window[area].setItem(key, text);
  } catch {
    // What is not kept lasts as long as the page.
  }
}
