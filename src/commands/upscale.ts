/**
 * `basedxl upscale IMAGE...`: images enlarged by a network, into files. What it does to pixels is
 * the public API's (`Pipeline.upscale`), in a session of the bundled model, which is the smallest.
 */
import { existsSync, mkdirSync, realpathSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { defineCommand } from "citty";
import { BasedXLError, badOption } from "../errors.ts";
import { joinAlpha, overWhite } from "../image/alpha.ts";
import { imageSizeOf } from "../image/encoder.ts";
import { checkImageSize, checkWritable, imageFormatOf, writeImage } from "../image.ts";
import { textsOfEnlarged } from "../metadata.ts";
import { upscaleSideMax } from "../native/abi.ts";
import { absolutePath, isFolder } from "../paths.ts";
import { Pipeline, type UpscaledImage } from "../pipeline.ts";
import { resources } from "../resources.ts";
import { defaultOf } from "../settings/setting.ts";
import { upscaleSettings } from "../settings/upscale.ts";
import { demandOf, readText } from "../settings/values.ts";
import { createOutput, type Output, writeJson } from "../terminal/output.ts";
import { formatSeconds } from "../terminal/units.ts";
import { runStoppable } from "./stoppable.ts";
import { upscaleFlags } from "./upscale-flags.ts";

export const upscaleCommand = defineCommand({
  meta: { name: "upscale", description: "Enlarge images by a network" },
  args: upscaleFlags,
  async run({ args }) {
    const options = optionsOf(args as Args);
    const output = createOutput(options);
    return await runStoppable(output, (signal) => upscale(options, output, signal));
  },
});

// --- internal ---

interface Args {
  _: string[];
  [flag: string]: unknown;
}

interface Options {
  images: string[];
  upscaler: string;
  scale: number | undefined;
  tile: number;
  out: string | undefined;
  modelsDir: string[];
  device: "auto" | "cpu" | "cuda" | "cuda-emulated";
  dtype: undefined;
  rankCount: number;
  shareGpu: boolean;
  threadCount: number;
  metadata: boolean;
  quiet: boolean;
  verbose: boolean;
  json: boolean;
}

function optionsOf(args: Args): Options {
  const values = Object.entries(upscaleSettings).map(([key, setting]) => {
    const given = args[setting.flag];
    if (given === undefined) return [key, defaultOf(setting)];
    const value = typeof given === "boolean" ? given : readText(setting, String(given));
    const why = demandOf(setting, value);
    if (why !== null) throw badOption(`--${setting.flag} ${why}, not ${JSON.stringify(given)}.`);
    return [key, value];
  });
  const options = { ...Object.fromEntries(values), images: args._ } as Options;
  if (options.images.length === 0) throw badOption("Name the images to enlarge.");
  if (options.upscaler === undefined) {
    throw badOption("--upscaler is missing: name a .safetensors file of ESRGAN's kind.");
  }
  return options;
}

async function upscale(options: Options, output: Output, signal: AbortSignal): Promise<void> {
  const { log, progress, showsProgress } = output;
  const { images, upscaler, scale, tile, rankCount, modelsDir } = options;
  const startMs = performance.now();
  await using pipeline = await Pipeline.open({
    model: resources.bundledModel(),
    modelsDir,
    devices: { ...options, rankCount },
    threadCount: options.threadCount,
    // Small, so that it needs no memory and every rank has rows.
    first: { prompt: "", width: 256, height: 256, stepCount: 1, warmupSteps: 0 },
    upscale: { upscaler, tileSize: tile, ...(await largestOf(images)) },
    onLine: log.info,
    signal,
  });
  const network = pipeline.upscaler(upscaler);
  const factor = scale ?? network.scale;
  const paths = outPaths(options, factor);
  const written: object[] = [];
  for (const [i, image] of images.entries()) {
    const path = paths[i]!;
    const result = await pipeline.upscale(image, {
      ...{ upscaler, scale, tileSize: tile, signal },
      onProgress: (update) => {
        if (!showsProgress) return;
        progress.update({ ...update, images: { first: i + 1, last: i + 1, count: images.length } });
      },
    });
    progress.clear();
    await write(path, image, result, { options, signal, name: network.name, factor });
    const { width, height } = result;
    log.info(`Wrote ${path}, ${width}x${height}.`);
    written.push({ path: resolve(path), source: resolve(image), width, height });
  }
  const seconds = (performance.now() - startMs) / 1000;
  log.debug(`Took ${formatSeconds(seconds)}.`);
  if (!options.json) return;
  const total = Math.round(1e4 * seconds) / 10;
  writeJson({
    images: written,
    upscaler: network.path,
    scale: factor,
    timings: { total_ms: total },
  });
}

/** Rows and columns that hold each of the images; a wrong one is refused when its turn comes. */
async function largestOf(images: readonly string[]) {
  const sizes = await Promise.all(images.map((image) => imageSizeOf(absolutePath(image))));
  const sideOf = (side: "width" | "height") =>
    Math.min(upscaleSideMax, Math.max(1, ...sizes.map((size) => size?.[side] ?? 1)));
  return { width: sideOf("width"), height: sideOf("height") };
}

async function write(
  path: string,
  source: string,
  { pixels, alpha, width, height }: UpscaledImage,
  how: { options: Options; signal: AbortSignal; name: string; factor: number },
): Promise<void> {
  checkImageSize(path, width, height);
  const { signal, name, factor } = how;
  const texts = how.options.metadata ? textsOfEnlarged(source, { name, factor }) : undefined;
  const withAlpha = imageFormatOf(path) === "jpeg" ? overWhite : joinAlpha;
  const whole = alpha === null ? pixels : withAlpha(pixels, alpha);
  await writeImage(path, whole, width, height, { texts, signal });
}

/** Where each image goes; refused before the first one is enlarged. */
function outPaths({ images, out }: Options, factor: number): string[] {
  const isInFolder = out !== undefined && (/[/\\]$/.test(out) || isFolder(out));
  if (images.length > 1 && out !== undefined && !isInFolder) {
    throw badOption(`--out must be a folder for ${images.length} images, as in ${out}/.`);
  }
  if (isInFolder) mkdirSync(out, { recursive: true });
  const paths = images.map((image) => {
    if (out !== undefined && !isInFolder) return out;
    const ending = /\.(png|jpe?g|webp|avif)$/i.test(image) ? extname(image) : ".png";
    const name = `${basename(image, extname(image))}-${factor}x${ending}`;
    return join(isInFolder ? out : dirname(image), name);
  });
  for (const [i, path] of paths.entries()) {
    imageFormatOf(path);
    if (paths.indexOf(path) < i) {
      throw badOption(`Two of the images would be ${path}: enlarge them one by one.`);
    }
    const isSource = images.some((image) => isSameFile(image, path));
    if (isSource) throw badOption(`${path} is one of the images themselves: name another --out.`);
    checkWritable(path);
  }
  return paths;
}

function isSameFile(a: string, b: string): boolean {
  if (!existsSync(a) || !existsSync(b)) return false;
  try {
    return realpathSync(a) === realpathSync(b);
  } catch (error) {
    throw new BasedXLError("io", `${a} cannot be looked at: ${(error as Error).message}.`);
  }
}
