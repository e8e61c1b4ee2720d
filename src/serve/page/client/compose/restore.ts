/**
 * The form takes over what an image says of itself, and says what is to be given again.
 */
import type { ImageSettings, Settings } from "../server/wire.ts";
import { note } from "../ui/messages.tsx";
import { hasHint } from "./control.tsx";
import { restore } from "./form.ts";
import { hasSource } from "./source.tsx";

/** `whose` settings they are, as a sentence ends. */
export function takeSettings(said: ImageSettings, whose: string): void {
  restore(said);
  note(`The form has the settings of ${whose}.`);
  for (const sentence of [...missingImages(said.request), ...said.warnings]) note(sentence);
}

// --- internal ---

/** Images are not in the settings of an image. */
function missingImages({ strength, controlnet }: Settings): string[] {
  return [
    ...(strength === undefined || hasSource()
      ? []
      : ["It started from another image: choose that again."]),
    ...(controlnet === undefined || hasHint()
      ? []
      : ["A ControlNet steered it: choose its hint again."]),
  ];
}
