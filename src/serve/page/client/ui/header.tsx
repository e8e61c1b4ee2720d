/**
 * The line at the top: whether the server is there, what waits, dark or light, the keys.
 */
import { activeJobs, waitingCount } from "../server/jobs.ts";
import { connection } from "../server/live.ts";
import { progressText } from "./format.ts";
import { IconButton } from "./icons.tsx";
import { shortcutsOpen } from "./shortcuts.tsx";
import { toggleTheme } from "./theme.ts";

export function Header() {
  return (
    <header>
      <h1>
        <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">
          <rect x="2" y="2" width="20" height="6" rx="1.5" />
          <rect x="2" y="9" width="20" height="6" rx="1.5" />
          <rect x="2" y="16" width="20" height="6" rx="1.5" />
        </svg>
        BasedXL
      </h1>
      <p class="state" data-state={connection.value} role="status">
        {stateText()}
      </p>
      <IconButton
        icon="theme"
        label="Dark or light"
        title="Dark or light (t)"
        onClick={toggleTheme}
      />
      <IconButton
        icon="help"
        label="Keys"
        title="Keys (?)"
        onClick={() => (shortcutsOpen.value = true)}
      />
    </header>
  );
}

// --- internal ---

function stateText(): string {
  if (connection.value === "lost") return "The server does not answer: trying again";
  if (connection.value === "connecting") return "Connecting";
  const [first] = activeJobs.value;
  if (first === undefined) return "Ready";
  const { length } = activeJobs.value;
  if (first.state === "queued") return `${length} waiting`;
  const waiting = waitingCount.value === 0 ? "" : `, ${waitingCount.value} waiting`;
  return `${first.progress?.stage === "denoise" ? "Generating" : progressText(first)}${waiting}`;
}
