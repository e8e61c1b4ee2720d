/**
 * A download as text: a bar for each file that is arriving and a line for all of them, or one plain
 * line. Pure, but for the rate, which is that of the last seconds.
 */
import type { DownloadProgress } from "../hub/progress.ts";
import { formatBytes, formatSeconds, scaledBytes } from "./units.ts";

/** Bytes per second, from the amounts at some times. */
export class DownloadRate {
  private samples: { ms: number; bytes: number }[] = [];

  /** null before it is known. */
  at(nowMs: number, bytes: number): number | null {
    const last = this.samples.at(-1);
    if (last === undefined || nowMs - last.ms >= sampleMs) this.samples.push({ ms: nowMs, bytes });
    while (nowMs - (this.samples[1]?.ms ?? nowMs) > windowMs) this.samples.shift();
    const [first] = this.samples;
    if (first === undefined || nowMs - first.ms < 2 * sampleMs) return null;
    return (1000 * (bytes - first.bytes)) / (nowMs - first.ms);
  }
}

/**
 * `unet/model.safetensors ████░░░░  45 %  2.31 of 5.14 GB` for each file that is arriving, then
 * `3 of 15 files  2.9 of 7.1 GB  48 MB/s  1 min 20 s left`; each at most `columns` wide.
 */
export function downloadBars(
  { files, bytes, doneBytes }: DownloadProgress,
  rate: number | null,
  columns: number,
): string[] {
  const arriving = files.filter((file) => file.doneBytes > 0 && file.doneBytes < file.bytes);
  const done = files.filter((file) => file.doneBytes === file.bytes).length;
  const nameWidth = Math.min(
    Math.max(12, columns - 44),
    Math.max(0, ...arriving.map(({ name }) => [...name].length)),
  );
  const bars = arriving.slice(0, barsMax).map((file) => {
    const fraction = file.doneBytes / file.bytes;
    const name = shortened(file.name, nameWidth).padEnd(nameWidth);
    const figures = `  ${percent(fraction)}  ${ofBytes(file.doneBytes, file.bytes)}`;
    const width = Math.min(20, columns - nameWidth - figures.length - 1);
    const bar = width < 4 ? "" : ` ${"█".repeat(Math.round(fraction * width)).padEnd(width, "░")}`;
    return `${name}${bar}${figures}`.slice(0, columns);
  });
  const parts = [`${done} of ${files.length} files`, ofBytes(doneBytes, bytes)];
  return [...bars, [...parts, ...rateParts(bytes - doneBytes, rate)].join("  ").slice(0, columns)];
}

/** `Fetched 2.9 of 7.1 GB (41 %), 48 MB/s, 1 min 20 s left`. */
export function downloadLine({ bytes, doneBytes }: DownloadProgress, rate: number | null): string {
  const whole = `Fetched ${ofBytes(doneBytes, bytes)} (${percent(doneBytes / bytes).trim()})`;
  return [whole, ...rateParts(bytes - doneBytes, rate)].join(", ");
}

// --- internal ---

const sampleMs = 250;
const windowMs = 5000;
const barsMax = 8;

function rateParts(leftBytes: number, rate: number | null): string[] {
  if (rate === null) return [];
  const left = leftBytes > 0 && rate > 0 ? [`${formatSeconds(leftBytes / rate)} left`] : [];
  return [`${formatBytes(rate)}/s`, ...left];
}

function ofBytes(done: number, bytes: number): string {
  const [total, unit] = scaledBytes(bytes, bytes);
  return `${scaledBytes(done, bytes)[0]} of ${total} ${unit}`;
}

function percent(fraction: number): string {
  return `${String(Math.floor(100 * fraction)).padStart(3)} %`;
}

/** `unet/diffu…model.fp16.safetensors`: the folder and the ending say most. */
function shortened(name: string, width: number): string {
  const letters = [...name];
  if (letters.length <= width) return name;
  const first = Math.floor(width / 3);
  return `${letters.slice(0, first).join("")}…${letters.slice(first + 1 - width).join("")}`;
}
