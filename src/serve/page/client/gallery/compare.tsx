/**
 * Two images on top of each other: a slider between them, or how far they differ as an overlay.
 */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { type Difference, differenceOf, drawDifference } from "./difference.ts";
import { Frame } from "./frame.tsx";
import { fileAddress } from "./images.ts";

interface ComparisonProps {
  first: string;
  second: string;
  /** Over both. */
  children?: ComponentChildren;
}

export function Comparison({ first, second, children }: ComparisonProps) {
  const share = useSignal(50);
  const isDifference = useSignal(false);
  const frame = useRef<HTMLDivElement>(null);
  useEffect(() => frame.current?.style.setProperty("--at", `${share.value}%`), [share.value]);
  const drag = (event: PointerEvent) => {
    if (event.buttons !== 1 || frame.current === null) return;
    const { left, width } = frame.current.firstElementChild!.getBoundingClientRect();
    share.value = Math.min(100, Math.max(0, (100 * (event.clientX - left)) / width));
  };
  return (
    <>
      <div class="comparison" ref={frame} onPointerDown={drag} onPointerMove={drag}>
        <Frame address={fileAddress(first)} alt="The first one">
          <img class="second" src={fileAddress(second)} alt="The second one" draggable={false} />
          {isDifference.value ? <Overlay {...{ first, second }} /> : <span class="handle" />}
          {children}
        </Frame>
      </div>
      <div class="comparison-controls">
        <input
          type="range"
          aria-label="Share of the first image"
          {...{ min: 0, max: 100, value: share.value, disabled: isDifference.value }}
          onInput={({ currentTarget }) => (share.value = Number(currentTarget.value))}
        />
        <label class="check">
          <input
            type="checkbox"
            checked={isDifference.value}
            onChange={({ currentTarget }) => (isDifference.value = currentTarget.checked)}
          />
          Difference
        </label>
      </div>
    </>
  );
}

// --- internal ---

function Overlay({ first, second }: { first: string; second: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  /** How far they differ, or why that cannot be said. */
  const words = useSignal<string | null>(null);
  useEffect(() => {
    differenceOf(fileAddress(first), fileAddress(second)).then(
      (difference) => {
        words.value = wordsOf(difference);
        if (canvas.current) drawDifference(canvas.current, difference);
      },
      (error: Error) => {
        words.value = error.message;
      },
    );
  }, [first, second]);
  return (
    <>
      <canvas ref={canvas} class="difference" role="img" aria-label="Where the images differ" />
      {words.value && (
        <p class="badge" role="status">
          {words.value}
        </p>
      )}
    </>
  );
}

function wordsOf({ psnr, largest }: Difference): string {
  if (largest === 0) return "The images are equal";
  return `${psnr.toFixed(1)} dB PSNR, ${largest} of 255 at most`;
}
