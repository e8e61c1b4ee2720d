/**
 * An image as large as there is room for, in a frame of its own shape that overlays can fill.
 */
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";

interface FrameProps {
  address: string;
  alt: string;
  children?: ComponentChildren;
}

export function Frame({ address, alt, children }: FrameProps) {
  const frame = useRef<HTMLDivElement>(null);
  return (
    <div class="frame" ref={frame}>
      <img
        src={address}
        alt={alt}
        draggable={false}
        onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) => {
          frame.current?.style.setProperty("--ratio", `${naturalWidth} / ${naturalHeight}`);
        }}
      />
      {children}
    </div>
  );
}
