/**
 * Images that the user chooses for a job: files, shown by an address until others take their place.
 */
import type { Signal } from "@preact/signals";
import { Icon } from "../ui/icons.tsx";

export interface Picture {
  file: Blob;
  /** Object URL of the file. */
  address: string;
}

export function pictureOf(file: Blob): Picture {
  return { file, address: URL.createObjectURL(file) };
}

/** It must not be shown any more. */
export function drop({ address }: Picture): void {
  URL.revokeObjectURL(address);
}

/** null for none. */
export function put(picture: Signal<Picture | null>, file: Blob | null): void {
  if (picture.value !== null) drop(picture.value);
  picture.value = file && pictureOf(file);
}

interface PictureInputProps {
  label: string;
  /** Not called where none was chosen. */
  onFiles(files: readonly Blob[]): void;
  multiple?: boolean;
}

export function PictureInput({ label, onFiles, multiple = false }: PictureInputProps) {
  return (
    <label class="button">
      <input
        type="file"
        accept="image/*"
        class="visually-hidden"
        multiple={multiple}
        aria-label={label}
        onChange={({ currentTarget }) => {
          const files = [...(currentTarget.files ?? [])];
          currentTarget.value = "";
          if (files.length > 0) onFiles(files);
        }}
      />
      <Icon name="image" /> {label}
    </label>
  );
}

/** Without what a data address has before it. */
export async function base64Of(blob: Blob): Promise<string> {
  const reader = new FileReader();
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  reader.onload = () => resolve(String(reader.result));
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
  return (await promise).replace(/^[^,]*,/, "");
}
