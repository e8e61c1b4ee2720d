/**
 * The VAEs that jobs may name: those in the folders of models that fit a model of the list, and by
 * their ids those of the list's other models. A model with another VAE is loaded as another model
 * is.
 */
import { BasedXLError, escaped } from "../errors.ts";
import type { ListedModel } from "../library/list.ts";
import { openVae, type VaeChoice, vaeOfModel, withVae } from "../models/vae-choice.ts";
import { suggestion } from "../terminal/flags.ts";
import type { CatalogModel } from "./catalog-model.ts";

export class Vaes {
  /** By the model's id, then by the VAE's name in small letters. */
  private variants = new Map<string, Map<string, CatalogModel>>();
  private listed: readonly string[] = [];

  /** Looks again; what is no VAE for a model is left out. */
  async refresh(models: readonly CatalogModel[], found: readonly ListedModel[]): Promise<void> {
    const variants = new Map(models.map(({ id }) => [id, new Map<string, CatalogModel>()]));
    const add = (model: CatalogModel, vae: string, choice: VaeChoice | null) => {
      const own = variants.get(model.id)!;
      const key = vae.toLowerCase();
      if (choice !== null && !own.has(key)) own.set(key, withChoice(model, vae, choice));
    };
    for (const { name, path } of found) {
      for (const model of models) {
        add(model, name, await fitting(() => openVae(path, model.prepared.model.vae)));
      }
    }
    const all = [...variants.values()].flatMap((each) => [...each.values()]);
    this.listed = [...new Set(all.map(({ vae }) => vae!))].sort();
    for (const { id, prepared } of models) {
      for (const model of models.filter((each) => each.id !== id)) {
        const own = model.prepared.model.vae;
        add(model, id, await fitting(async () => vaeOfModel(prepared.model, own)));
      }
    }
    this.variants = variants;
  }

  /** As requests name them. */
  names(): readonly string[] {
    return this.listed;
  }

  /** The model with this VAE. Throws "bad-model". */
  model({ id }: CatalogModel, name: string): CatalogModel {
    const variants = this.variants.get(id);
    const variant = variants?.get(name.toLowerCase());
    if (variant !== undefined) return variant;
    const names = [...(variants?.values() ?? [])].map(({ vae }) => vae!);
    throw new BasedXLError(
      "bad-model",
      `The server has no VAE ${JSON.stringify(escaped(name, 100))} for the model ${id}.` +
        suggestion(name, names),
    );
  }
}

// --- internal ---

/** null for what is no VAE of a model. */
async function fitting(open: () => Promise<VaeChoice>): Promise<VaeChoice | null> {
  try {
    return await open();
  } catch (error) {
    if (error instanceof BasedXLError) return null;
    throw error;
  }
}

function withChoice(model: CatalogModel, vae: string, choice: VaeChoice): CatalogModel {
  const { prepared } = model;
  const named = { ...prepared.named, vae };
  const own = { model: withVae(prepared.model, choice), vae: choice, named };
  return { ...model, vae, prepared: { ...prepared, ...own } };
}
