/**
 * Checkpoints in one file, by names and shapes of their tensors.
 */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeSparseFile } from "../../../src/bench/support/single-file.ts";
import { classifyHeader } from "../../../src/models/single-file/classify.ts";
import { networksOf } from "../../../src/models/single-file/networks.ts";
import { detectPrediction } from "../../../src/models/single-file/prediction.ts";
import { unknownKeys } from "../../../src/models/single-file/weight-names.ts";
import { openSingleFile } from "../../../src/models/single-file.ts";
import { headerOf } from "../../support/adapter-headers.ts";
import { checkpointTensors } from "../../support/original-headers.ts";
import { mutateShapes } from "../shapes.ts";
import { target } from "../target.ts";

const path = join(mkdtempSync(join(tmpdir(), "basedxl-fuzz-")), "single.safetensors");
/** The networks of a checkpoint, each by itself: they are told apart by their keys alone. */
const checkpoint = checkpointTensors("base");
const whole = Object.fromEntries(checkpoint.map(([name, shape]) => [name, shape]));
const networks = ["conditioner.embedders.0.", "conditioner.embedders.1.", "first_stage_model."];
const parts = networks.map((prefix) =>
  Object.fromEntries(
    checkpoint
      .filter(([name]) => name.startsWith(prefix))
      // Two layers tell as much as 32.
      .filter(([name]) => !/\.(layers|resblocks)\.([2-9]|\d\d)\./.test(name))
      .map(([name, shape]) => [name, shape]),
  ),
);
const marks = [
  ...["v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "model_ema.x", "betas"],
  ...["conditioner.embedders.0.model.token_embedding.weight", "vae.decoder.conv_in.weight"],
  ...["conditioner.embedders.1.model.text_projection.weight", "x.scale_weight", "input_blocks.99"],
];
const predictions = ["v", "v_prediction", "epsilon", "eps", "", "__proto__"];

export const singleFileTarget = target(
  "single-files",
  (random) => {
    const isWhole = random.once(5000);
    const part = random.pick(random.once(10) ? parts : parts.slice(0, 2));
    const shapes = mutateShapes(random, isWhole ? whole : part, { names: marks });
    return { isWhole, shapes, prediction: random.pick(predictions) };
  },
  async ({ isWhole, shapes, prediction }) => {
    const header = headerOf(shapes, { "modelspec.prediction_type": prediction });
    classifyHeader(header);
    detectPrediction(header);
    const found = networksOf(header, null);
    unknownKeys(
      header,
      Object.values(found).flatMap((network) => network?.names ?? []),
    );
    if (!isWhole) return;
    writeSparseFile(path, new Map(Object.entries(shapes)));
    await openSingleFile(path);
  },
);
