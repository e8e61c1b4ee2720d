/**
 * The page: the form, the job that is followed, the queue and the gallery.
 */
import { render } from "preact";
import { Compose } from "./compose/compose.tsx";
import { Gallery } from "./gallery/gallery.tsx";
import { Viewer } from "./gallery/viewer.tsx";
import { stayConnected } from "./server/live.ts";
import { Queue } from "./stage/queue.tsx";
import { Stage } from "./stage/stage.tsx";
import { DropTarget, listenForDrops } from "./ui/drop.tsx";
import { Header } from "./ui/header.tsx";
import { KeyDialog } from "./ui/key.tsx";
import { Messages } from "./ui/messages.tsx";
import { listenForShortcuts, Shortcuts } from "./ui/shortcuts.tsx";

function Page() {
  return (
    <>
      <Header />
      <main>
        <Compose />
        <div class="results">
          <Stage />
          <Queue />
          <Gallery />
        </div>
      </main>
      <Viewer />
      <Shortcuts />
      <KeyDialog />
      <DropTarget />
      <Messages />
    </>
  );
}

render(<Page />, document.getElementById("page")!);
listenForShortcuts();
listenForDrops();

const end = new AbortController();
window.addEventListener("pagehide", () => end.abort());
// A page from the browser's cache of pages has lost its connection.
window.addEventListener("pageshow", ({ persisted }) => {
  if (persisted) location.reload();
});
void stayConnected(end.signal);
