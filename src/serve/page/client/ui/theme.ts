/**
 * Dark and light: as the system has it, until the user chooses.
 */
import { effect, signal } from "@preact/signals";
import { storedText, storeText } from "./storage.ts";

const storageKey = "basedxl.theme";

/** null for the system's. */
const theme = signal<"dark" | "light" | null>(readTheme());

export function toggleTheme(): void {
  const isDark = theme.value ? theme.value === "dark" : systemIsDark();
  const next = isDark ? "light" : "dark";
  theme.value = (next === "dark") === systemIsDark() ? null : next;
}

// --- internal ---

function systemIsDark(): boolean {
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function readTheme(): "dark" | "light" | null {
  const stored = storedText("localStorage", storageKey);
  return stored === "dark" || stored === "light" ? stored : null;
}

effect(() => {
  const { value } = theme;
  if (value === null) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
  storeText("localStorage", storageKey, value);
});
