/**
 * The seed: random for every job, or kept; the dice throw one that is then kept.
 */
import { IconButton } from "../ui/icons.tsx";
import { give, given, keepsSeed } from "./form.ts";

export function SeedField() {
  const seed = given.value.seed;
  return (
    <div class="field">
      <label for="field-seed">Seed</label>
      <div class="seed">
        <input
          id="field-seed"
          type="text"
          inputMode="numeric"
          pattern="[0-9]*"
          placeholder="Random"
          value={keepsSeed.value && seed !== undefined ? String(seed) : ""}
          onChange={({ currentTarget }) => keep(currentTarget.value.trim())}
        />
        <IconButton
          icon="dice"
          label="Throw the dice"
          title="Throw the dice: a new seed that is kept"
          onClick={() => keep(String(crypto.getRandomValues(new Uint32Array(1))[0]))}
        />
        <label class="check">
          <input
            type="checkbox"
            checked={!keepsSeed.value}
            onChange={({ currentTarget }) => (keepsSeed.value = !currentTarget.checked)}
          />
          Random
        </label>
      </div>
    </div>
  );
}

/** The seed of the next images; "" for random ones. */
export function keep(seed: string): void {
  keepsSeed.value = seed !== "";
  if (seed !== "") give("seed", seed);
}
