/**
 * The program itself: native library, image encoder, and, for a binary, the folder that it extracts
 * to.
 */
import { dirname } from "node:path";
import { loadEncoder } from "../image/encoder.ts";
import type { DeviceInfo } from "../native/device-info.ts";
import { resources } from "../resources.ts";
import { count } from "./machine.ts";
import { gigabytes, type Line, note, ok, problem, type Section } from "./report.ts";

/** `info` of the library, or the error of loading it. */
export async function programSection(info: DeviceInfo | Error): Promise<Section> {
  const { basedxl, bun, zig } = resources.versions();
  const encoder = await loadEncoder().catch((error: Error) => error);
  const cache = resources.cacheReport();
  return {
    title: "Program",
    lines: [
      ok("version", `${basedxl}, Bun ${bun}, Zig ${zig}`),
      libraryLine(info),
      encoderLine(encoder),
      ...cacheLines(cache),
    ],
    facts: {
      version: basedxl,
      bun,
      zig,
      binary: resources.isBinary,
      library: info instanceof Error ? null : resources.nativeLibrary(),
      instruction_set: info instanceof Error ? null : info.instructionSet,
      encoder: encoder instanceof Error ? null : encoder.name,
      formats: encoder instanceof Error ? [] : encoder.formats,
      cache,
    },
  };
}

// --- internal ---

function libraryLine(info: DeviceInfo | Error): Line {
  if (!(info instanceof Error)) {
    return ok("library", `${resources.nativeLibrary()}, ${info.instructionSet} kernels`);
  }
  return problem("library", {
    what: info.message,
    // The message includes the remedy, but does not name the folder.
    advice: resources.isBinary
      ? "Nothing can be generated without it: see the folder's line below, too."
      : "Nothing can be generated without it.",
  });
}

function encoderLine(encoder: Awaited<ReturnType<typeof loadEncoder>> | Error): Line {
  if (encoder instanceof Error) {
    return problem("images", { what: encoder.message, advice: "See the folder's line below." });
  }
  const { name, formats, problem: wrong } = encoder;
  if (wrong === null) return ok("images", `${name}: ${formats.join(", ")}`);
  return problem("images", {
    what: wrong,
    advice: `Until then ${name} writes ${formats.join(", ")}.`,
  });
}

function cacheLines(cache: ReturnType<typeof resources.cacheReport>): Line[] {
  if (cache === null) return [];
  if (cache.path === null) {
    return [
      problem("folder", {
        what: cache.problem ?? "",
        advice: "Set BASEDXL_CACHE_DIR, as the message asks.",
      }),
    ];
  }
  const { path, bytes, others } = cache;
  const line = ok("folder", `${path}, ${gigabytes(bytes)}`);
  if (others.length === 0) return [line];
  const text = `${count(others.length, "other version")} in ${dirname(path)}, free to delete`;
  return [line, note("", text)];
}
