/**
 * What ComfyUI tells of the machine and of its folders of models.
 * Source: ComfyUI, server.py (system_stats, get_models) and folder_paths.py.
 */
import type { Capabilities } from "../../capabilities.ts";
import { memoryOfMachine } from "../machine.ts";

/** The version of ComfyUI whose API this is. */
const apiVersion = "0.3.64";

export function systemStats({ version, ranks }: Capabilities) {
  const { total, free } = memoryOfMachine();
  return {
    system: {
      os: "posix",
      ram_total: total,
      ram_free: free,
      comfyui_version: apiVersion,
      required_frontend_version: null,
      installed_templates_version: null,
      required_templates_version: null,
      python_version: `none (BasedXL ${version}, Bun ${Bun.version})`,
      pytorch_version: "none",
      embedded_python: false,
      argv: ["basedxl", "serve"],
    },
    devices: Array.from({ length: ranks.count }, (_, index) => ({
      ...{ name: `rank ${index}`, type: "cpu", index },
      ...{ vram_total: total, vram_free: free, torch_vram_total: 0, torch_vram_free: 0 },
    })),
  };
}

export const modelFolders = [
  ...["checkpoints", "loras", "vae", "embeddings", "controlnet", "upscale_models"],
];

/** Names in a folder; null for a folder that is not there. */
export function modelFolder(
  folder: string,
  { models, loras, vaes, embeddings, controlnets, upscalers }: Capabilities,
): string[] | null {
  const names = (list: readonly { name: string }[]) => list.map(({ name }) => name);
  if (folder === "checkpoints") return names(models);
  if (folder === "loras") return names(loras);
  if (folder === "embeddings") return names(embeddings);
  if (folder === "controlnet") return names(controlnets);
  if (folder === "upscale_models") return names(upscalers);
  return folder === "vae" ? names(vaes) : null;
}
