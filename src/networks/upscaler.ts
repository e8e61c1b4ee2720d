/**
 * Upscalers in one file, by keys and shapes: RRDBNet (ESRGAN, Real-ESRGAN) and SRVGGNetCompact.
 * Keys are Real-ESRGAN's, those of the first ESRGAN, or either below `params` or `params_ema`, as
 * training programs write them.
 */
import { badWeights } from "../errors.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "../models/safetensors-header.ts";
import { classifyHeader, describeFile } from "../models/single-file/classify.ts";
import { Shapes } from "../models/single-file/shapes.ts";
import { weightsName } from "../paths.ts";
import type { UpscalerConfig, UpscalerNetwork } from "./network.ts";

/** Opens the file at the absolute `path`. Throws "bad-weights" for what is no such upscaler. */
export function openUpscaler(path: string): UpscalerNetwork {
  const header = readSafetensorsHeader(path);
  const prefix = prefixOf(header);
  const shapes = new Shapes(header.tensors, prefix);
  const found = rrdbNetOf(shapes) ?? oldRrdbNetOf(shapes) ?? compactOf(shapes);
  if (found === null) {
    fail(
      header,
      `is ${describeFile(classifyHeader(header))}; what is read of upscalers is ESRGAN, \
Real-ESRGAN and its compact one`,
    );
  }
  const { config, names } = found;
  checkConfig(header, shapes, config);
  return {
    kind: "upscaler",
    path,
    name: weightsName(path),
    config,
    scale: scaleOf(config),
    weights: {
      files: [path],
      names: new Map(names.map(([key, name]) => [key, { name: `${prefix}${name}` }])),
    },
  };
}

// --- internal ---

interface Found {
  config: UpscalerConfig;
  /** Real-ESRGAN's keys, and those of the file behind its prefix. */
  names: [key: string, name: string][];
}

const prefixes = ["", "params_ema.", "params.", "module."];

function prefixOf({ tensors }: SafetensorsHeader): string {
  const firsts = ["conv_first.weight", "body.0.weight", "model.0.weight"];
  return prefixes.find((prefix) => firsts.some((key) => tensors.has(prefix + key))) ?? "";
}

/** As Real-ESRGAN names its layers. */
function rrdbNetOf(shapes: Shapes): Found | null {
  if (!shapes.has("conv_first.weight") || !shapes.has("body.0.rdb1.conv1.weight")) return null;
  const config = rrdbConfig(shapes, {
    blockCount: shapes.count((i) => `body.${i}.rdb1.conv1.weight`),
    upsampleCount: shapes.count((i) => `conv_up${i + 1}.weight`),
    nameOf: (module) => module,
  });
  return { config, names: rrdbModules(config).flatMap((module) => parametersOf(module, module)) };
}

/** The first ESRGAN's keys: places in a sequence, of which one in three enlarges. */
function oldRrdbNetOf(shapes: Shapes): Found | null {
  const block = "model.1.sub.0.RDB1.conv1.0.weight";
  if (!shapes.has("model.0.weight") || !shapes.has(block)) return null;
  const blockCount = shapes.count((i) => `model.1.sub.${i}.RDB1.conv1.0.weight`);
  const upsampleCount =
    [0, 1, 2, 3].find((count) => shapes.has(`model.${3 * count + 4}.weight`)) ?? 0;
  const others: Readonly<Record<string, string>> = {
    conv_first: "model.0",
    conv_body: `model.1.sub.${blockCount}`,
    conv_hr: `model.${3 * upsampleCount + 2}`,
    conv_last: `model.${3 * upsampleCount + 4}`,
  };
  const nameOf = (module: string) => {
    const [, block, dense, conv] = /^body\.(\d+)\.rdb(\d)\.(conv\d)$/.exec(module) ?? [];
    if (block !== undefined) return `model.1.sub.${block}.RDB${dense}.${conv}.0`;
    const [, up] = /^conv_up(\d)$/.exec(module) ?? [];
    return up === undefined ? others[module]! : `model.${3 * Number(up)}`;
  };
  const config = rrdbConfig(shapes, { blockCount, upsampleCount, nameOf });
  const names = rrdbModules(config).flatMap((module) => parametersOf(module, nameOf(module)));
  return { config, names };
}

function compactOf(shapes: Shapes): Found | null {
  if (!shapes.has("body.0.weight") || !shapes.has("body.1.weight")) return null;
  const layerCount = shapes.count((i) => `body.${2 * i}.weight`);
  const outChannels = shapes.dimension(`body.${2 * layerCount - 2}.weight`, 0);
  const modules = Array.from({ length: layerCount }, (_, i) => `body.${2 * i}`);
  return {
    config: {
      kind: "compact",
      blockCount: layerCount - 2,
      features: shapes.dimension("body.0.weight", 0),
      growth: 0,
      unshuffle: Math.sqrt(shapes.dimension("body.0.weight", 1) / 3),
      upsampleCount: 0,
      shuffle: Math.sqrt(outChannels / 3),
    },
    names: modules.flatMap((module, i) => [
      ...parametersOf(module, module),
      ...(i < layerCount - 1 ? [same(`body.${2 * i + 1}.weight`)] : []),
    ]),
  };
}

interface RrdbNames {
  blockCount: number;
  upsampleCount: number;
  /** The file's name of a module. */
  nameOf(module: string): string;
}

function rrdbConfig(
  shapes: Shapes,
  { blockCount, upsampleCount, nameOf }: RrdbNames,
): UpscalerConfig {
  const first = `${nameOf("conv_first")}.weight`;
  const last = `${nameOf("conv_last")}.weight`;
  return {
    kind: "rrdbnet",
    blockCount,
    features: shapes.dimension(first, 0),
    growth: shapes.dimension(`${nameOf("body.0.rdb1.conv1")}.weight`, 0),
    unshuffle: Math.sqrt(shapes.dimension(first, 1) / 3),
    upsampleCount,
    shuffle: Math.sqrt(shapes.dimension(last, 0) / 3),
  };
}

function rrdbModules({ blockCount, upsampleCount }: UpscalerConfig): string[] {
  const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);
  const body = numbers(blockCount).flatMap((i) =>
    [1, 2, 3].flatMap((dense) =>
      [1, 2, 3, 4, 5].map((conv) => `body.${i}.rdb${dense}.conv${conv}`),
    ),
  );
  const ups = numbers(upsampleCount).map((i) => `conv_up${i + 1}`);
  return ["conv_first", ...body, "conv_body", ...ups, "conv_hr", "conv_last"];
}

function parametersOf(module: string, name: string): [string, string][] {
  return ["weight", "bias"].map((part) => [`${module}.${part}`, `${name}.${part}`]);
}

function same(name: string): [string, string] {
  return [name, name];
}

function scaleOf({ kind, unshuffle, upsampleCount, shuffle }: UpscalerConfig): number {
  return kind === "compact" ? shuffle : 2 ** upsampleCount / unshuffle;
}

/** Networks of these keys that are others all the same. */
function checkConfig(header: SafetensorsHeader, shapes: Shapes, config: UpscalerConfig): void {
  const { kind, unshuffle, shuffle, blockCount } = config;
  const extra = ["body.0.rdb1.conv1x1.weight", "model.1.sub.0.RDB1.conv1x1.weight"];
  if (extra.some((key) => shapes.has(key))) fail(header, "is ESRGAN+, which is not read");
  const isColour = Number.isInteger(unshuffle) && Number.isInteger(shuffle) && shuffle >= 1;
  if (!isColour || unshuffle < 1) {
    fail(header, "is no upscaler of colours: its first or last layer is not of RGB");
  }
  const fits = kind === "rrdbnet" ? shuffle === 1 : unshuffle === 1;
  if (fits && blockCount >= 1 && Number.isInteger(scaleOf(config))) return;
  fail(header, "has the keys of an upscaler and not its shapes");
}

function fail({ path }: SafetensorsHeader, what: string): never {
  throw badWeights(path, what);
}
