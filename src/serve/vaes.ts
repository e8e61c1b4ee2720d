/**
 * The VAEs that jobs may name: those in the folders of models that fit a model of the list, and by
 * their ids those of the list's other models. A model with another VAE is loaded as another model
 * is.
 */
import { BasedXLError, escaped } from "../errors.ts";
import type { ListedModel } from "../library/list.ts";
import { openVae, withVae } from "../models/vae-choice.ts";
import { suggestion } from "../terminal/flags.ts";
import type { CatalogModel } from "./catalog-model.ts";

export class Vaes {
  /** By the model's id, then by the VAE's name in small letters. */
  private variants = new Map<string, Map<string, CatalogModel>>();
  private listed: readonly string[] = [];

  /** Looks again; what is no VAE for a model is left out. */
  async refresh(models: readonly CatalogModel[], found: readonly ListedModel[]): Promise<void> {
    const variants = new Map(models.map(({ id }) => [id, new Map<string, CatalogModel>()]));
    const add = async (name: string, path: string) => {
      for (const model of models.filter(({ id }) => id !== name)) {
        const own = variants.get(model.id)!;
        const key = name.toLowerCase();
        const variant = own.has(key) ? null : await variantOf(model, name, path);
        if (variant !== null) own.set(key, variant);
      }
    };
    for (const { name, path } of found) await add(name, path);
    const all = [...variants.values()].flatMap((each) => [...each.values()]);
    this.listed = [...new Set(all.map(({ vae }) => vae!))].sort();
    for (const { id, prepared } of models) await add(id, prepared.model.path);
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

async function variantOf(
  model: CatalogModel,
  vae: string,
  path: string,
): Promise<CatalogModel | null> {
  const { prepared } = model;
  try {
    const choice = await openVae(path, prepared.model.vae);
    const named = { ...prepared.named, vae };
    const own = { model: withVae(prepared.model, choice), vae: choice, named };
    return { ...model, vae, prepared: { ...prepared, ...own } };
  } catch (error) {
    if (error instanceof BasedXLError) return null;
    throw error;
  }
}
