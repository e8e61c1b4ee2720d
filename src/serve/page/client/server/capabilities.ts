/**
 * What the server can do. The form is built from it; a model folder that changes changes the form.
 */
import { signal } from "@preact/signals";
import { call } from "./api.ts";
import type { Capabilities } from "./wire.ts";

/** null until the server has answered. */
export const capabilities = signal<Capabilities | null>(null);

let etag: string | null = null;

/** Asks again; an unchanged document costs no bytes. Throws `ApiError`. */
export async function refreshCapabilities(): Promise<void> {
  const response = await call("/capabilities", {
    headers: etag === null ? {} : { "if-none-match": etag },
  });
  if (response.status === 304) return;
  etag = response.headers.get("etag");
  capabilities.value = (await response.json()) as Capabilities;
}
