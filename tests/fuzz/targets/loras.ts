/**
 * LoRAs in every form, by names and shapes of their tensors and PEFT's notes in the header.
 */
import { matchAdapter } from "../../../src/adapters/file.ts";
import { goldenModel } from "../../../src/bench/support/golden-model.ts";
import { bundledEmbeddings } from "../../../src/embeddings/file.ts";
import { openModelFolder } from "../../../src/models/folder.ts";
import { factorsFor, golden, headerOf } from "../../support/adapter-headers.ts";
import { mutateJson } from "../mutate.ts";
import { mutateShapes, type Shapes } from "../shapes.ts";
import { target } from "../target.ts";

const model = await openModelFolder(goldenModel);
const attention = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q";
const dotted = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
const kohya = `lora_unet_${attention}`;
const loras: Shapes[] = [
  {
    ...factorsFor([64, 64], `${kohya}.lora_up.weight`, `${kohya}.lora_down.weight`),
    ...{ [`${kohya}.alpha`]: [], [`${kohya}.dora_scale`]: [64, 1] },
    ...factorsFor(
      [64, 64],
      "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight",
      "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
    ),
  },
  {
    ...factorsFor([64, 64], `unet.${dotted}.lora_B.weight`, `unet.${dotted}.lora_A.weight`),
    [`unet.${dotted}.lora_magnitude_vector`]: [64],
  },
  factorsFor(
    [64, 64],
    `base_model.model.${dotted}.lora_B.weight`,
    `base_model.model.${dotted}.lora_A.weight`,
  ),
  {
    ...factorsFor(
      [32, 4, 3, 3],
      "lora_unet_conv_in.lora_up.weight",
      "lora_unet_conv_in.lora_down.weight",
    ),
    "lora_unet_conv_in.lora_mid.weight": [2, 2, 3, 3],
  },
  {
    ...{ [`${kohya}.hada_w1_a`]: [64, 2], [`${kohya}.hada_w1_b`]: [2, 64] },
    ...{ [`${kohya}.hada_w2_a`]: [64, 2], [`${kohya}.hada_w2_b`]: [2, 64], [`${kohya}.alpha`]: [] },
  },
  { [`${kohya}.lokr_w1`]: [8, 8], [`${kohya}.lokr_w2_a`]: [8, 2], [`${kohya}.lokr_w2_b`]: [2, 8] },
  { [`${kohya}.diff`]: [64, 64], [`${kohya}.diff_b`]: [64], "bundle_emb.word.clip_l": [1, 64] },
];
const loraNames = [
  ...["t1", "t2", "lokr_w1_a", "w_norm", "b_norm", "set_weight", "lora_mid.weight", "on_input"],
  ...["lora.up.weight", "lora_A.default.weight", "oft_blocks", "hada_t1", "diff", "processor.x"],
].map((end) => `${kohya}.${end}`);
const peft = { "unet.lora_alpha": 4, "unet.alpha_pattern": { to_q: 2 }, "unet.use_rslora": true };

export const loraTarget = target(
  "loras",
  (random) => {
    const shapes = mutateShapes(random, random.pick(loras), { names: loraNames });
    const metadata = random.once(3)
      ? { lora_adapter_metadata: mutateJson(random, peft, ["unet.r", "alpha_pattern"]) }
      : undefined;
    return { shapes, metadata };
  },
  ({ shapes, metadata }) => {
    const header = headerOf(shapes, metadata);
    for (const embedding of bundledEmbeddings(header)) embedding.read(model);
    matchAdapter(header, golden);
  },
);
