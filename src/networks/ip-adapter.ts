/**
 * IP-Adapters for SDXL: a file's keys and shapes decide what it is and whether it fits the model.
 * Read are files of IP-Adapter's repository (`image_proj.*`, `ip_adapter.N.*`) and what diffusers
 * makes of them. The library reads diffusers' names, with cross-attentions numbered as the UNet
 * runs them.
 */
import { badWeights, escaped } from "../errors.ts";
import type { Model, WeightSource } from "../models/model.ts";
import { unetModuleNames } from "../models/names.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "../models/safetensors-header.ts";
import { classifyHeader, describeFile } from "../models/single-file/classify.ts";
import { weightsName } from "../paths.ts";
import type { IpAdapterConfig, IpAdapterNetwork } from "./network.ts";

/** Throws "bad-weights" with one sentence for a file that is none, or none of this model. */
export function openIpAdapter(path: string, { unet }: Pick<Model, "unet">): IpAdapterNetwork {
  const header = readSafetensorsHeader(path);
  refuseOthers(header);
  const attentions = attentionNames(header, unet);
  const projection = projectionNames(header);
  checkContext(header, projection, attentions[0]!, unet.crossAttentionDim);
  const names = new Map(projection);
  for (const [slot, { key, value, channels }] of attentions.entries()) {
    names.set(`ip_adapter.${slot}.to_k_ip.weight`, { name: key });
    names.set(`ip_adapter.${slot}.to_v_ip.weight`, { name: value });
    const shape = header.tensors.get(key)!.shape;
    if (shape[0] === channels) continue;
    fail(header, `is made for a UNet of other widths: ${escaped(key, 120)} has ${shape.join("x")}`);
  }
  const name = weightsName(path);
  const config = configOf(header, projection);
  return { kind: "ip_adapter", path, name, config, weights: { files: [path], names } };
}

// --- internal ---

type Names = ReadonlyMap<string, WeightSource>;

/** Kinds that are no plain adapter and no plus: by keys that only they have. */
const others: readonly (readonly [pattern: RegExp, what: string])[] = [
  [
    /^image_proj\.perceiver_resampler\./,
    "an IP-Adapter FaceID Plus, which needs face recognition (InsightFace) and is not supported",
  ],
  [/^image_proj\.proj\.3\./, "an IP-Adapter Full Face, which is not supported"],
  [
    /^ip_adapter\.\d+\.to_[qkv]_lora\.|^image_proj\.proj\.2\./,
    "an IP-Adapter FaceID, which needs face recognition (InsightFace) and is not supported",
  ],
  [/^image_proj\..*time_/, "an IP-Adapter of a transformer, not of SDXL"],
  [/double_blocks|single_blocks|transformer_blocks\.\d+\.attn\.processor/, "an IP-Adapter of Flux"],
];

function refuseOthers(header: SafetensorsHeader): void {
  const keys = [...header.tensors.keys()];
  const isAdapter = keys.some((key) => /^(ip_adapter|image_proj)\.|to_k_ip\b/.test(key));
  if (!isAdapter) {
    const what = describeFile(classifyHeader(header));
    fail(header, `is ${what}, not an IP-Adapter`);
  }
  const other = others.find(([pattern]) => keys.some((key) => pattern.test(key)));
  if (other) fail(header, `is ${other[1]}; ip-adapter_sdxl and ip-adapter-plus_sdxl are`);
}

interface AttentionKeys {
  key: string;
  value: string;
  /** Of the model's cross-attention. */
  channels: number;
}

/** In the order in which the UNet runs them. */
function attentionNames(header: SafetensorsHeader, unet: Model["unet"]): AttentionKeys[] {
  const paths = crossAttentions(unet);
  const numbers = numbering(paths.map(({ path }) => path));
  const found = paths.map(({ path, channels }, slot) => {
    const candidates = [`ip_adapter.${numbers[slot]}`, `${path}.processor`];
    for (const [i, candidate] of candidates.entries()) {
      const end = i === 0 ? "weight" : "0.weight";
      const key = `${candidate}.to_k_ip.${end}`;
      const value = `${candidate}.to_v_ip.${end}`;
      if (header.tensors.has(key) && header.tensors.has(value)) return { key, value, channels };
    }
    return null;
  });
  const own = [...header.tensors.keys()].filter((key) => /to_k_ip\b/.test(key)).length;
  const whole = found.filter((each) => each !== null);
  if (whole.length === paths.length && own === paths.length) return whole;
  return fail(
    header,
    `has keys and values for ${own} cross-attentions${madeFor(header)}, and this model has \
${paths.length}`,
  );
}

/** IP-Adapter's repository counts all attentions, and the middle block's after the others. */
function numbering(paths: readonly string[]): number[] {
  const isMid = (path: string) => path.startsWith("mid_block.");
  const ordered = [...paths.filter((path) => !isMid(path)), ...paths.filter(isMid)];
  return paths.map((path) => 2 * ordered.indexOf(path) + 1);
}

function crossAttentions(unet: Model["unet"]): { path: string; channels: number }[] {
  const { blockOutChannels } = unet;
  const levelCount = blockOutChannels.length;
  return unetModuleNames(unet)
    .map(({ diffusers }) =>
      /^((down|mid|up)_blocks?\.(?:(\d+)\.)?attentions\..*attn2)\.to_k$/.exec(diffusers),
    )
    .filter((match) => match !== null)
    .map(([, path, side, number]) => {
      const level = side === "down" ? Number(number) : levelCount - 1 - Number(number);
      const channels = blockOutChannels[side === "mid" ? levelCount - 1 : level]!;
      return { path: path!, channels };
    });
}

/** From the names of IP-Adapter's repository to those of diffusers. */
const renamed: readonly (readonly [RegExp, string])[] = [
  [/^proj\./, "image_embeds."],
  [/^(layers\.\d+)\.0\.norm1\./, "$1.ln0."],
  [/^(layers\.\d+)\.0\.norm2\./, "$1.ln1."],
  [/^(layers\.\d+)\.0\.to_out\./, "$1.attn.to_out.0."],
  [/^(layers\.\d+)\.0\./, "$1.attn."],
  [/^(layers\.\d+)\.1\.0\./, "$1.ff.0."],
  [/^(layers\.\d+)\.1\.1\./, "$1.ff.1.net.0.proj."],
  [/^(layers\.\d+)\.1\.3\./, "$1.ff.1.net.2."],
];

function projectionNames(header: SafetensorsHeader): Names {
  const names = new Map<string, WeightSource>();
  for (const name of header.tensors.keys()) {
    const [, inner] =
      /^(?:image_proj|encoder_hid_proj\.image_projection_layers\.0)\.(.+)$/.exec(name) ?? [];
    if (inner === undefined) continue;
    const rule = renamed.find(([pattern]) => pattern.test(inner));
    const key = `image_proj.${rule ? inner.replace(rule[0], rule[1]) : inner}`;
    if (key.endsWith(".to_kv.weight")) {
      const at = key.slice(0, -".to_kv.weight".length);
      names.set(`${at}.to_k.weight`, { name, part: [0, 2] });
      names.set(`${at}.to_v.weight`, { name, part: [1, 2] });
    } else names.set(key, { name });
  }
  return names;
}

/** The tensor of a diffusers name. */
function shapeOf({ tensors }: SafetensorsHeader, names: Names, key: string): readonly number[] {
  const source = names.get(`image_proj.${key}`);
  const shape = source && tensors.get(source.name)?.shape;
  if (shape === undefined) return [];
  return source?.part ? [shape[0]! / source.part[1], ...shape.slice(1)] : shape;
}

/** Channels of a resampler's heads. */
const headSize = 64;
/** Tokens of plain adapters, as diffusers takes them. */
const plainTokenCount = 4;

function configOf(header: SafetensorsHeader, names: Names): IpAdapterConfig {
  const shape = (key: string) => shapeOf(header, names, key);
  const embedding = shape("image_embeds.weight");
  if (embedding.length === 2) {
    const none = { hiddenSize: 0, layerCount: 0, headCount: 0, innerSize: 0, feedForwardSize: 0 };
    const embedSize = embedding[1]!;
    return { projection: "plain", tokenCount: plainTokenCount, embedSize, ...none };
  }
  const innerSize = shape("layers.0.attn.to_q.weight")[0] ?? 0;
  let layerCount = 0;
  while (names.has(`image_proj.layers.${layerCount}.attn.to_q.weight`)) layerCount += 1;
  const config: IpAdapterConfig = {
    projection: "plus",
    tokenCount: shape("latents")[1] ?? 0,
    embedSize: shape("proj_in.weight")[1] ?? 0,
    hiddenSize: shape("latents")[2] ?? 0,
    layerCount,
    headCount: Math.floor(innerSize / headSize),
    innerSize,
    feedForwardSize: shape("layers.0.ff.1.net.0.proj.weight")[0] ?? 0,
  };
  const isWhole = Object.values(config).every((value) => value !== 0);
  if (isWhole && innerSize % headSize === 0) return config;
  return fail(header, "has a projection that is neither that of a plain IP-Adapter nor of a plus");
}

function checkContext(
  header: SafetensorsHeader,
  names: Names,
  { key }: AttentionKeys,
  dim: number,
): void {
  const context = header.tensors.get(key)!.shape[1];
  const out =
    shapeOf(header, names, "norm.weight")[0] ?? shapeOf(header, names, "norm_out.weight")[0];
  if (context === dim && out === dim) return;
  fail(
    header,
    `is an IP-Adapter${madeFor(header)} whose tokens have ${context} channels, and this model's \
cross-attentions read ${dim}`,
  );
}

const modelByContext: Readonly<Record<number, string | undefined>> = {
  768: " for Stable Diffusion 1.5",
  1024: " for Stable Diffusion 2",
  2048: " for SDXL",
};

function madeFor({ tensors }: SafetensorsHeader): string {
  const key = [...tensors.keys()].find((each) => /to_k_ip\b/.test(each));
  return modelByContext[tensors.get(key ?? "")?.shape[1] ?? 0] ?? "";
}

function fail({ path }: SafetensorsHeader, what: string): never {
  throw badWeights(path, what);
}
