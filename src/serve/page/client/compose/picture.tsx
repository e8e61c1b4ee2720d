/**
 * Images that the user chooses for a job: files, shown by an address until others take their place.
 */
import type { Signal } from "@preact/signals";

export interface Picture {
  file: Blob;
  /** Object URL of the file. */
  address: string;
}

/** null for none. */
export function put(picture: Signal<Picture | null>, file: Blob | null): void {
  if (picture.value !== null) URL.revokeObjectURL(picture.value.address);
  picture.value = file && { file, address: URL.createObjectURL(file) };
}

interface PictureInputProps {
  label: string;
  /** null where none was chosen. */
  onFile(file: Blob | null): void;
}

export function PictureInput({ label, onFile }: PictureInputProps) {
  return (
    <input
      type="file"
      accept="image/*"
      aria-label={label}
      onChange={({ currentTarget }) => onFile(currentTarget.files?.[0] ?? null)}
    />
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
