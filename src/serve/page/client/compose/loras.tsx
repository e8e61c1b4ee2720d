/**
 * LoRAs with their scales. Tags in the prompt add theirs and are not shown here.
 */
import { capabilities } from "../server/capabilities.ts";
import type { LoraSetting } from "../server/wire.ts";
import { IconButton } from "../ui/icons.tsx";
import { give, given } from "./form.ts";

export function LorasField() {
  const chosen = (given.value.lora ?? []) as readonly LoraSetting[];
  const known = capabilities.value?.loras ?? [];
  if (known.length === 0 && chosen.length === 0) return null;
  const others = known.filter(({ name }) => !chosen.some(({ file }) => file === name));
  const put = (next: readonly LoraSetting[]) => give("lora", next.length === 0 ? undefined : next);
  return (
    <fieldset class="section">
      <legend>LoRAs</legend>
      {chosen.map((lora, at) => (
        <LoraRow
          key={lora.file}
          lora={lora}
          onScale={(scale) => put(chosen.with(at, { file: lora.file, scale }))}
          onRemove={() => put(chosen.toSpliced(at, 1))}
        />
      ))}
      {others.length > 0 && (
        <select
          aria-label="Add a LoRA"
          value=""
          onChange={({ currentTarget }) => {
            if (currentTarget.value) put([...chosen, { file: currentTarget.value, scale: 1 }]);
            currentTarget.value = "";
          }}
        >
          <option value="">Add a LoRA …</option>
          {others.map(({ name, detail }) => (
            <option key={name} value={name}>
              {detail ? `${name} (${detail})` : name}
            </option>
          ))}
        </select>
      )}
    </fieldset>
  );
}

// --- internal ---

interface LoraRowProps {
  lora: LoraSetting;
  onScale(scale: number): void;
  onRemove(): void;
}

function LoraRow({ lora: { file, scale = 1 }, onScale, onRemove }: LoraRowProps) {
  return (
    <div class="lora">
      <span class="name" title={file}>
        {file}
      </span>
      <input
        type="range"
        aria-label={`Scale of ${file}, slider`}
        {...{ min: -1, max: 2, step: 0.05, value: scale }}
        onInput={({ currentTarget }) => onScale(Number(currentTarget.value))}
      />
      <input
        type="number"
        aria-label={`Scale of ${file}`}
        {...{ step: "any", value: scale }}
        onChange={({ currentTarget }) => onScale(Number(currentTarget.value))}
      />
      <IconButton icon="close" label={`Remove ${file}`} onClick={onRemove} />
    </div>
  );
}
