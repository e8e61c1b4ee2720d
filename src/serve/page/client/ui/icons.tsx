/**
 * The page's icons, drawn as strokes of the text's colour, and buttons that have nothing else.
 */

const paths = {
  close: "M4 4l8 8M12 4l-8 8",
  dice:
    "M3.5 2.5h9a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1h-9a1 1 0 0 1-1-1v-9a1 1 0 0 1 1-1zM5.5 5.5h.01" +
    "M8 8h.01M10.5 10.5h.01M10.5 5.5h.01M5.5 10.5h.01",
  swap: "M2.5 5.5h10M10 3l2.5 2.5L10 8M13.5 10.5h-10M6 8l-2.5 2.5L6 13",
  theme: "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11",
  help: "M6 6a2 2 0 1 1 2.8 1.9c-.5.2-.8.6-.8 1.1v.5M8 12h.01",
  download: "M8 2.5v8M4.8 7.5L8 10.7l3.2-3.2M3 13.5h10",
  trash: "M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.6 9h5.8l.6-9",
  compare: "M8 2v12M2.5 4h3.5v8H2.5zM10 4h3.5v8H10",
  image: "M2.5 3h11v10h-11zM2.5 11l3-3 2.5 2.5 2-2 3.5 3.5M10.5 6h.01",
  left: "M10 3L5 8l5 5",
  right: "M6 3l5 5-5 5",
  rows: "M2.5 3h11v10h-11zM2.5 6.3h11M2.5 9.6h11",
  undo: "M5.5 3L3 5.5 5.5 8M3 5.5h6a4 4 0 0 1 0 8H6",
} as const;

type IconName = keyof typeof paths;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="glyph" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      <path d={paths[name]} />
    </svg>
  );
}

interface IconButtonProps {
  icon: IconName;
  /** What is read aloud. */
  label: string;
  title?: string;
  /** Beside "icon". */
  class?: string;
  onClick(): void;
}

export function IconButton({ icon, label, title, class: extra, onClick }: IconButtonProps) {
  return (
    <button
      type="button"
      class={extra === undefined ? "icon" : `icon ${extra}`}
      aria-label={label}
      title={title}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}
