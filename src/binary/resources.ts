/**
 * Resource paths of a binary: files are extracted on first use into a private folder of this
 * version (see cache.ts). The build replaces src/resources.ts by this file.
 */
import { join } from "node:path";
import { libraryName } from "../setup/platform.ts";
import { cacheCandidates, describeCache, openCache } from "./cache.ts";
import { contents, type Group, type Resources } from "./contents.ts";
import { extract, versionName } from "./extract.ts";

export const resources: Resources = {
  isBinary: true,
  nativeLibrary: () => join(extracted("library"), libraryName(process.platform)),
  emulator: () => null,
  buildEmulator: async () => {},
  rebuildHint: "get the binary again",
  bundledModel: () => join(extracted("model"), "mini-sdxl"),
  bundledControlNet: () => join(extracted("controlnet"), "mini-outlines"),
  clipVocabulary: () => join(extracted("clip"), "clip"),
  hashWorker: "/$bunfs/root/library/sha256-worker.js",
  cacheReport: () => describeCache(cacheCandidates(), versionName(contents)),
  licenses: async () => [...contents.licenses],
  versions: () => contents.versions,
};

/** Path of sharp's addon, with libvips at its RPATH. Called by code that the build generates. */
export function sharpAddon(): string {
  const folder = extracted("images");
  const addon = contents.files.find(({ name }) => name.endsWith(".node"));
  if (!addon) throw new Error("the binary was built without sharp");
  return join(folder, addon.name);
}

// --- internal ---

const groups = new Map<Group, string>();

/** The folder of this version, after extracting and checking `group`. Throws "setup". */
function extracted(group: Group): string {
  const known = groups.get(group);
  if (known !== undefined) return known;
  const folder = openCache(cacheCandidates(), versionName(contents));
  extract(
    folder,
    contents.files.filter((file) => file.group === group),
  );
  groups.set(group, folder);
  return folder;
}
