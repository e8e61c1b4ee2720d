/**
 * Thumbnails of all images. More are loaded when their end comes into sight.
 */
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { finishedImageCount } from "../server/jobs.ts";
import { connection } from "../server/live.ts";
import { report } from "../ui/messages.tsx";
import {
  fileAddress,
  hasOlder,
  images,
  loadNewest,
  loadOlder,
  thumbnailAddress,
} from "./images.ts";
import { open } from "./viewer.tsx";

export function Gallery() {
  const end = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => {
      if (entry?.isIntersecting) loadOlder().catch(report);
    });
    if (end.current) observer.observe(end.current);
    return () => observer.disconnect();
  }, [hasOlder.value, images.value.length]);
  if (images.value.length === 0) return null;
  return (
    <section class="gallery" aria-labelledby="gallery-title">
      <h2 id="gallery-title">Images</h2>
      <ul>
        {images.value.map(({ name }) => (
          <li key={name}>
            <a
              href={fileAddress(name)}
              aria-label={`Image ${name}`}
              onClick={(event) => {
                if (event.ctrlKey || event.metaKey || event.shiftKey) return;
                event.preventDefault();
                open(name);
              }}
            >
              <img src={thumbnailAddress(name)} alt="" loading="lazy" />
            </a>
          </li>
        ))}
      </ul>
      {hasOlder.value && (
        <button type="button" ref={end} onClick={() => loadOlder().catch(report)}>
          Show older
        </button>
      )}
    </section>
  );
}

effect(() => {
  // Read for their changes: a finished image, or a server that is back.
  finishedImageCount.value;
  if (connection.value === "live") loadNewest().catch(report);
});
