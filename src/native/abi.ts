/**
 * Generated from zig/abi.zig by `zig build bindings`; do not edit. Writers and readers place
 * the fields of each struct at their offsets in little-endian order, as the library lays them
 * out.
 */

/** Text that ends at its first 0 byte. */
function readText(v: DataView, at: number, length: number): string {
  const bytes = new Uint8Array(v.buffer, v.byteOffset + at, length);
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? length : end));
}

/** The name of an enum's value. */
function nameOf<E extends Record<string, number>>(names: E, value: number): keyof E {
  for (const name in names) if (names[name] === value) return name;
  throw new RangeError(`The library gave ${value}, which names none of its values.`);
}

export const abiVersion = 37;
export const rankCountMax = 16;
export const shareMax = 1000;
export const stepCountMax = 1000;
export const imageCountMax = 64;
export const promptCountMax = 16;
export const chunkCountMax = 64;
export const promptSetCountMax = 64;
export const ncclUniqueIdBytes = 128;
export const adapterCountMax = 64;
export const controlCountMax = 4;
export const ipAdapterCountMax = 4;
export const ipImageCountMax = 16;
export const upscaleSideMax = 16384;
export const upscaleTileMin = 128;
export const upscaleTileMax = 4096;
export const adapterTargetCountMax = 100000;

export const Status = {
  ok: 0,
  bad_argument: 1,
  bad_config: 2,
  bad_weights: 3,
  no_memory: 4,
  not_finite: 5,
  cancelled: 6,
  not_ready: 7,
  no_threads: 8,
  internal: 9,
  rank_failed: 10,
  gpu_failed: 11,
  library_missing: 12,
  session_lost: 13,
} as const;

export const State = {
  loading: 0,
  ready: 1,
  running: 2,
  done: 3,
  failed: 4,
  lost: 5,
  closed: 6,
} as const;

export const Kind = {
  image: 0,
  prompt_embeds: 1,
  noise_prediction: 2,
  decode: 3,
  encode: 4,
  decode_preview: 5,
  upscale: 6,
} as const;

export const Stage = {
  load: 0,
  text: 1,
  denoise: 2,
  decode: 3,
  encode: 4,
  adapt: 5,
  upscale: 6,
} as const;

export const Output = {
  rgb: 0,
  latents: 1,
  step_ns: 2,
  prompt_embeds: 3,
  pooled: 4,
  noise_prediction: 5,
  decoded: 6,
  rank_stats: 7,
  preview: 8,
  step_parts: 9,
  dealt: 10,
  warmup: 11,
} as const;

export const HiddenAct = {
  quick_gelu: 0,
  gelu: 1,
} as const;

export const HiddenState = {
  penultimate: 0,
  last: 1,
} as const;

export const PooledFrom = {
  text_encoder: 0,
  text_encoder_2: 1,
} as const;

export const MidBlockKind = {
  cross_attention: 0,
  resnet: 1,
  none: 2,
} as const;

export const Compute = {
  f32: 0,
  bf16: 1,
  int8: 2,
} as const;

export const SyncMode = {
  corrected_async_gn: 0,
  stale_gn: 1,
  sync_gn: 2,
  separate_gn: 3,
  full_sync: 4,
  no_sync: 5,
} as const;

export const Fault = {
  none: 0,
  fail: 1,
  stall: 2,
} as const;

export const DeviceKind = {
  cpu: 0,
  cuda: 1,
} as const;

export const TransportKind = {
  auto: 0,
  peer: 1,
  nccl: 2,
} as const;

export const DType = {
  f32: 0,
  f16: 1,
  bf16: 2,
  f64: 3,
  u8: 4,
  i32: 5,
  f8_e4m3: 6,
  f8_e5m2: 7,
  i8: 8,
} as const;

export const Rng = {
  cpu: 0,
  cuda: 1,
} as const;

export const AttentionKind = {
  auto: 0,
  own: 1,
  cudnn: 2,
} as const;

export const Component = {
  text_encoder: 0,
  text_encoder_2: 1,
  unet: 2,
  vae: 3,
  taesd: 4,
} as const;

export const Algorithm = {
  lora: 0,
  loha: 1,
  lokr: 2,
  difference: 3,
  replace: 4,
} as const;

export const DoraNorm = {
  original: 0,
  merged: 1,
} as const;

export const Emphasis = {
  original: 0,
  no_norm: 1,
  interpolate: 2,
} as const;

export const NoiseSource = {
  generator: 0,
  brownian: 1,
  new_generator: 2,
} as const;

export const DeepPlan = {
  full: 0,
  cached: 1,
  adaptive: 2,
} as const;

export const Part = {
  compute: 0,
  keep: 1,
  reuse: 2,
} as const;

export const Compression = {
  none: 0,
  int8: 1,
  int4: 2,
} as const;

export const VerifyState = {
  running: 0,
  passed: 1,
  failed: 2,
} as const;

export const NetworkKind = {
  controlnet: 0,
  clip_vision: 1,
  ip_adapter: 2,
  upscaler: 3,
  t2i_adapter: 4,
} as const;

export const IpProjection = {
  plain: 0,
  plus: 1,
} as const;

export const UpscalerKind = {
  rrdbnet: 0,
  compact: 1,
} as const;

export const MaskedLatent = {
  image: 0,
  noise: 1,
  zeros: 2,
  grey: 3,
} as const;

export interface ClipConfig {
  isPresent: number | boolean;
  vocabSize: number | boolean;
  hiddenSize: number | boolean;
  intermediateSize: number | boolean;
  layerCount: number | boolean;
  headCount: number | boolean;
  positionCount: number | boolean;
  hiddenAct: keyof typeof HiddenAct;
  projectionSize: number | boolean;
  layerNormEpsilon: number;
  hiddenState: keyof typeof HiddenState;
  finalNorm: number | boolean;
}

export const sizeOfClipConfig = 48;

export function writeClipConfig(v: DataView, at: number, s: ClipConfig): void {
  v.setUint32(at + 0, Number(s.isPresent), true);
  v.setUint32(at + 4, Number(s.vocabSize), true);
  v.setUint32(at + 8, Number(s.hiddenSize), true);
  v.setUint32(at + 12, Number(s.intermediateSize), true);
  v.setUint32(at + 16, Number(s.layerCount), true);
  v.setUint32(at + 20, Number(s.headCount), true);
  v.setUint32(at + 24, Number(s.positionCount), true);
  v.setUint32(at + 28, HiddenAct[s.hiddenAct], true);
  v.setUint32(at + 32, Number(s.projectionSize), true);
  v.setFloat32(at + 36, s.layerNormEpsilon, true);
  v.setUint32(at + 40, HiddenState[s.hiddenState], true);
  v.setUint32(at + 44, Number(s.finalNorm), true);
}

export interface TextConfig {
  textEncoder: ClipConfig;
  textEncoder2: ClipConfig;
  pooledFrom: keyof typeof PooledFrom;
}

export const sizeOfTextConfig = 100;

export function writeTextConfig(v: DataView, at: number, s: TextConfig): void {
  writeClipConfig(v, at + 0, s.textEncoder);
  writeClipConfig(v, at + 48, s.textEncoder2);
  v.setUint32(at + 96, PooledFrom[s.pooledFrom], true);
}

export interface UnetConfig {
  inChannels: number | boolean;
  outChannels: number | boolean;
  levelCount: number | boolean;
  blockOutChannels: number[];
  layersPerBlock: number[];
  downTransformerLayers: number[][];
  upTransformerLayers: number[][];
  midBlock: keyof typeof MidBlockKind;
  midTransformerLayers: number | boolean;
  headCounts: number[];
  crossAttentionDim: number | boolean;
  normGroups: number | boolean;
  additionTimeEmbedDim: number | boolean;
  timeIdCount: number | boolean;
  additionInputDim: number | boolean;
  flipSinToCos: number | boolean;
  frequencyShift: number;
  normEpsilon: number;
}

export const sizeOfUnetConfig = 660;

export function writeUnetConfig(v: DataView, at: number, s: UnetConfig): void {
  v.setUint32(at + 0, Number(s.inChannels), true);
  v.setUint32(at + 4, Number(s.outChannels), true);
  v.setUint32(at + 8, Number(s.levelCount), true);
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 12 + i * 4, s.blockOutChannels[i] ?? 0, true);
  }
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 44 + i * 4, s.layersPerBlock[i] ?? 0, true);
  }
  for (let i = 0; i < 8; i++) {
    for (let j = 0; j < 8; j++) {
      v.setUint32(at + 76 + i * 32 + j * 4, s.downTransformerLayers[i]?.[j] ?? 0, true);
    }
  }
  for (let i = 0; i < 8; i++) {
    for (let j = 0; j < 8; j++) {
      v.setUint32(at + 332 + i * 32 + j * 4, s.upTransformerLayers[i]?.[j] ?? 0, true);
    }
  }
  v.setUint32(at + 588, MidBlockKind[s.midBlock], true);
  v.setUint32(at + 592, Number(s.midTransformerLayers), true);
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 596 + i * 4, s.headCounts[i] ?? 0, true);
  }
  v.setUint32(at + 628, Number(s.crossAttentionDim), true);
  v.setUint32(at + 632, Number(s.normGroups), true);
  v.setUint32(at + 636, Number(s.additionTimeEmbedDim), true);
  v.setUint32(at + 640, Number(s.timeIdCount), true);
  v.setUint32(at + 644, Number(s.additionInputDim), true);
  v.setUint32(at + 648, Number(s.flipSinToCos), true);
  v.setFloat32(at + 652, s.frequencyShift, true);
  v.setFloat32(at + 656, s.normEpsilon, true);
}

export interface VaeConfig {
  inChannels: number | boolean;
  outChannels: number | boolean;
  latentChannels: number | boolean;
  levelCount: number | boolean;
  blockOutChannels: number[];
  layersPerBlock: number | boolean;
  normGroups: number | boolean;
  midAttention: number | boolean;
  useQuantConv: number | boolean;
  usePostQuantConv: number | boolean;
  scalingFactor: number;
  residualScale: number;
}

export const sizeOfVaeConfig = 76;

export function writeVaeConfig(v: DataView, at: number, s: VaeConfig): void {
  v.setUint32(at + 0, Number(s.inChannels), true);
  v.setUint32(at + 4, Number(s.outChannels), true);
  v.setUint32(at + 8, Number(s.latentChannels), true);
  v.setUint32(at + 12, Number(s.levelCount), true);
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 16 + i * 4, s.blockOutChannels[i] ?? 0, true);
  }
  v.setUint32(at + 48, Number(s.layersPerBlock), true);
  v.setUint32(at + 52, Number(s.normGroups), true);
  v.setUint32(at + 56, Number(s.midAttention), true);
  v.setUint32(at + 60, Number(s.useQuantConv), true);
  v.setUint32(at + 64, Number(s.usePostQuantConv), true);
  v.setFloat32(at + 68, s.scalingFactor, true);
  v.setFloat32(at + 72, s.residualScale, true);
}

export interface TaesdConfig {
  isPresent: number | boolean;
  channels: number | boolean;
  levelCount: number | boolean;
  blockCounts: number[];
}

export const sizeOfTaesdConfig = 44;

export function writeTaesdConfig(v: DataView, at: number, s: TaesdConfig): void {
  v.setUint32(at + 0, Number(s.isPresent), true);
  v.setUint32(at + 4, Number(s.channels), true);
  v.setUint32(at + 8, Number(s.levelCount), true);
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 12 + i * 4, s.blockCounts[i] ?? 0, true);
  }
}

export interface ModelConfig {
  text: TextConfig;
  unet: UnetConfig;
  vae: VaeConfig;
  taesd: TaesdConfig;
}

export const sizeOfModelConfig = 880;

export function writeModelConfig(v: DataView, at: number, s: ModelConfig): void {
  writeTextConfig(v, at + 0, s.text);
  writeUnetConfig(v, at + 100, s.unet);
  writeVaeConfig(v, at + 760, s.vae);
  writeTaesdConfig(v, at + 836, s.taesd);
}

export interface Bytes {
  address: bigint;
  len: bigint;
}

export const sizeOfBytes = 16;

export function writeBytes(v: DataView, at: number, s: Bytes): void {
  v.setBigUint64(at + 0, s.address, true);
  v.setBigUint64(at + 8, s.len, true);
}

export interface WeightName {
  key: Bytes;
  name: Bytes;
  partIndex: number | boolean;
  partCount: number | boolean;
  isTransposed: number | boolean;
}

export const sizeOfWeightName = 48;

export function writeWeightName(v: DataView, at: number, s: WeightName): void {
  writeBytes(v, at + 0, s.key);
  writeBytes(v, at + 16, s.name);
  v.setUint32(at + 32, Number(s.partIndex), true);
  v.setUint32(at + 36, Number(s.partCount), true);
  v.setUint32(at + 40, Number(s.isTransposed), true);
}

export interface SessionOptions {
  rankCount: number | boolean;
  localRankFirst: number | boolean;
  localRankCount: number | boolean;
  gpuFirst: number | boolean;
  device: keyof typeof DeviceKind;
  threadCount: number | boolean;
  activationDtype: keyof typeof DType;
  shareGpu: number | boolean;
  cudaGraphs: number | boolean;
  fp16Accumulate: number | boolean;
  attention: keyof typeof AttentionKind;
  transport: keyof typeof TransportKind;
  randomWeights: number | boolean;
  branchCount: number | boolean;
  latentRows: number | boolean;
  latentWidth: number | boolean;
  splitBatch: number | boolean;
  imageCount: number | boolean;
  vaeTileLatent: number | boolean;
  hasImage: number | boolean;
  hasMask: number | boolean;
  skipsDecode: number | boolean;
  secondLatentRows: number | boolean;
  secondLatentWidth: number | boolean;
  secondHasImage: number | boolean;
  modelTileLatent: number | boolean;
  computeDtype: keyof typeof Compute;
  cudaLibrary: Bytes;
  ncclUniqueId: Bytes;
  config: ModelConfig;
  textEncoderFiles: Bytes;
  textEncoder2Files: Bytes;
  unetFiles: Bytes;
  vaeFiles: Bytes;
  taesdFiles: Bytes;
  textEncoderNames: Bytes;
  textEncoder2Names: Bytes;
  unetNames: Bytes;
  vaeNames: Bytes;
  taesdNames: Bytes;
  adapters: Bytes;
  networks: Bytes;
  controls: Bytes;
  ipAdapters: Bytes;
  upscaler: Bytes;
  upscaleRows: number | boolean;
  upscaleWidth: number | boolean;
  upscaleTile: number | boolean;
  checksOnly: number | boolean;
  besideBytes: bigint;
}

export const sizeOfSessionOptions = 1288;

export function writeSessionOptions(v: DataView, at: number, s: SessionOptions): void {
  v.setUint32(at + 0, 1288, true);
  v.setUint32(at + 4, Number(s.rankCount), true);
  v.setUint32(at + 8, Number(s.localRankFirst), true);
  v.setUint32(at + 12, Number(s.localRankCount), true);
  v.setUint32(at + 16, Number(s.gpuFirst), true);
  v.setUint32(at + 20, DeviceKind[s.device], true);
  v.setUint32(at + 24, Number(s.threadCount), true);
  v.setUint32(at + 28, DType[s.activationDtype], true);
  v.setUint32(at + 32, Number(s.shareGpu), true);
  v.setUint32(at + 36, Number(s.cudaGraphs), true);
  v.setUint32(at + 40, Number(s.fp16Accumulate), true);
  v.setUint32(at + 44, AttentionKind[s.attention], true);
  v.setUint32(at + 48, TransportKind[s.transport], true);
  v.setUint32(at + 52, Number(s.randomWeights), true);
  v.setUint32(at + 56, Number(s.branchCount), true);
  v.setUint32(at + 60, Number(s.latentRows), true);
  v.setUint32(at + 64, Number(s.latentWidth), true);
  v.setUint32(at + 68, Number(s.splitBatch), true);
  v.setUint32(at + 72, Number(s.imageCount), true);
  v.setUint32(at + 76, Number(s.vaeTileLatent), true);
  v.setUint32(at + 80, Number(s.hasImage), true);
  v.setUint32(at + 84, Number(s.hasMask), true);
  v.setUint32(at + 88, Number(s.skipsDecode), true);
  v.setUint32(at + 92, Number(s.secondLatentRows), true);
  v.setUint32(at + 96, Number(s.secondLatentWidth), true);
  v.setUint32(at + 100, Number(s.secondHasImage), true);
  v.setUint32(at + 104, Number(s.modelTileLatent), true);
  v.setUint32(at + 108, Compute[s.computeDtype], true);
  writeBytes(v, at + 112, s.cudaLibrary);
  writeBytes(v, at + 128, s.ncclUniqueId);
  writeModelConfig(v, at + 144, s.config);
  writeBytes(v, at + 1024, s.textEncoderFiles);
  writeBytes(v, at + 1040, s.textEncoder2Files);
  writeBytes(v, at + 1056, s.unetFiles);
  writeBytes(v, at + 1072, s.vaeFiles);
  writeBytes(v, at + 1088, s.taesdFiles);
  writeBytes(v, at + 1104, s.textEncoderNames);
  writeBytes(v, at + 1120, s.textEncoder2Names);
  writeBytes(v, at + 1136, s.unetNames);
  writeBytes(v, at + 1152, s.vaeNames);
  writeBytes(v, at + 1168, s.taesdNames);
  writeBytes(v, at + 1184, s.adapters);
  writeBytes(v, at + 1200, s.networks);
  writeBytes(v, at + 1216, s.controls);
  writeBytes(v, at + 1232, s.ipAdapters);
  writeBytes(v, at + 1248, s.upscaler);
  v.setUint32(at + 1264, Number(s.upscaleRows), true);
  v.setUint32(at + 1268, Number(s.upscaleWidth), true);
  v.setUint32(at + 1272, Number(s.upscaleTile), true);
  v.setUint32(at + 1276, Number(s.checksOnly), true);
  v.setBigUint64(at + 1280, s.besideBytes, true);
}

export interface Tokens {
  ids: Bytes;
  ids2: Bytes;
  weights: Bytes;
  weights2: Bytes;
  endIndex: number | boolean;
  clipSkip: number | boolean;
  repeatCount: number | boolean;
  present: number | boolean;
}

export const sizeOfTokens = 80;

export function writeTokens(v: DataView, at: number, s: Tokens): void {
  writeBytes(v, at + 0, s.ids);
  writeBytes(v, at + 16, s.ids2);
  writeBytes(v, at + 32, s.weights);
  writeBytes(v, at + 48, s.weights2);
  v.setUint32(at + 64, Number(s.endIndex), true);
  v.setUint32(at + 68, Number(s.clipSkip), true);
  v.setUint32(at + 72, Number(s.repeatCount), true);
  v.setUint32(at + 76, Number(s.present), true);
}

export interface TestHooks {
  besselVariance: number | boolean;
  delaySeed: number | boolean;
  fault: keyof typeof Fault;
  faultRank: number | boolean;
  faultStep: number | boolean;
  stallLimitMs: number | boolean;
  onlyRank: number | boolean;
  slowRank: number | boolean;
  slowPercent: number | boolean;
}

export const sizeOfTestHooks = 36;

export function writeTestHooks(v: DataView, at: number, s: TestHooks): void {
  v.setUint32(at + 0, Number(s.besselVariance), true);
  v.setUint32(at + 4, Number(s.delaySeed), true);
  v.setUint32(at + 8, Fault[s.fault], true);
  v.setUint32(at + 12, Number(s.faultRank), true);
  v.setUint32(at + 16, Number(s.faultStep), true);
  v.setUint32(at + 20, Number(s.stallLimitMs), true);
  v.setUint32(at + 24, Number(s.onlyRank), true);
  v.setUint32(at + 28, Number(s.slowRank), true);
  v.setUint32(at + 32, Number(s.slowPercent), true);
}

export interface Request {
  kind: keyof typeof Kind;
  latentRows: number | boolean;
  latentWidth: number | boolean;
  branchCount: number | boolean;
  guidanceRescale: number;
  initNoiseSigma: number;
  wantsLatents: number | boolean;
  skipsDecode: number | boolean;
  syncMode: keyof typeof SyncMode;
  warmupSteps: number | boolean;
  warmupThreshold: number;
  rankShares: Bytes;
  balanceStep: number | boolean;
  measuresBalance: number | boolean;
  splitBatch: number | boolean;
  vaeTileLatent: number | boolean;
  winograd: number | boolean;
  extrapolateHalos: number | boolean;
  freshDeep: number | boolean;
  compressExchange: keyof typeof Compression;
  wantsDecoded: number | boolean;
  previewSteps: number | boolean;
  rng: keyof typeof Rng;
  noiseSource: keyof typeof NoiseSource;
  noiseRng: keyof typeof Rng;
  brownianMin: number;
  brownianMax: number;
  noiseBatch: number | boolean;
  noisePlaces: Bytes;
  noiseSeedDelta: bigint;
  variationStrength: number;
  variationSeeds: Bytes;
  hooks: Bytes;
  seeds: Bytes;
  steps: Bytes;
  cleanMixes: Bytes;
  guidanceScales: Bytes;
  prompts: Bytes;
  negatives: Bytes;
  stepSets: Bytes;
  stepReuse: Bytes;
  outerSkips: number | boolean;
  reuseThreshold: number;
  emphasis: keyof typeof Emphasis;
  empty: Bytes;
  adapters: Bytes;
  networks: Bytes;
  controls: Bytes;
  ipAdapters: Bytes;
  injected: Bytes;
  injected2: Bytes;
  image: Bytes;
  mask: Bytes;
  latentMask: Bytes;
  conditionMask: Bytes;
  maskedLatent: keyof typeof MaskedLatent;
  maskSteps: Bytes;
  latents: Bytes;
  imageScale: number;
  noiseSkip: number | boolean;
  samplesPosterior: number | boolean;
  timeIds: number[];
  negativeTimeIds: number[];
  upscaleRows: number | boolean;
  upscaleWidth: number | boolean;
  upscaleTile: number | boolean;
  batch: number | boolean;
  timestep: number;
  sample: Bytes;
  promptEmbeds: Bytes;
  pooled: Bytes;
  timeIdsList: Bytes;
}

export const sizeOfRequest = 696;

export function writeRequest(v: DataView, at: number, s: Request): void {
  v.setUint32(at + 0, 696, true);
  v.setUint32(at + 4, Kind[s.kind], true);
  v.setUint32(at + 8, Number(s.latentRows), true);
  v.setUint32(at + 12, Number(s.latentWidth), true);
  v.setUint32(at + 16, Number(s.branchCount), true);
  v.setFloat32(at + 20, s.guidanceRescale, true);
  v.setFloat32(at + 24, s.initNoiseSigma, true);
  v.setUint32(at + 28, Number(s.wantsLatents), true);
  v.setUint32(at + 32, Number(s.skipsDecode), true);
  v.setUint32(at + 36, SyncMode[s.syncMode], true);
  v.setUint32(at + 40, Number(s.warmupSteps), true);
  v.setFloat32(at + 44, s.warmupThreshold, true);
  writeBytes(v, at + 48, s.rankShares);
  v.setUint32(at + 64, Number(s.balanceStep), true);
  v.setUint32(at + 68, Number(s.measuresBalance), true);
  v.setUint32(at + 72, Number(s.splitBatch), true);
  v.setUint32(at + 76, Number(s.vaeTileLatent), true);
  v.setUint32(at + 80, Number(s.winograd), true);
  v.setUint32(at + 84, Number(s.extrapolateHalos), true);
  v.setUint32(at + 88, Number(s.freshDeep), true);
  v.setUint32(at + 92, Compression[s.compressExchange], true);
  v.setUint32(at + 96, Number(s.wantsDecoded), true);
  v.setUint32(at + 100, Number(s.previewSteps), true);
  v.setUint32(at + 104, Rng[s.rng], true);
  v.setUint32(at + 108, NoiseSource[s.noiseSource], true);
  v.setUint32(at + 112, Rng[s.noiseRng], true);
  v.setFloat32(at + 116, s.brownianMin, true);
  v.setFloat32(at + 120, s.brownianMax, true);
  v.setUint32(at + 124, Number(s.noiseBatch), true);
  writeBytes(v, at + 128, s.noisePlaces);
  v.setBigUint64(at + 144, s.noiseSeedDelta, true);
  v.setFloat32(at + 152, s.variationStrength, true);
  writeBytes(v, at + 160, s.variationSeeds);
  writeBytes(v, at + 176, s.hooks);
  writeBytes(v, at + 192, s.seeds);
  writeBytes(v, at + 208, s.steps);
  writeBytes(v, at + 224, s.cleanMixes);
  writeBytes(v, at + 240, s.guidanceScales);
  writeBytes(v, at + 256, s.prompts);
  writeBytes(v, at + 272, s.negatives);
  writeBytes(v, at + 288, s.stepSets);
  writeBytes(v, at + 304, s.stepReuse);
  v.setUint32(at + 320, Number(s.outerSkips), true);
  v.setFloat32(at + 324, s.reuseThreshold, true);
  v.setUint32(at + 328, Emphasis[s.emphasis], true);
  writeBytes(v, at + 336, s.empty);
  writeBytes(v, at + 352, s.adapters);
  writeBytes(v, at + 368, s.networks);
  writeBytes(v, at + 384, s.controls);
  writeBytes(v, at + 400, s.ipAdapters);
  writeBytes(v, at + 416, s.injected);
  writeBytes(v, at + 432, s.injected2);
  writeBytes(v, at + 448, s.image);
  writeBytes(v, at + 464, s.mask);
  writeBytes(v, at + 480, s.latentMask);
  writeBytes(v, at + 496, s.conditionMask);
  v.setUint32(at + 512, MaskedLatent[s.maskedLatent], true);
  writeBytes(v, at + 520, s.maskSteps);
  writeBytes(v, at + 536, s.latents);
  v.setFloat32(at + 552, s.imageScale, true);
  v.setUint32(at + 556, Number(s.noiseSkip), true);
  v.setUint32(at + 560, Number(s.samplesPosterior), true);
  for (let i = 0; i < 6; i++) {
    v.setFloat32(at + 564 + i * 4, s.timeIds[i] ?? 0, true);
  }
  for (let i = 0; i < 6; i++) {
    v.setFloat32(at + 588 + i * 4, s.negativeTimeIds[i] ?? 0, true);
  }
  v.setUint32(at + 612, Number(s.upscaleRows), true);
  v.setUint32(at + 616, Number(s.upscaleWidth), true);
  v.setUint32(at + 620, Number(s.upscaleTile), true);
  v.setUint32(at + 624, Number(s.batch), true);
  v.setFloat32(at + 628, s.timestep, true);
  writeBytes(v, at + 632, s.sample);
  writeBytes(v, at + 648, s.promptEmbeds);
  writeBytes(v, at + 664, s.pooled);
  writeBytes(v, at + 680, s.timeIdsList);
}

export interface Update {
  sample: number;
  auxiliary: number;
  modelOutputs: number[];
  noise: number;
}

export const sizeOfUpdate = 28;

export function writeUpdate(v: DataView, at: number, s: Update): void {
  v.setFloat32(at + 0, s.sample, true);
  v.setFloat32(at + 4, s.auxiliary, true);
  for (let i = 0; i < 4; i++) {
    v.setFloat32(at + 8 + i * 4, s.modelOutputs[i] ?? 0, true);
  }
  v.setFloat32(at + 24, s.noise, true);
}

export interface GpuReportOptions {
  peerLimitMs: number | boolean;
  emulator: Bytes;
}

export const sizeOfGpuReportOptions = 24;

export function writeGpuReportOptions(v: DataView, at: number, s: GpuReportOptions): void {
  v.setUint32(at + 0, 24, true);
  v.setUint32(at + 4, Number(s.peerLimitMs), true);
  writeBytes(v, at + 8, s.emulator);
}

export interface Adapter {
  path: Bytes;
  unetScale: number;
  textScale: number;
  targets: Bytes;
}

export const sizeOfAdapter = 40;

export function writeAdapter(v: DataView, at: number, s: Adapter): void {
  writeBytes(v, at + 0, s.path);
  v.setFloat32(at + 16, s.unetScale, true);
  v.setFloat32(at + 20, s.textScale, true);
  writeBytes(v, at + 24, s.targets);
}

export interface AdapterTarget {
  component: keyof typeof Component;
  algorithm: keyof typeof Algorithm;
  scale: number;
  doraNorm: keyof typeof DoraNorm;
  key: Bytes;
  up: Bytes;
  down: Bytes;
  mid: Bytes;
  w1: Bytes;
  w1A: Bytes;
  w1B: Bytes;
  t1: Bytes;
  w2: Bytes;
  w2A: Bytes;
  w2B: Bytes;
  t2: Bytes;
  value: Bytes;
  doraScale: Bytes;
}

export const sizeOfAdapterTarget = 240;

export function writeAdapterTarget(v: DataView, at: number, s: AdapterTarget): void {
  v.setUint32(at + 0, Component[s.component], true);
  v.setUint32(at + 4, Algorithm[s.algorithm], true);
  v.setFloat32(at + 8, s.scale, true);
  v.setUint32(at + 12, DoraNorm[s.doraNorm], true);
  writeBytes(v, at + 16, s.key);
  writeBytes(v, at + 32, s.up);
  writeBytes(v, at + 48, s.down);
  writeBytes(v, at + 64, s.mid);
  writeBytes(v, at + 80, s.w1);
  writeBytes(v, at + 96, s.w1A);
  writeBytes(v, at + 112, s.w1B);
  writeBytes(v, at + 128, s.t1);
  writeBytes(v, at + 144, s.w2);
  writeBytes(v, at + 160, s.w2A);
  writeBytes(v, at + 176, s.w2B);
  writeBytes(v, at + 192, s.t2);
  writeBytes(v, at + 208, s.value);
  writeBytes(v, at + 224, s.doraScale);
}

export interface StepCoefficients {
  timestep: number;
  inputScale: number;
  outputFromSample: number;
  outputFromModel: number;
  latent: Update;
  auxiliary: Update;
  updatesAuxiliary: number | boolean;
  replacesOutput: number | boolean;
  samplesNoise: number | boolean;
  guidanceFactor: number;
  noiseFrom: number;
  noiseTo: number;
}

export const sizeOfStepCoefficients = 96;

export function writeStepCoefficients(v: DataView, at: number, s: StepCoefficients): void {
  v.setFloat32(at + 0, s.timestep, true);
  v.setFloat32(at + 4, s.inputScale, true);
  v.setFloat32(at + 8, s.outputFromSample, true);
  v.setFloat32(at + 12, s.outputFromModel, true);
  writeUpdate(v, at + 16, s.latent);
  writeUpdate(v, at + 44, s.auxiliary);
  v.setUint32(at + 72, Number(s.updatesAuxiliary), true);
  v.setUint32(at + 76, Number(s.replacesOutput), true);
  v.setUint32(at + 80, Number(s.samplesNoise), true);
  v.setFloat32(at + 84, s.guidanceFactor, true);
  v.setFloat32(at + 88, s.noiseFrom, true);
  v.setFloat32(at + 92, s.noiseTo, true);
}

export interface StepReuse {
  deep: keyof typeof DeepPlan;
  cross: keyof typeof Part;
}

export const sizeOfStepReuse = 8;

export function writeStepReuse(v: DataView, at: number, s: StepReuse): void {
  v.setUint32(at + 0, DeepPlan[s.deep], true);
  v.setUint32(at + 4, Part[s.cross], true);
}

export interface VerifyOptions {
  isQuick: number | boolean;
  isJson: number | boolean;
  seed: bigint;
  only: Bytes;
  emulator: Bytes;
}

export const sizeOfVerifyOptions = 56;

export function writeVerifyOptions(v: DataView, at: number, s: VerifyOptions): void {
  v.setUint32(at + 0, 56, true);
  v.setUint32(at + 4, Number(s.isQuick), true);
  v.setUint32(at + 8, Number(s.isJson), true);
  v.setBigUint64(at + 16, s.seed, true);
  writeBytes(v, at + 24, s.only);
  writeBytes(v, at + 40, s.emulator);
}

export interface Network {
  kind: keyof typeof NetworkKind;
  config: Bytes;
  files: Bytes;
  names: Bytes;
}

export const sizeOfNetwork = 56;

export function writeNetwork(v: DataView, at: number, s: Network): void {
  v.setUint32(at + 0, NetworkKind[s.kind], true);
  writeBytes(v, at + 8, s.config);
  writeBytes(v, at + 24, s.files);
  writeBytes(v, at + 40, s.names);
}

export interface ControlNetConfig {
  unet: UnetConfig;
  conditioningChannels: number | boolean;
  embeddingLevelCount: number | boolean;
  embeddingChannels: number[];
  controlTypeCount: number | boolean;
  typeLayerCount: number | boolean;
}

export const sizeOfControlNetConfig = 708;

export function writeControlNetConfig(v: DataView, at: number, s: ControlNetConfig): void {
  writeUnetConfig(v, at + 0, s.unet);
  v.setUint32(at + 660, Number(s.conditioningChannels), true);
  v.setUint32(at + 664, Number(s.embeddingLevelCount), true);
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 668 + i * 4, s.embeddingChannels[i] ?? 0, true);
  }
  v.setUint32(at + 700, Number(s.controlTypeCount), true);
  v.setUint32(at + 704, Number(s.typeLayerCount), true);
}

export interface ControlHint {
  controlType: number | boolean;
  scale: number;
  image: Bytes;
}

export const sizeOfControlHint = 24;

export function writeControlHint(v: DataView, at: number, s: ControlHint): void {
  v.setUint32(at + 0, Number(s.controlType), true);
  v.setFloat32(at + 4, s.scale, true);
  writeBytes(v, at + 8, s.image);
}

export interface ControlUse {
  networkIndex: number | boolean;
  hints: Bytes;
  scale: number;
  stepFirst: number | boolean;
  stepEnd: number | boolean;
}

export const sizeOfControlUse = 40;

export function writeControlUse(v: DataView, at: number, s: ControlUse): void {
  v.setUint32(at + 0, Number(s.networkIndex), true);
  writeBytes(v, at + 8, s.hints);
  v.setFloat32(at + 24, s.scale, true);
  v.setUint32(at + 28, Number(s.stepFirst), true);
  v.setUint32(at + 32, Number(s.stepEnd), true);
}

export interface IpAdapterConfig {
  projection: keyof typeof IpProjection;
  tokenCount: number | boolean;
  embedSize: number | boolean;
  hiddenSize: number | boolean;
  layerCount: number | boolean;
  headCount: number | boolean;
  innerSize: number | boolean;
  feedForwardSize: number | boolean;
}

export const sizeOfIpAdapterConfig = 32;

export function writeIpAdapterConfig(v: DataView, at: number, s: IpAdapterConfig): void {
  v.setUint32(at + 0, IpProjection[s.projection], true);
  v.setUint32(at + 4, Number(s.tokenCount), true);
  v.setUint32(at + 8, Number(s.embedSize), true);
  v.setUint32(at + 12, Number(s.hiddenSize), true);
  v.setUint32(at + 16, Number(s.layerCount), true);
  v.setUint32(at + 20, Number(s.headCount), true);
  v.setUint32(at + 24, Number(s.innerSize), true);
  v.setUint32(at + 28, Number(s.feedForwardSize), true);
}

export interface IpAdapterUse {
  adapterIndex: number | boolean;
  encoderIndex: number | boolean;
  scales: Bytes;
  patches: Bytes;
  stepFirst: number | boolean;
  stepEnd: number | boolean;
}

export const sizeOfIpAdapterUse = 48;

export function writeIpAdapterUse(v: DataView, at: number, s: IpAdapterUse): void {
  v.setUint32(at + 0, Number(s.adapterIndex), true);
  v.setUint32(at + 4, Number(s.encoderIndex), true);
  writeBytes(v, at + 8, s.scales);
  writeBytes(v, at + 24, s.patches);
  v.setUint32(at + 40, Number(s.stepFirst), true);
  v.setUint32(at + 44, Number(s.stepEnd), true);
}

export interface ClipVisionConfig {
  hiddenSize: number | boolean;
  intermediateSize: number | boolean;
  layerCount: number | boolean;
  headCount: number | boolean;
  imageSize: number | boolean;
  patchSize: number | boolean;
  hiddenAct: keyof typeof HiddenAct;
  projectionSize: number | boolean;
  layerNormEpsilon: number;
}

export const sizeOfClipVisionConfig = 36;

export function writeClipVisionConfig(v: DataView, at: number, s: ClipVisionConfig): void {
  v.setUint32(at + 0, Number(s.hiddenSize), true);
  v.setUint32(at + 4, Number(s.intermediateSize), true);
  v.setUint32(at + 8, Number(s.layerCount), true);
  v.setUint32(at + 12, Number(s.headCount), true);
  v.setUint32(at + 16, Number(s.imageSize), true);
  v.setUint32(at + 20, Number(s.patchSize), true);
  v.setUint32(at + 24, HiddenAct[s.hiddenAct], true);
  v.setUint32(at + 28, Number(s.projectionSize), true);
  v.setFloat32(at + 32, s.layerNormEpsilon, true);
}

export interface UpscalerConfig {
  kind: keyof typeof UpscalerKind;
  blockCount: number | boolean;
  features: number | boolean;
  growth: number | boolean;
  unshuffle: number | boolean;
  upsampleCount: number | boolean;
  shuffle: number | boolean;
}

export const sizeOfUpscalerConfig = 28;

export function writeUpscalerConfig(v: DataView, at: number, s: UpscalerConfig): void {
  v.setUint32(at + 0, UpscalerKind[s.kind], true);
  v.setUint32(at + 4, Number(s.blockCount), true);
  v.setUint32(at + 8, Number(s.features), true);
  v.setUint32(at + 12, Number(s.growth), true);
  v.setUint32(at + 16, Number(s.unshuffle), true);
  v.setUint32(at + 20, Number(s.upsampleCount), true);
  v.setUint32(at + 24, Number(s.shuffle), true);
}

export interface T2iAdapterConfig {
  inChannels: number | boolean;
  levelCount: number | boolean;
  channels: number[];
  blockCount: number | boolean;
  downscaleFactor: number | boolean;
}

export const sizeOfT2iAdapterConfig = 48;

export function writeT2iAdapterConfig(v: DataView, at: number, s: T2iAdapterConfig): void {
  v.setUint32(at + 0, Number(s.inChannels), true);
  v.setUint32(at + 4, Number(s.levelCount), true);
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 8 + i * 4, s.channels[i] ?? 0, true);
  }
  v.setUint32(at + 40, Number(s.blockCount), true);
  v.setUint32(at + 44, Number(s.downscaleFactor), true);
}

export interface NoiseLevel {
  signal: number;
  noise: number;
}

export const sizeOfNoiseLevel = 8;

export function writeNoiseLevel(v: DataView, at: number, s: NoiseLevel): void {
  v.setFloat32(at + 0, s.signal, true);
  v.setFloat32(at + 4, s.noise, true);
}

export interface MaskStep {
  blendsInput: number | boolean;
  blendsClean: number | boolean;
  blendsLatent: number | boolean;
  input: NoiseLevel;
  latent: NoiseLevel;
  cleanFromSample: number;
  cleanFromOutput: number;
}

export const sizeOfMaskStep = 36;

export function writeMaskStep(v: DataView, at: number, s: MaskStep): void {
  v.setUint32(at + 0, Number(s.blendsInput), true);
  v.setUint32(at + 4, Number(s.blendsClean), true);
  v.setUint32(at + 8, Number(s.blendsLatent), true);
  writeNoiseLevel(v, at + 12, s.input);
  writeNoiseLevel(v, at + 20, s.latent);
  v.setFloat32(at + 28, s.cleanFromSample, true);
  v.setFloat32(at + 32, s.cleanFromOutput, true);
}

export const zeroRequest: Request = {
  kind: "image",
  latentRows: 0,
  latentWidth: 0,
  branchCount: 0,
  guidanceRescale: 0,
  initNoiseSigma: 0,
  wantsLatents: 0,
  skipsDecode: 0,
  syncMode: "corrected_async_gn",
  warmupSteps: 0,
  warmupThreshold: 0,
  rankShares: { address: 0n, len: 0n, },
  balanceStep: 0,
  measuresBalance: 0,
  splitBatch: 0,
  vaeTileLatent: 0,
  winograd: 0,
  extrapolateHalos: 0,
  freshDeep: 0,
  compressExchange: "none",
  wantsDecoded: 0,
  previewSteps: 0,
  rng: "cpu",
  noiseSource: "generator",
  noiseRng: "cpu",
  brownianMin: 0,
  brownianMax: 0,
  noiseBatch: 0,
  noisePlaces: { address: 0n, len: 0n, },
  noiseSeedDelta: 0n,
  variationStrength: 0,
  variationSeeds: { address: 0n, len: 0n, },
  hooks: { address: 0n, len: 0n, },
  seeds: { address: 0n, len: 0n, },
  steps: { address: 0n, len: 0n, },
  cleanMixes: { address: 0n, len: 0n, },
  guidanceScales: { address: 0n, len: 0n, },
  prompts: { address: 0n, len: 0n, },
  negatives: { address: 0n, len: 0n, },
  stepSets: { address: 0n, len: 0n, },
  stepReuse: { address: 0n, len: 0n, },
  outerSkips: 0,
  reuseThreshold: 0,
  emphasis: "original",
  empty: { address: 0n, len: 0n, },
  adapters: { address: 0n, len: 0n, },
  networks: { address: 0n, len: 0n, },
  controls: { address: 0n, len: 0n, },
  ipAdapters: { address: 0n, len: 0n, },
  injected: { address: 0n, len: 0n, },
  injected2: { address: 0n, len: 0n, },
  image: { address: 0n, len: 0n, },
  mask: { address: 0n, len: 0n, },
  latentMask: { address: 0n, len: 0n, },
  conditionMask: { address: 0n, len: 0n, },
  maskedLatent: "image",
  maskSteps: { address: 0n, len: 0n, },
  latents: { address: 0n, len: 0n, },
  imageScale: 0,
  noiseSkip: 0,
  samplesPosterior: 0,
  timeIds: [],
  negativeTimeIds: [],
  upscaleRows: 0,
  upscaleWidth: 0,
  upscaleTile: 0,
  batch: 0,
  timestep: 0,
  sample: { address: 0n, len: 0n, },
  promptEmbeds: { address: 0n, len: 0n, },
  pooled: { address: 0n, len: 0n, },
  timeIdsList: { address: 0n, len: 0n, },
};

export interface DeviceInfo {
  coreCount: number;
  gpuCount: number;
  hasBf16: number;
  memoryAvailable: bigint;
  cpuName: string;
  instructionSet: string;
  gpuName: string;
  cudaKernels: string;
}

export const sizeOfDeviceInfo = 536;

export function readDeviceInfo(v: DataView, at: number): DeviceInfo {
  return {
    coreCount: v.getUint32(at + 4, true),
    gpuCount: v.getUint32(at + 8, true),
    hasBf16: v.getUint32(at + 12, true),
    memoryAvailable: v.getBigUint64(at + 16, true),
    cpuName: readText(v, at + 24, 128),
    instructionSet: readText(v, at + 152, 128),
    gpuName: readText(v, at + 280, 128),
    cudaKernels: readText(v, at + 408, 128),
  };
}

export interface CpuRates {
  reserved: number;
  flopsPerSecond: bigint;
  bytesPerSecond: bigint;
}

export const sizeOfCpuRates = 24;

export function readCpuRates(v: DataView, at: number): CpuRates {
  return {
    reserved: v.getUint32(at + 4, true),
    flopsPerSecond: v.getBigUint64(at + 8, true),
    bytesPerSecond: v.getBigUint64(at + 16, true),
  };
}

export interface Progress {
  state: keyof typeof State;
  status: keyof typeof Status;
  stage: keyof typeof Stage;
  stepIndex: number;
  stepCount: number;
  planCount: number;
  unetDryRunCount: number;
  previewStep: number;
  scratchBytes: bigint;
  neededBytes: bigint;
  copyBytes: bigint;
  copiedBytes: bigint;
  deviceBytes: bigint;
  adaptBytes: bigint;
  adaptedBytes: bigint;
  mergedBytes: bigint;
  mergedWeightCount: bigint;
  adaptNs: bigint;
  textNs: bigint;
  encodeNs: bigint;
  denoiseNs: bigint;
  decodeNs: bigint;
}

export const sizeOfProgress = 152;

export function readProgress(v: DataView, at: number): Progress {
  return {
    state: nameOf(State, v.getUint32(at + 4, true)),
    status: nameOf(Status, v.getUint32(at + 8, true)),
    stage: nameOf(Stage, v.getUint32(at + 12, true)),
    stepIndex: v.getUint32(at + 16, true),
    stepCount: v.getUint32(at + 20, true),
    planCount: v.getUint32(at + 24, true),
    unetDryRunCount: v.getUint32(at + 28, true),
    previewStep: v.getUint32(at + 32, true),
    scratchBytes: v.getBigUint64(at + 40, true),
    neededBytes: v.getBigUint64(at + 48, true),
    copyBytes: v.getBigUint64(at + 56, true),
    copiedBytes: v.getBigUint64(at + 64, true),
    deviceBytes: v.getBigUint64(at + 72, true),
    adaptBytes: v.getBigUint64(at + 80, true),
    adaptedBytes: v.getBigUint64(at + 88, true),
    mergedBytes: v.getBigUint64(at + 96, true),
    mergedWeightCount: v.getBigUint64(at + 104, true),
    adaptNs: v.getBigUint64(at + 112, true),
    textNs: v.getBigUint64(at + 120, true),
    encodeNs: v.getBigUint64(at + 128, true),
    denoiseNs: v.getBigUint64(at + 136, true),
    decodeNs: v.getBigUint64(at + 144, true),
  };
}

export interface RankStats {
  computeNs: bigint;
  waitNs: bigint;
  haloRowBytes: bigint;
  statisticsBytes: bigint;
  keysValuesBytes: bigint;
  gatherBytes: bigint;
  bufferBytes: bigint;
  scratchBytes: bigint;
  graphsCaptured: bigint;
  graphsReplayed: bigint;
  unetRows: bigint;
}

export const sizeOfRankStats = 88;

export function readRankStats(v: DataView, at: number): RankStats {
  return {
    computeNs: v.getBigUint64(at + 0, true),
    waitNs: v.getBigUint64(at + 8, true),
    haloRowBytes: v.getBigUint64(at + 16, true),
    statisticsBytes: v.getBigUint64(at + 24, true),
    keysValuesBytes: v.getBigUint64(at + 32, true),
    gatherBytes: v.getBigUint64(at + 40, true),
    bufferBytes: v.getBigUint64(at + 48, true),
    scratchBytes: v.getBigUint64(at + 56, true),
    graphsCaptured: v.getBigUint64(at + 64, true),
    graphsReplayed: v.getBigUint64(at + 72, true),
    unetRows: v.getBigUint64(at + 80, true),
  };
}

export const functions = {
  bxl_abi_version: { args: [], returns: "u32" },
  bxl_device_info: { args: ["ptr"], returns: "u32" },
  bxl_cpu_rates: { args: ["u32", "u32", "ptr"], returns: "u32" },
  bxl_session_open: { args: ["ptr", "ptr"], returns: "u32" },
  bxl_session_close: { args: ["ptr"], returns: "void" },
  bxl_session_free: { args: ["ptr"], returns: "void" },
  bxl_session_submit: { args: ["ptr", "ptr"], returns: "u32" },
  bxl_session_poll: { args: ["ptr", "ptr"], returns: "u32" },
  bxl_session_read: { args: ["ptr", "u32", "ptr", "u64"], returns: "u64" },
  bxl_session_cancel: { args: ["ptr"], returns: "void" },
  bxl_last_error: { args: ["ptr", "ptr", "u64"], returns: "u64" },
  bxl_session_warnings: { args: ["ptr", "ptr", "u64"], returns: "u64" },
  bxl_session_weight_notes: { args: ["ptr", "ptr", "u64"], returns: "u64" },
  bxl_gpu_report: { args: ["ptr", "ptr", "u64"], returns: "u64" },
  bxl_verify_open: { args: ["ptr", "ptr"], returns: "u32" },
  bxl_verify_state: { args: ["ptr"], returns: "u32" },
  bxl_verify_read: { args: ["ptr", "ptr", "u64"], returns: "u64" },
  bxl_verify_free: { args: ["ptr"], returns: "void" },
  bxl_nccl_unique_id: { args: ["ptr", "ptr"], returns: "u32" },
  bxl_plan: { args: ["ptr", "ptr", "u64"], returns: "u64" },
  bxl_random_normal: { args: ["u64", "u32", "ptr", "u64"], returns: "void" },
} as const;
