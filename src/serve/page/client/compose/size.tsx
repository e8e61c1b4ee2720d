/**
 * The size of an image: shapes to choose from, and two boxes for any other.
 */
import { capabilities } from "../server/capabilities.ts";
import { IconButton } from "../ui/icons.tsx";
import { give, model, settingValue } from "./form.ts";

export function SizeField() {
  const sizes = capabilities.value?.sizes ?? [];
  const width = Number(settingValue("width") ?? 0);
  const height = Number(settingValue("height") ?? 0);
  const choose = (nextWidth: number, nextHeight: number) => {
    give("width", nextWidth);
    give("height", nextHeight);
  };
  return (
    <fieldset class="field">
      <legend>Size</legend>
      <div class="shapes">
        {sizes.map((size) => (
          <label key={size.ratio} class="chip" title={`${size.width} × ${size.height}`}>
            <input
              type="radio"
              name="size"
              class="visually-hidden"
              checked={size.width === width && size.height === height}
              onChange={() => choose(size.width, size.height)}
            />
            <Shape {...size} />
            <span>{size.ratio}</span>
          </label>
        ))}
      </div>
      <div class="size-boxes">
        <SideBox label="Width" name="width" value={width} />
        <IconButton
          icon="swap"
          label="Swap width and height"
          title="Swap width and height"
          onClick={() => choose(height, width)}
        />
        <SideBox label="Height" name="height" value={height} />
      </div>
    </fieldset>
  );
}

// --- internal ---

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
function Shape({ width, height }: { width: number; height: number }) {
  const scale = 15 / Math.max(width, height);
  const box = { width: width * scale, height: height * scale };
  return (
    <svg class="glyph" viewBox="0 0 18 18" width="18" height="18" aria-hidden="true">
      <rect x={9 - box.width / 2} y={9 - box.height / 2} {...box} rx="1" />
    </svg>
  );
}
