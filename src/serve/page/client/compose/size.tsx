/**
 * The size of an image: shapes to choose from, and two boxes for any other.
 */
import { capabilities } from "../server/capabilities.ts";
import type { Capabilities } from "../server/wire.ts";
import { IconButton } from "../ui/icons.tsx";
import { give, model, settingValue } from "./form.ts";

export function SizeField() {
  const width = Number(settingValue("width") ?? 0);
  const height = Number(settingValue("height") ?? 0);
  const shape = (size: ListedSize) => (
    <ShapeChoice
      key={size.ratio}
      size={size}
      isChosen={size.width === width && size.height === height}
    />
  );
  const { wide, high } = shapes();
  return (
    <fieldset class="field">
      <legend>Size</legend>
      <div class="shapes">
        {wide.map(shape)}
        <IconButton
          icon="swap"
          label="Swap width and height"
          title="Swap width and height"
          onClick={() => choose({ width: height, height: width })}
        />
        {high.map(shape)}
      </div>
      <div class="size-boxes">
        <SideBox label="Width" name="width" value={width} />
        <span class="quiet">×</span>
        <SideBox label="Height" name="height" value={height} />
      </div>
    </fieldset>
  );
}

// --- internal ---

type ListedSize = Capabilities["sizes"][number];
type Sides = Pick<ListedSize, "width" | "height">;

/** The square and what is wider, then what is higher, each below its counterpart. */
function shapes() {
  const sizes = capabilities.value?.sizes ?? [];
  const length = ({ width, height }: Sides) => Math.max(width, height) / Math.min(width, height);
  const sorted = sizes.toSorted((a, b) => length(a) - length(b));
  const isHigh = ({ width, height }: Sides) => height > width;
  return { wide: sorted.filter((size) => !isHigh(size)), high: sorted.filter(isHigh) };
}

function choose({ width, height }: Sides): void {
  give("width", width);
  give("height", height);
}

function ShapeChoice({ size, isChosen }: { size: ListedSize; isChosen: boolean }) {
  return (
    <label class="chip" title={`${size.width} × ${size.height}`}>
      <input
        type="radio"
        name="size"
        class="visually-hidden"
        checked={isChosen}
        onChange={() => choose(size)}
      />
      <Shape {...size} />
      <span>{size.ratio}</span>
    </label>
  );
}

function SideBox({ label, name, value }: { label: string; name: string; value: number }) {
  const unit = model.value?.sizeMultiple ?? 1;
  return (
    <input
      type="number"
      aria-label={`${label} in pixels`}
      {...{ min: unit, step: unit, value }}
      onChange={({ currentTarget }) => give(name, Number(currentTarget.value) || undefined)}
    />
  );
}

/** The outline of the shape in a square of 18. */
function Shape({ width, height }: Sides) {
  const scale = 15 / Math.max(width, height);
  const box = { width: width * scale, height: height * scale };
  return (
    <svg class="glyph" viewBox="0 0 18 18" width="18" height="18" aria-hidden="true">
      <rect x={9 - box.width / 2} y={9 - box.height / 2} {...box} rx="1" />
    </svg>
  );
}
