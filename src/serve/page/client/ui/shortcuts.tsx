/**
 * The page's keys. Single letters work outside of fields alone.
 */
import { signal } from "@preact/signals";
import { generate } from "../compose/compose.tsx";
import { cancelJob, isActive } from "../server/jobs.ts";
import { followed } from "../stage/followed.ts";
import { Dialog } from "./dialog.tsx";
import { attempt } from "./messages.tsx";
import { toggleTheme } from "./theme.ts";

export const shortcutsOpen = signal(false);

const rows = [
  ["Ctrl Enter", "Generate, from anywhere"],
  ["Ctrl ↑ ↓", "Weight of the selected words, the word at the caret, or a LoRA's scale"],
  ["↑ ↓ Enter Tab", "Choose a name that is offered"],
  ["/", "To the prompt"],
  ["x", "Cancel this job"],
  ["← →", "Newer and older image, where one is shown large"],
  ["↑ ↓ ← → Space", "Move the brush over the starting image, paint; with Shift a line"],
  ["t", "Dark or light"],
  ["?", "These keys"],
  ["Esc", "Close what is open"],
] as const;

export function Shortcuts() {
  return (
    <Dialog title="Keys" open={shortcutsOpen}>
      <dl class="keys">
        {rows.map(([keys, what]) => (
          <div key={keys}>
            <dt>
              {keys.split(" ").map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <button type="button" onClick={() => (shortcutsOpen.value = false)}>
        Close
      </button>
    </Dialog>
  );
}

export function listenForShortcuts(): void {
  window.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      finishTyping();
      void generate();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
    const action = actions[event.key];
    if (action === undefined || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    action();
  });
}

// --- internal ---

const actions: Record<string, () => void> = {
  "/": () => document.getElementById("field-prompt")?.focus(),
  "?": () => {
    shortcutsOpen.value = true;
  },
  t: toggleTheme,
  x: () => {
    const job = followed.value;
    if (job && isActive(job)) void attempt(() => cancelJob(job.id));
  },
};

/** A box's value counts once it is left. */
function finishTyping(): void {
  const box = document.activeElement;
  if (!(box instanceof HTMLInputElement)) return;
  box.blur();
  box.focus();
}

function isField(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input, textarea, select");
}
