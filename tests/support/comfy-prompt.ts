/**
 * ComfyUI's default workflow, and that of its example of SDXL's base model and refiner, in the
 * format of its API.
 */
type Inputs = Record<string, Record<string, unknown>>;

/** `inputs` by node go before the workflow's own. */
export function defaultPrompt(inputs: Inputs = {}) {
  const node = nodeWith(inputs);
  return Object.fromEntries([
    node("3", "KSampler", {
      ...{ cfg: 8, denoise: 1, sampler_name: "euler", scheduler: "normal", seed: 42, steps: 4 },
      ...{ latent_image: ["5", 0], model: ["4", 0], negative: ["7", 0], positive: ["6", 0] },
    }),
    node("4", "CheckpointLoaderSimple", { ckpt_name: "mini.safetensors" }),
    node("5", "EmptyLatentImage", { batch_size: 1, height: 64, width: 64 }),
    node("6", "CLIPTextEncode", { clip: ["4", 1], text: "a (red:1.2) house" }),
    node("7", "CLIPTextEncode", { clip: ["4", 1], text: "blurry" }),
    node("8", "VAEDecode", { samples: ["3", 0], vae: ["4", 2] }),
    node("9", "SaveImage", { filename_prefix: "ComfyUI", images: ["8", 0] }),
  ]);
}

/** 4 and 12 load the models, 10 and 11 sample. */
export function refinedPrompt(inputs: Inputs = {}) {
  const node = nodeWith(inputs);
  const sampling = { cfg: 8, noise_seed: 42, sampler_name: "euler", scheduler: "normal", steps: 5 };
  return Object.fromEntries([
    node("4", "CheckpointLoaderSimple", { ckpt_name: "mini.safetensors" }),
    node("5", "EmptyLatentImage", { batch_size: 1, height: 64, width: 64 }),
    node("6", "CLIPTextEncode", { clip: ["4", 1], text: "a red circle" }),
    node("7", "CLIPTextEncode", { clip: ["4", 1], text: "blurry" }),
    node("10", "KSamplerAdvanced", {
      ...{ ...sampling, add_noise: "enable", return_with_leftover_noise: "enable" },
      ...{ start_at_step: 0, end_at_step: 3, model: ["4", 0], latent_image: ["5", 0] },
      ...{ positive: ["6", 0], negative: ["7", 0] },
    }),
    node("11", "KSamplerAdvanced", {
      ...{ ...sampling, add_noise: "disable", return_with_leftover_noise: "disable" },
      ...{ noise_seed: 0, start_at_step: 3, end_at_step: 10_000, model: ["12", 0] },
      ...{ latent_image: ["10", 0], positive: ["15", 0], negative: ["16", 0] },
    }),
    node("12", "CheckpointLoaderSimple", { ckpt_name: "other.safetensors" }),
    node("15", "CLIPTextEncode", { clip: ["12", 1], text: "a red circle" }),
    node("16", "CLIPTextEncode", { clip: ["12", 1], text: "blurry" }),
    node("17", "VAEDecode", { samples: ["11", 0], vae: ["12", 2] }),
    node("19", "SaveImage", { filename_prefix: "ComfyUI", images: ["17", 0] }),
  ]);
}

// --- internal ---

function nodeWith(inputs: Inputs) {
  return (id: string, class_type: string, own: Record<string, unknown>) => {
    return [id, { class_type, inputs: { ...own, ...inputs[id] } }] as const;
  };
}
