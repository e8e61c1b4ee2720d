/**
 * Short messages above the page: errors stay until they are closed, notes go by themselves.
 */
import { signal } from "@preact/signals";
import { ApiError } from "../server/api.ts";
import { IconButton } from "./icons.tsx";

interface Message {
  id: number;
  kind: "error" | "note";
  text: string;
}

const messages = signal<readonly Message[]>([]);
const messageCountMax = 4;
/** How long a note stays: as long as reading it takes. */
const noteMs = (text: string) => 4000 + 50 * text.length;
let nextId = 1;

export function note(text: string): void {
  const id = add("note", text);
  setTimeout(() => close(id), noteMs(text));
}

/** An error as the sentence that it is. One that is already there is not repeated. */
export function report(error: unknown): void {
  if (error instanceof Error && error.name === "AbortError") return;
  // The dialog for the key says it.
  if (error instanceof ApiError && error.status === 401) return;
  const text = error instanceof Error ? error.message : String(error);
  if (!messages.value.some((message) => message.text === text)) add("error", text);
}

/** Runs `work` and reports what goes wrong. */
export async function attempt(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    report(error);
  }
}

export function Messages() {
  return (
    <div class="messages">
      {/* Both regions exist before the first message, or readers would not say it. */}
      <div role="alert">{rows("error")}</div>
      <div role="status">{rows("note")}</div>
    </div>
  );
}

// --- internal ---

function rows(kind: Message["kind"]) {
  return messages.value
    .filter((message) => message.kind === kind)
    .map(({ id, text }) => (
      <p key={id} class={`message ${kind}`}>
        <span>{text}</span>
        <IconButton icon="close" label="Close message" onClick={() => close(id)} />
      </p>
    ));
}

function add(kind: Message["kind"], text: string): number {
  const id = nextId++;
  messages.value = [...messages.value, { id, kind, text }].slice(-messageCountMax);
  return id;
}

function close(id: number): void {
  messages.value = messages.value.filter((message) => message.id !== id);
}
