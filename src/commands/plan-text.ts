/**
 * The plan of `sample --plan` as text and as the object of `--json`: memory and time of each pass
 * and, in it, of each network.
 */
import { escaped } from "../errors.ts";
import type { Estimate, PassEstimate } from "../pipeline.ts";
import { formatBytes, formatSeconds } from "../terminal/units.ts";

/** Lines for people; those of parts are columns. */
export function planLines({ passes, memoryBytes, freeBytes, rates, seconds }: Estimate): string[] {
  const free = freeBytes === null ? "" : ` of ${formatBytes(freeBytes)} that are free`;
  const speed =
    rates === null
      ? "Nothing is known of this GPU's speed, so there are no times."
      : `Estimated with ${formatRate(rates.flopsPerSecond)}FLOP/s and \
${formatRate(rates.bytesPerSecond)}B/s, ${rates.source}.`;
  const time = seconds === null ? "" : `, ${formatSeconds(seconds)}`;
  return [
    ...passes.flatMap(passLines),
    `In all: ${formatBytes(memoryBytes)}${free}${time}. ${speed}`,
  ];
}

export function planJson({ passes, memoryBytes, freeBytes, rates, seconds }: Estimate) {
  return {
    passes: passes.map((pass) => ({
      ...pass,
      parts: pass.parts.map(({ inStep, ...part }) => ({ ...part, in_step: inStep })),
    })),
    memory_bytes: memoryBytes,
    free_bytes: freeBytes,
    rates: rates && {
      flops_per_second: rates.flopsPerSecond,
      bytes_per_second: rates.bytesPerSecond,
      source: rates.source,
    },
    seconds,
  };
}

// --- internal ---

const titles = {
  image: "Image",
  upscale: "Enlarging",
  second: "Second pass",
  refiner: "Refiner",
} as const;

function passLines({ name, runs, steps, parts, memory, networks, seconds }: PassEstimate) {
  const what = name === "upscale" ? "tiles" : "steps";
  const times = runs === 1 ? "" : ` ${runs} times`;
  // The sampler's own work is small.
  const shown = parts.filter((part) => part.flops > 0);
  const rows = shown.map(({ stage, network, count, flops, seconds }) => [
    `${escaped(network, 40)}, ${stage}`,
    count === 1 ? "once" : `${Number(count.toFixed(1))} times`,
    `${formatRate(flops)}FLOP`,
    seconds === null ? "" : `${formatSeconds(seconds)} each`,
    seconds === null ? "" : formatSeconds(count * seconds),
  ]);
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const columns = rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join("  "),
  );
  const stages = Object.entries(memory.stages).map(
    ([stage, bytes]) => `${stage} ${formatBytes(bytes)}`,
  );
  const weights = networks.map((part) => `${escaped(part.name, 40)} ${formatBytes(part.bytes)}`);
  return [
    `${titles[name]}: ${steps} ${what}${times}${
      seconds === null
        ? ""
        : `, \
${formatSeconds(seconds)}`
    }`,
    ...columns.map((line) => `  ${line.trimEnd()}`),
    `  weights ${formatBytes(memory.weights + memory.networks)} (${weights.join(", ")})`,
    `  scratch ${formatBytes(memory.scratch)} (${stages.join(", ")})`,
    ...(memory.workspace > 0 ? [`  libraries ${formatBytes(memory.workspace)}`] : []),
  ];
}

/** 12 G, 3.4 T; with its space and prefix, to which the unit is added. */
function formatRate(value: number): string {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  const power = Math.min(
    prefixes.length - 1,
    Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)),
  );
  const scaled = value / 1000 ** power;
  return `${scaled.toFixed(scaled < 9.95 && power > 0 ? 1 : 0)} ${prefixes[power]}`;
}
