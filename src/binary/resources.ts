/**
 * The files of a binary: extracted from it when they are needed first, into a private folder of
 * this version (see cache.ts). Takes the place of src/resources.ts in the build.
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
  rebuildHint: "get the binary again",
  bundledModel: () => join(extracted("model"), "mini-sdxl"),
  cacheReport: () => describeCache(cacheCandidates(), versionName(contents)),
  licenses: async () => [...contents.licenses],
  versions: () => contents.versions,
};

/** The addon of sharp, with libvips where it looks for it. Called by what the build puts in. */
export function sharpAddon(): string {
  const folder = extracted("images");
  const addon = contents.files.find(({ name }) => name.endsWith(".node"));
  if (!addon) throw new Error("the binary was built without sharp");
  return join(folder, addon.name);
}

// --- internal ---

const groups = new Map<Group, string>();

/** The folder of this version, with the files of `group` in it, checked. Throws "setup". */
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
