/**
 * The page's files in a binary. This is the version of a clone, which has none; the build replaces
 * this module's value (src/setup/binary.ts).
 */
import type { PageFile } from "./bundle.ts";

export const bundledFiles: readonly PageFile[] | null = null;
