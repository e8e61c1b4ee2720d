/**
 * What ComfyUI tells of the machine and of its folders of models.
 * Source: ComfyUI, server.py (system_stats, get_models) and folder_paths.py.
 */
import type { Capabilities } from "../../capabilities.ts";
import { memoryOfMachine } from "../machine.ts";
import type { ListName } from "./input-types.ts";

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

/** The lists of this server by ComfyUI's names of the folders. */
const lists = new Map<string, ListName>([
  ["checkpoints", "models"],
  ["loras", "loras"],
  ["vae", "vaes"],
  ["embeddings", "embeddings"],
  ["controlnet", "controlnets"],
  ["upscale_models", "upscalers"],
]);

export const modelFolders = [...lists.keys()];

/** Names in a folder; null for a folder that is not there. */
export function modelFolder(folder: string, capabilities: Capabilities): string[] | null {
  const list = lists.get(folder);
  return list === undefined ? null : capabilities[list].map(({ name }) => name);
}
