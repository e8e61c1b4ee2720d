/**
 * What A1111's lists show: models, samplers, LoRAs, embeddings, and what is not there.
 * Source: A1111 and Forge, modules/api/api.py; extensions-builtin/Lora/scripts/lora_script.py.
 */
import { shortHash } from "../../../library/hashes.ts";
import { samplerRows, schedulers } from "../../../settings/samplers.ts";
import type { Capabilities } from "../../capabilities.ts";
import type { ListedModel } from "../listed-names.ts";
import { memoryOfMachine } from "../machine.ts";

/** "name [hash]", as checkpoints are chosen. */
export function titleOf({ name, sha256 }: ListedModel): string {
  return sha256 === null ? name : `${name} [${shortHash(sha256)}]`;
}

export function modelList({ models }: Capabilities) {
  return models.map((model) => ({
    title: titleOf(model),
    model_name: model.name,
    hash: model.sha256 && shortHash(model.sha256),
    sha256: model.sha256,
    // Where files lie is not for clients.
    filename: model.name,
    config: null,
  }));
}

export function samplerList() {
  return schedulers.map((key) => {
    const { others }: { others: readonly string[] } = samplerRows[key];
    const [name = key, ...aliases] = others;
    const own = name === key ? [] : [key];
    return { name, aliases: [...own, ...aliases], options: {} };
  });
}

export function loraList({ loras }: Capabilities) {
  return loras.map(({ name, detail, hash }) => ({
    ...{ name, alias: name, path: name },
    metadata: { ...(detail !== "" && { detail }), ...(hash !== null && { sshs_model_hash: hash }) },
  }));
}

export function embeddingList({ embeddings }: Capabilities) {
  const described = { step: null, sd_checkpoint: null, sd_checkpoint_name: null };
  // Shape and count of vectors are known once a prompt names it.
  const loaded = embeddings.map(({ name }) => [name, { ...described, shape: 2048, vectors: 1 }]);
  return { loaded: Object.fromEntries(loaded), skipped: {} };
}

/** What resizes an image without a model. */
export const filters = ["None", "Lanczos", "Nearest"] as const;

/** The filters, then the models. */
export function upscalerList({ upscalers }: Pick<Capabilities, "upscalers">) {
  const listed = (name: string, model: string | null, scale: number) => {
    return { name, model_name: model, model_path: model, model_url: null, scale };
  };
  return [
    ...filters.map((name) => listed(name, null, 4)),
    ...upscalers.map(({ name, scale }) => listed(name, name, scale)),
  ];
}

export function memoryReport() {
  return { ram: memoryOfMachine(), cuda: { error: "unavailable" } };
}

/** The flags of A1111's command that clients ask for. */
export const commandFlags = {
  ...{ api: true, nowebui: false, listen: false, share: false, port: null, api_auth: null },
  ...{ xformers: false, medvram: false, lowvram: false, no_half: false, skip_install: true },
};
