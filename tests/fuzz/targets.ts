/**
 * All targets of TypeScript, each loaded when it is run; those of the native library are in
 * zig/fuzz.zig.
 */
import type { Target } from "./target.ts";

const loaders: Readonly<Record<string, () => Promise<Target>>> = {
  configs: async () => (await import("./targets/models.ts")).configTarget,
  tokenizers: async () => (await import("./targets/tokenizers.ts")).tokenizerTarget,
  headers: async () => (await import("./targets/models.ts")).headerTarget,
  loras: async () => (await import("./targets/loras.ts")).loraTarget,
  "single-files": async () => (await import("./targets/single-files.ts")).singleFileTarget,
  networks: async () => (await import("./targets/networks.ts")).networkTarget,
  prompts: async () => (await import("./targets/prompts.ts")).promptTarget,
  texts: async () => (await import("./targets/prompts.ts")).textTarget,
  images: async () => (await import("./targets/images.ts")).imageTarget,
  pixels: async () => (await import("./targets/pixels.ts")).pixelTarget,
  recipes: async () => (await import("./targets/images.ts")).recipeTarget,
  settings: async () => (await import("./targets/settings.ts")).settingTarget,
  http: async () => (await import("./targets/http.ts")).httpTarget,
  requests: async () => (await import("./targets/http.ts")).requestTarget,
  sockets: async () => (await import("./targets/sockets.ts")).socketTarget,
  api: async () => (await import("./targets/api.ts")).apiTarget,
  queue: async () => (await import("./targets/queue.ts")).queueTarget,
  hub: async () => (await import("./targets/hub.ts")).hubTarget,
  transfers: async () => (await import("./targets/hub.ts")).transferTarget,
  rendezvous: async () => (await import("./targets/rendezvous.ts")).rendezvousTarget,
  jobs: async () => (await import("./targets/jobs.ts")).storeTarget,
};

export const targetNames: readonly string[] = Object.keys(loaders);

export async function openTarget(name: string): Promise<Target> {
  return await loaders[name]!();
}
