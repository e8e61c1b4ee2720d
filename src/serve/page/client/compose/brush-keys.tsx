/**
 * The brush by keys: a ring that arrows move over the image, and that paints.
 */
import { useSignal } from "@preact/signals";
import type { TargetedFocusEvent } from "preact";

/** x and y, relative to the image's sides. */
export type Point = readonly [number, number];

/** What the image over which it moves has; `onPaint` gets the points of a line, or one. */
export function useBrushKeys(onPaint: (points: readonly Point[]) => void) {
  const cursor = useSignal<Point | null>(null);
  const onKeyDown = (event: KeyboardEvent) => {
    const from = cursor.value ?? middle;
    const to = moved(from, event.key);
    if (to === null && event.key !== " ") return;
    event.preventDefault();
    cursor.value = to ?? from;
    if (to === null) onPaint([from]);
    else if (event.shiftKey) onPaint([from, to]);
  };
  const onFocus = ({ currentTarget }: TargetedFocusEvent<HTMLElement>) => {
    if (currentTarget.matches(":focus-visible")) cursor.value ??= middle;
  };
  const onBlur = () => {
    cursor.value = null;
  };
  return { label, cursor: cursor.value, handlers: { onKeyDown, onFocus, onBlur } };
}

/** Where the keys' brush is; `size` in percent of the width. */
export function Cursor({ at: [x, y], size }: { at: Point; size: number }) {
  return (
    <span
      class="brush-cursor"
      ref={(ring) => {
        ring?.style.setProperty("left", `${100 * x}%`);
        ring?.style.setProperty("top", `${100 * y}%`);
        ring?.style.setProperty("width", `${size}%`);
      }}
    />
  );
}

// --- internal ---

const label =
  "Mask: paint what is to be generated anew. Arrows move the brush, Space paints, Shift with " +
  "arrows paints a line.";
const middle: Point = [0.5, 0.5];
/** Of an image's side, at each key. */
const stepOfKeys = 0.04;
const directions: Readonly<Record<string, Point>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/** null for other keys. */
function moved([x, y]: Point, key: string): Point | null {
  const direction = directions[key];
  if (direction === undefined) return null;
  const inside = (place: number) => Math.min(1, Math.max(0, place));
  return [inside(x + stepOfKeys * direction[0]), inside(y + stepOfKeys * direction[1])];
}
