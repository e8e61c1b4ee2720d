/**
 * What a single-file checkpoint predicts, by the marks that training tools and ComfyUI leave: empty
 * tensors with certain names, else the header's metadata.
 */
import { BasedXLError } from "../../errors.ts";
import type { PredictionType } from "../config.ts";
import type { SafetensorsHeader } from "../safetensors-header.ts";

interface Prediction {
  predictionType: PredictionType;
  /** Null where the file does not say: the header's metadata has no word for it. */
  rescaleBetasZeroSnr: boolean | null;
}

/**
 * The prediction that the file's marks name; null where it has none, which means epsilon. Throws
 * "bad-model" for models of another parametrisation.
 */
export function detectPrediction(
  header: Pick<SafetensorsHeader, "path" | "tensors" | "metadata">,
): Prediction | null {
  const has = (name: string) => prefixes.some((prefix) => header.tensors.has(prefix + name));
  if (has("edm_mean") && has("edm_std")) refuse(header.path, "Playground 2.5 (EDM)");
  if (has("edm_vpred.sigma_max")) refuse(header.path, "CosXL (EDM with v-prediction)");
  if (has("v_pred")) {
    return { predictionType: "v_prediction", rescaleBetasZeroSnr: has("ztsnr") };
  }
  const word = header.metadata.get("modelspec.prediction_type")?.toLowerCase() ?? "";
  if (/^v([_-]pred(iction)?)?$/.test(word)) {
    return { predictionType: "v_prediction", rescaleBetasZeroSnr: null };
  }
  const isEpsilon = /^eps(ilon)?$/.test(word);
  return isEpsilon ? { predictionType: "epsilon", rescaleBetasZeroSnr: null } : null;
}

// --- internal ---

/** The marks stand alone, or beside the UNet's tensors. */
const prefixes = ["", "model.diffusion_model.", "diffusion_model."];

function refuse(path: string, model: string): never {
  throw new BasedXLError(
    "bad-model",
    `${path} has the parametrisation of ${model}, which is not supported; models that predict ` +
      "epsilon or v over SDXL's noise levels are.",
  );
}
