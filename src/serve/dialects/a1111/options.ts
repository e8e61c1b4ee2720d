/**
 * A1111's options that mean something here, as /sdapi/v1/options has them and as a request's
 * `override_settings` replace them. They are shared by all clients and last as long as the process.
 * Source: A1111 and Forge, modules/shared_options.py.
 */
import { isObject, type JsonObject } from "../../../metadata/foreign-json.ts";
import type { Capabilities } from "../../capabilities.ts";
import { defaultModel, modelNamed } from "../listed-names.ts";
import { A1111Error } from "./errors.ts";
import { titleOf } from "./lists.ts";

const defaults = {
  sd_checkpoint_hash: "",
  sd_vae: "Automatic",
  samples_format: "png",
  jpeg_quality: 80,
  CLIP_stop_at_last_layers: 1,
  emphasis: "Original",
  randn_source: "GPU",
  eta_noise_seed_delta: 0,
  eta_ddim: 0,
  eta_ancestral: 1,
  sgm_noise_multiplier: false,
  sd_noise_schedule: "Default",
  sdxl_refiner_high_aesthetic_score: 6,
  sdxl_refiner_low_aesthetic_score: 2.5,
  live_previews_enable: true,
  show_progress_every_n_steps: 10,
  show_progress_type: "Approx NN",
  outdir_txt2img_samples: "outputs",
  outdir_img2img_samples: "outputs",
};

export type A1111Options = typeof defaults & { sd_model_checkpoint: string };

export class Options {
  private given: Partial<A1111Options> = {};

  /** All values, those of `overrides` first; unknown names are passed over, as in A1111. */
  current(lists: Capabilities, overrides: JsonObject = {}): A1111Options {
    const model = defaultModel(lists);
    const own = { sd_model_checkpoint: model === null ? "" : titleOf(model) };
    const values = { ...own, ...defaults, ...this.given, ...known(overrides) };
    const named = modelNamed(lists, values.sd_model_checkpoint);
    return { ...values, sd_checkpoint_hash: named?.sha256 ?? "" };
  }

  /** Throws `A1111Error` for a model that is not listed. */
  set(values: JsonObject, lists: Capabilities): void {
    const taken = known(values);
    const { sd_model_checkpoint: name } = taken;
    if (name !== undefined) {
      const model = modelNamed(lists, name);
      if (model === null) throw noModel(name);
      taken.sd_model_checkpoint = titleOf(model);
    }
    this.given = { ...this.given, ...taken };
  }
}

export function noModel(name: string): A1111Error {
  return new A1111Error(422, `model '${name.slice(0, 200)}' not found`);
}

// --- internal ---

/** Values whose types are those of the defaults; others are errors. */
function known(values: unknown): Partial<A1111Options> {
  const sent = isObject(values) ? values : {};
  const all = { sd_model_checkpoint: "", ...defaults };
  const taken = Object.entries(all).flatMap(([name, otherwise]) => {
    const value = Object.hasOwn(sent, name) ? sent[name] : undefined;
    if (value === undefined || value === null) return [];
    if (typeof value === typeof otherwise) return [[name, value]];
    throw new A1111Error(422, `The option ${name} must be a ${typeof otherwise}.`);
  });
  return Object.fromEntries(taken);
}
