/**
 * An image dropped or pasted anywhere gives the form its settings.
 */
import { signal } from "@preact/signals";
import { takeSettings } from "../compose/restore.ts";
import { callJson } from "../server/api.ts";
import type { ImageSettings } from "../server/wire.ts";
import { attempt } from "./messages.tsx";

const isOver = signal(false);

export function DropTarget() {
  if (!isOver.value) return null;
  return (
    <div class="drop" aria-hidden="true">
      <p>Drop the image to take over its settings</p>
    </div>
  );
}

export function listenForDrops(): void {
  window.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    isOver.value = true;
  });
  window.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) isOver.value = false;
  });
  window.addEventListener("drop", (event) => {
    isOver.value = false;
    takeFrom(event.dataTransfer, event);
  });
  window.addEventListener("paste", (event) => takeFrom(event.clipboardData, event));
}

// --- internal ---

function takeFrom(data: DataTransfer | null, event: Event): void {
  const file = [...(data?.files ?? [])].find(({ type }) => type.startsWith("image/"));
  if (file === undefined) return;
  event.preventDefault();
  void attempt(async () => {
    const said = await callJson<ImageSettings>("/metadata", {
      method: "POST",
      body: file,
      headers: { "content-type": file.type },
    });
    if (said.tool === null) throw new Error(`${file.name} says nothing of its settings.`);
    takeSettings(said, `${file.name}, written by ${said.tool}`);
  });
}
