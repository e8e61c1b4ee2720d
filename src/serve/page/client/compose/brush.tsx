/**
 * A mask painted over an image: white is generated anew, black stays. Strokes are kept as paths, so
 * that they can be taken back one by one and drawn at the image's own size.
 */
import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Cursor, type Point, useBrushKeys } from "./brush-keys.tsx";

export interface Stroke {
  erases: boolean;
  /** Diameter, relative to the image's width. */
  size: number;
  /** x and y, relative to the image's sides. */
  points: readonly Point[];
}

interface BrushProps {
  /** Address of the image. */
  image: string;
  strokes: readonly Stroke[];
  onChange(strokes: readonly Stroke[]): void;
}

export function Brush({ image, strokes, onChange }: BrushProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const size = useSignal(12);
  const erases = useSignal(false);
  const current = useSignal<Stroke | null>(null);
  const all = current.value === null ? strokes : [...strokes, current.value];
  useEffect(() => {
    if (canvas.current) draw(canvas.current, all, "#e4572e");
  }, [all]);
  const paint = (event: PointerEvent) => {
    if (event.buttons !== 1 || canvas.current === null) return;
    const point = pointOf(event, canvas.current);
    const stroke = current.value ?? { erases: erases.value, size: size.value / 100, points: [] };
    current.value = { ...stroke, points: [...stroke.points, point] };
  };
  const end = () => {
    if (current.value) onChange([...strokes, current.value]);
    current.value = null;
  };
  const keys = useBrushKeys((points) => {
    onChange([...strokes, { erases: erases.value, size: size.value / 100, points }]);
  });
  return (
    <div class="brush">
      <div
        class="brush-picture"
        role="application"
        aria-label={keys.label}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the keys paint
        tabIndex={0}
        {...keys.handlers}
      >
        <img
          src={image}
          alt="What the job starts with"
          draggable={false}
          onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) => {
            if (canvas.current === null) return;
            canvas.current.width = naturalWidth;
            canvas.current.height = naturalHeight;
            draw(canvas.current, all, "#e4572e");
          }}
        />
        <canvas
          ref={canvas}
          onPointerDown={(event) => {
            event.currentTarget.setPointerCapture(event.pointerId);
            paint(event);
          }}
          onPointerMove={paint}
          onPointerUp={end}
          onPointerCancel={end}
        />
        {keys.cursor && <Cursor at={keys.cursor} size={size.value} />}
      </div>
      <Controls {...{ strokes, onChange, size, erases }} />
    </div>
  );
}

/** The mask as a PNG of the image's size. */
export async function maskOf(
  strokes: readonly Stroke[],
  size: { width: number; height: number },
): Promise<Blob> {
  const layer = new OffscreenCanvas(size.width, size.height);
  draw(layer, strokes, "#fff");
  const mask = new OffscreenCanvas(size.width, size.height);
  const context = mask.getContext("2d")!;
  context.fillStyle = "#000";
  context.fillRect(0, 0, size.width, size.height);
  context.drawImage(layer, 0, 0);
  return await mask.convertToBlob({ type: "image/png" });
}

// --- internal ---

interface ControlsProps extends Pick<BrushProps, "strokes" | "onChange"> {
  /** Diameter in percent of the width. */
  size: Signal<number>;
  erases: Signal<boolean>;
}

function Controls({ strokes, onChange, size, erases }: ControlsProps) {
  return (
    <div class="brush-controls">
      <input
        type="range"
        aria-label="Size of the brush"
        {...{ min: 1, max: 40, value: size.value }}
        onInput={({ currentTarget }) => (size.value = Number(currentTarget.value))}
      />
      <button
        type="button"
        aria-pressed={erases.value}
        onClick={() => (erases.value = !erases.value)}
      >
        Erase
      </button>
      <button type="button" onClick={() => onChange(strokes.slice(0, -1))}>
        Undo
      </button>
      <button type="button" onClick={() => onChange([everything])}>
        All
      </button>
      <button type="button" onClick={() => onChange([])}>
        None
      </button>
    </div>
  );
}

/** A stroke that covers the image. */
const everything: Stroke = { erases: false, size: 4, points: [[0.5, 0.5]] };

function draw(
  canvas: HTMLCanvasElement | OffscreenCanvas,
  strokes: readonly Stroke[],
  colour: string,
): void {
  const { width, height } = canvas;
  const context = canvas.getContext("2d") as CanvasRenderingContext2D | null;
  if (context === null) return;
  context.clearRect(0, 0, width, height);
  context.strokeStyle = colour;
  context.lineCap = "round";
  context.lineJoin = "round";
  for (const { erases, size, points } of strokes) {
    context.globalCompositeOperation = erases ? "destination-out" : "source-over";
    context.lineWidth = size * width;
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x * width, y * height);
    // A dot is a line without length.
    const [[x, y] = [0, 0]] = points;
    if (points.length === 1) context.lineTo(x * width + 0.01, y * height);
    context.stroke();
  }
}

function pointOf(event: PointerEvent, canvas: HTMLCanvasElement): [number, number] {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return [(event.clientX - left) / width, (event.clientY - top) / height];
}
