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

export const abiVersion = 7;
export const stepCountMax = 1000;
export const meetingIdBytes = 128;

export const Status = {
  ok: 0,
  badArgument: 1,
  badConfig: 2,
  badWeights: 3,
  noMemory: 4,
  notFinite: 5,
  cancelled: 6,
  notReady: 7,
  noThreads: 8,
  internal: 9,
  rankFailed: 10,
  gpuFailed: 11,
  libraryMissing: 12,
} as const;

export const State = {
  loading: 0,
  ready: 1,
  running: 2,
  done: 3,
  failed: 4,
} as const;

export const Kind = {
  image: 0,
  promptEmbeds: 1,
  noisePrediction: 2,
  decode: 3,
  encode: 4,
} as const;

export const Stage = {
  load: 0,
  text: 1,
  denoise: 2,
  decode: 3,
  encode: 4,
} as const;

export const Output = {
  rgb: 0,
  latents: 1,
  stepNs: 2,
  promptEmbeds: 3,
  pooled: 4,
  noisePrediction: 5,
  decoded: 6,
  rankCounts: 7,
} as const;

export const HiddenAct = {
  quickGelu: 0,
  gelu: 1,
} as const;

export const Compute = {
  f32: 0,
  bf16: 1,
} as const;

export const SyncMode = {
  correctedAsyncGn: 0,
  staleGn: 1,
  syncGn: 2,
  separateGn: 3,
  fullSync: 4,
  noSync: 5,
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
} as const;

export const Rng = {
  cpu: 0,
  cuda: 1,
} as const;

export interface ClipConfig {
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layerCount: number;
  headCount: number;
  positionCount: number;
  hiddenAct: number;
  projectionSize: number;
  layerNormEpsilon: number;
}

export const sizeOfClipConfig = 36;

export function writeClipConfig(v: DataView, at: number, s: ClipConfig): void {
  v.setUint32(at + 0, s.vocabSize, true);
  v.setUint32(at + 4, s.hiddenSize, true);
  v.setUint32(at + 8, s.intermediateSize, true);
  v.setUint32(at + 12, s.layerCount, true);
  v.setUint32(at + 16, s.headCount, true);
  v.setUint32(at + 20, s.positionCount, true);
  v.setUint32(at + 24, s.hiddenAct, true);
  v.setUint32(at + 28, s.projectionSize, true);
  v.setFloat32(at + 32, s.layerNormEpsilon, true);
}

export interface UnetConfig {
  inChannels: number;
  outChannels: number;
  levelCount: number;
  blockOutChannels: number[];
  layersPerBlock: number[];
  downTransformerLayers: number[];
  upTransformerLayers: number[];
  midTransformerLayers: number;
  headCounts: number[];
  crossAttentionDim: number;
  normGroups: number;
  additionTimeEmbedDim: number;
  additionInputDim: number;
  flipSinToCos: number;
  frequencyShift: number;
  normEpsilon: number;
}

export const sizeOfUnetConfig = 204;

export function writeUnetConfig(v: DataView, at: number, s: UnetConfig): void {
  v.setUint32(at + 0, s.inChannels, true);
  v.setUint32(at + 4, s.outChannels, true);
  v.setUint32(at + 8, s.levelCount, true);
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 12 + i * 4, s.blockOutChannels[i] ?? 0, true);
  }
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 44 + i * 4, s.layersPerBlock[i] ?? 0, true);
  }
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 76 + i * 4, s.downTransformerLayers[i] ?? 0, true);
  }
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 108 + i * 4, s.upTransformerLayers[i] ?? 0, true);
  }
  v.setUint32(at + 140, s.midTransformerLayers, true);
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 144 + i * 4, s.headCounts[i] ?? 0, true);
  }
  v.setUint32(at + 176, s.crossAttentionDim, true);
  v.setUint32(at + 180, s.normGroups, true);
  v.setUint32(at + 184, s.additionTimeEmbedDim, true);
  v.setUint32(at + 188, s.additionInputDim, true);
  v.setUint32(at + 192, s.flipSinToCos, true);
  v.setFloat32(at + 196, s.frequencyShift, true);
  v.setFloat32(at + 200, s.normEpsilon, true);
}

export interface VaeConfig {
  inChannels: number;
  outChannels: number;
  latentChannels: number;
  levelCount: number;
  blockOutChannels: number[];
  layersPerBlock: number;
  normGroups: number;
  midAttention: number;
  useQuantConv: number;
  usePostQuantConv: number;
  scalingFactor: number;
  residualScale: number;
}

export const sizeOfVaeConfig = 76;

export function writeVaeConfig(v: DataView, at: number, s: VaeConfig): void {
  v.setUint32(at + 0, s.inChannels, true);
  v.setUint32(at + 4, s.outChannels, true);
  v.setUint32(at + 8, s.latentChannels, true);
  v.setUint32(at + 12, s.levelCount, true);
  for (let i = 0; i < 8; i++) {
    v.setUint32(at + 16 + i * 4, s.blockOutChannels[i] ?? 0, true);
  }
  v.setUint32(at + 48, s.layersPerBlock, true);
  v.setUint32(at + 52, s.normGroups, true);
  v.setUint32(at + 56, s.midAttention, true);
  v.setUint32(at + 60, s.useQuantConv, true);
  v.setUint32(at + 64, s.usePostQuantConv, true);
  v.setFloat32(at + 68, s.scalingFactor, true);
  v.setFloat32(at + 72, s.residualScale, true);
}

export interface ModelConfig {
  clip: ClipConfig;
  clip2: ClipConfig;
  unet: UnetConfig;
  vae: VaeConfig;
}

export const sizeOfModelConfig = 352;

export function writeModelConfig(v: DataView, at: number, s: ModelConfig): void {
  writeClipConfig(v, at + 0, s.clip);
  writeClipConfig(v, at + 36, s.clip2);
  writeUnetConfig(v, at + 72, s.unet);
  writeVaeConfig(v, at + 276, s.vae);
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

export interface SessionOptions {
  rankCount: number;
  rankHereFirst: number;
  rankHereCount: number;
  gpuFirst: number;
  device: number;
  threadCount: number;
  activation: number;
  shareGpu: number;
  cudaGraphs: number;
  fp16Accumulate: number;
  transport: number;
  randomWeights: number;
  branchCount: number;
  latentRows: number;
  latentWidth: number;
  splitBatch: number;
  imageCount: number;
  vaeTileLatent: number;
  compute: number;
  cudaLibrary: Bytes;
  meetingId: Bytes;
  config: ModelConfig;
  textEncoderFiles: Bytes;
  textEncoder2Files: Bytes;
  unetFiles: Bytes;
  vaeFiles: Bytes;
}

export const sizeOfSessionOptions = 528;

export function writeSessionOptions(v: DataView, at: number, s: SessionOptions): void {
  v.setUint32(at + 0, 528, true);
  v.setUint32(at + 4, s.rankCount, true);
  v.setUint32(at + 8, s.rankHereFirst, true);
  v.setUint32(at + 12, s.rankHereCount, true);
  v.setUint32(at + 16, s.gpuFirst, true);
  v.setUint32(at + 20, s.device, true);
  v.setUint32(at + 24, s.threadCount, true);
  v.setUint32(at + 28, s.activation, true);
  v.setUint32(at + 32, s.shareGpu, true);
  v.setUint32(at + 36, s.cudaGraphs, true);
  v.setUint32(at + 40, s.fp16Accumulate, true);
  v.setUint32(at + 44, s.transport, true);
  v.setUint32(at + 48, s.randomWeights, true);
  v.setUint32(at + 52, s.branchCount, true);
  v.setUint32(at + 56, s.latentRows, true);
  v.setUint32(at + 60, s.latentWidth, true);
  v.setUint32(at + 64, s.splitBatch, true);
  v.setUint32(at + 68, s.imageCount, true);
  v.setUint32(at + 72, s.vaeTileLatent, true);
  v.setUint32(at + 76, s.compute, true);
  writeBytes(v, at + 80, s.cudaLibrary);
  writeBytes(v, at + 96, s.meetingId);
  writeModelConfig(v, at + 112, s.config);
  writeBytes(v, at + 464, s.textEncoderFiles);
  writeBytes(v, at + 480, s.textEncoder2Files);
  writeBytes(v, at + 496, s.unetFiles);
  writeBytes(v, at + 512, s.vaeFiles);
}

export interface Tokens {
  ids: Bytes;
  ids2: Bytes;
  endIndex2: number;
  present: number;
}

export const sizeOfTokens = 40;

export function writeTokens(v: DataView, at: number, s: Tokens): void {
  writeBytes(v, at + 0, s.ids);
  writeBytes(v, at + 16, s.ids2);
  v.setUint32(at + 32, s.endIndex2, true);
  v.setUint32(at + 36, s.present, true);
}

export interface TestHooks {
  besselVariance: number;
  delaySeed: number;
  fault: number;
  faultRank: number;
  faultStep: number;
  stallLimitMs: number;
  alone: number;
}

export const sizeOfTestHooks = 28;

export function writeTestHooks(v: DataView, at: number, s: TestHooks): void {
  v.setUint32(at + 0, s.besselVariance, true);
  v.setUint32(at + 4, s.delaySeed, true);
  v.setUint32(at + 8, s.fault, true);
  v.setUint32(at + 12, s.faultRank, true);
  v.setUint32(at + 16, s.faultStep, true);
  v.setUint32(at + 20, s.stallLimitMs, true);
  v.setUint32(at + 24, s.alone, true);
}

export interface Request {
  kind: number;
  latentRows: number;
  latentWidth: number;
  branchCount: number;
  guidanceScale: number;
  guidanceRescale: number;
  initialScale: number;
  wantsLatents: number;
  mode: number;
  warmupSteps: number;
  splitBatch: number;
  vaeTileLatent: number;
  extrapolatesHalos: number;
  wantsDecoded: number;
  rng: number;
  hooks: TestHooks;
  seeds: Bytes;
  rows: Bytes;
  prompt: Tokens;
  negative: Tokens;
  timeIds: number[];
  batch: number;
  timestep: number;
  sample: Bytes;
  promptEmbeds: Bytes;
  pooled: Bytes;
  timeIdsList: Bytes;
}

export const sizeOfRequest = 304;

export function writeRequest(v: DataView, at: number, s: Request): void {
  v.setUint32(at + 0, 304, true);
  v.setUint32(at + 4, s.kind, true);
  v.setUint32(at + 8, s.latentRows, true);
  v.setUint32(at + 12, s.latentWidth, true);
  v.setUint32(at + 16, s.branchCount, true);
  v.setFloat32(at + 20, s.guidanceScale, true);
  v.setFloat32(at + 24, s.guidanceRescale, true);
  v.setFloat32(at + 28, s.initialScale, true);
  v.setUint32(at + 32, s.wantsLatents, true);
  v.setUint32(at + 36, s.mode, true);
  v.setUint32(at + 40, s.warmupSteps, true);
  v.setUint32(at + 44, s.splitBatch, true);
  v.setUint32(at + 48, s.vaeTileLatent, true);
  v.setUint32(at + 52, s.extrapolatesHalos, true);
  v.setUint32(at + 56, s.wantsDecoded, true);
  v.setUint32(at + 60, s.rng, true);
  writeTestHooks(v, at + 64, s.hooks);
  writeBytes(v, at + 96, s.seeds);
  writeBytes(v, at + 112, s.rows);
  writeTokens(v, at + 128, s.prompt);
  writeTokens(v, at + 168, s.negative);
  for (let i = 0; i < 6; i++) {
    v.setFloat32(at + 208 + i * 4, s.timeIds[i] ?? 0, true);
  }
  v.setUint32(at + 232, s.batch, true);
  v.setFloat32(at + 236, s.timestep, true);
  writeBytes(v, at + 240, s.sample);
  writeBytes(v, at + 256, s.promptEmbeds);
  writeBytes(v, at + 272, s.pooled);
  writeBytes(v, at + 288, s.timeIdsList);
}

export interface Update {
  sample: number;
  saved: number;
  history: number[];
  noise: number;
}

export const sizeOfUpdate = 28;

export function writeUpdate(v: DataView, at: number, s: Update): void {
  v.setFloat32(at + 0, s.sample, true);
  v.setFloat32(at + 4, s.saved, true);
  for (let i = 0; i < 4; i++) {
    v.setFloat32(at + 8 + i * 4, s.history[i] ?? 0, true);
  }
  v.setFloat32(at + 24, s.noise, true);
}

export interface StepCoefficients {
  timestep: number;
  inputScale: number;
  outputFromSample: number;
  outputFromModel: number;
  latent: Update;
  saved: Update;
  updatesSaved: number;
  drawsNoise: number;
}

export const sizeOfStepCoefficients = 80;

export function writeStepCoefficients(v: DataView, at: number, s: StepCoefficients): void {
  v.setFloat32(at + 0, s.timestep, true);
  v.setFloat32(at + 4, s.inputScale, true);
  v.setFloat32(at + 8, s.outputFromSample, true);
  v.setFloat32(at + 12, s.outputFromModel, true);
  writeUpdate(v, at + 16, s.latent);
  writeUpdate(v, at + 44, s.saved);
  v.setUint32(at + 72, s.updatesSaved, true);
  v.setUint32(at + 76, s.drawsNoise, true);
}

export interface GpuReportOptions {
  peerLimitMs: number;
  emulator: Bytes;
}

export const sizeOfGpuReportOptions = 24;

export function writeGpuReportOptions(v: DataView, at: number, s: GpuReportOptions): void {
  v.setUint32(at + 0, 24, true);
  v.setUint32(at + 4, s.peerLimitMs, true);
  writeBytes(v, at + 8, s.emulator);
}

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

export interface Progress {
  state: number;
  status: number;
  stage: number;
  stepIndex: number;
  workingRanks: number;
  scratchBytes: bigint;
  weightBytes: bigint;
  copyBytes: bigint;
  copiedBytes: bigint;
  deviceBytes: bigint;
  textNs: bigint;
  denoiseNs: bigint;
  decodeNs: bigint;
}

export const sizeOfProgress = 88;

export function readProgress(v: DataView, at: number): Progress {
  return {
    state: v.getUint32(at + 4, true),
    status: v.getUint32(at + 8, true),
    stage: v.getUint32(at + 12, true),
    stepIndex: v.getUint32(at + 16, true),
    workingRanks: v.getUint32(at + 20, true),
    scratchBytes: v.getBigUint64(at + 24, true),
    weightBytes: v.getBigUint64(at + 32, true),
    copyBytes: v.getBigUint64(at + 40, true),
    copiedBytes: v.getBigUint64(at + 48, true),
    deviceBytes: v.getBigUint64(at + 56, true),
    textNs: v.getBigUint64(at + 64, true),
    denoiseNs: v.getBigUint64(at + 72, true),
    decodeNs: v.getBigUint64(at + 80, true),
  };
}

export interface RankCounts {
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
}

export const sizeOfRankCounts = 80;

export function readRankCounts(v: DataView, at: number): RankCounts {
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
  };
}

export const functions = {
  bxl_abi_version: { args: [], returns: "u32" },
  bxl_device_info: { args: ["ptr"], returns: "u32" },
  bxl_session_open: { args: ["ptr", "ptr"], returns: "u32" },
  bxl_session_close: { args: ["ptr"], returns: "void" },
  bxl_session_submit: { args: ["ptr", "ptr"], returns: "u32" },
  bxl_session_poll: { args: ["ptr", "ptr"], returns: "u32" },
  bxl_session_read: { args: ["ptr", "u32", "ptr", "u64"], returns: "u64" },
  bxl_session_cancel: { args: ["ptr"], returns: "void" },
  bxl_last_error: { args: ["ptr", "ptr", "u64"], returns: "u64" },
  bxl_gpu_report: { args: ["ptr", "ptr", "u64"], returns: "u64" },
  bxl_meeting_id: { args: ["ptr", "ptr"], returns: "u32" },
  bxl_plan: { args: ["ptr", "ptr", "u64"], returns: "u64" },
  bxl_random_normal: { args: ["u64", "u32", "ptr", "u64"], returns: "void" },
} as const;
