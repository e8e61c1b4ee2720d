/**
 * The images in the server's folder of outputs, newest first, page by page. What they say of
 * themselves is read from the files.
 */
import { signal } from "@preact/signals";
import { addressOf, call, callJson } from "../server/api.ts";
import type { GalleryImage, ImageSettings } from "../server/wire.ts";

export const images = signal<readonly GalleryImage[]>([]);
/** Whether the server has older ones than those. */
export const hasOlder = signal(false);

const pageSize = 40;

/** Looks for images that are newer than those which are known. */
export async function loadNewest(): Promise<void> {
  const page = await pageOf(null);
  // Names fall from page to page.
  const { name: oldest = "" } = page.at(-1) ?? {};
  const older = images.value.filter(({ name }) => name < oldest);
  if (older.length === 0) hasOlder.value = page.length === pageSize;
  images.value = [...page, ...older];
}

export async function loadOlder(): Promise<void> {
  const last = images.value.at(-1);
  if (last === undefined) return;
  const page = await pageOf(last.name);
  hasOlder.value = page.length === pageSize;
  images.value = [...images.value.filter(({ name }) => name >= last.name), ...page];
}

export async function deleteImage(name: string): Promise<void> {
  await call(`/images/${encodeURIComponent(name)}`, { method: "DELETE" });
  images.value = images.value.filter((image) => image.name !== name);
}

export async function settingsOf(name: string): Promise<ImageSettings> {
  return await callJson(`/images/${encodeURIComponent(name)}/metadata`);
}

export function fileAddress(name: string): string {
  return addressOf(`/images/${encodeURIComponent(name)}`);
}

export function thumbnailAddress(name: string): string {
  return `${fileAddress(name)}/thumbnail`;
}

// --- internal ---

async function pageOf(before: string | null): Promise<GalleryImage[]> {
  const query = new URLSearchParams({ limit: String(pageSize), ...(before ? { before } : {}) });
  const answer = await callJson<{ images: GalleryImage[] }>(`/images?${query}`);
  return answer.images;
}
