/**
 * ComfyUI's default workflow in the format of its API.
 */
export function defaultPrompt(inputs: Record<string, Record<string, unknown>> = {}) {
  const node = (id: string, class_type: string, own: Record<string, unknown>) => {
    return [id, { class_type, inputs: { ...own, ...inputs[id] } }] as const;
  };
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
