/**
 * Agreement of the components of one model. Each can be right on its own and still belong to
 * another model: an error message here instead of a wrong image later.
 */
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import type { Tokenizer } from "../prompt/tokenizer.ts";
import type { ClipConfig, UnetConfig, VaeConfig } from "./config.ts";
import { show } from "./config-reader.ts";

interface ModelComponents {
  clip: ClipConfig;
  clip2: ClipConfig;
  unet: UnetConfig;
  vae: VaeConfig;
  tokenizer: Tokenizer;
  tokenizer2: Tokenizer;
}

/** Throws "bad-model" when two components of the model in `root` do not fit each other. */
export function checkTogether(root: string, components: ModelComponents): void {
  const { clip, clip2, unet, vae } = components;
  const unetPath = join(root, "unet", "config.json");
  const textWidth = clip.hiddenSize + clip2.hiddenSize;
  if (unet.crossAttentionDim !== textWidth) {
    fail(
      `${unetPath}: cross_attention_dim is ${unet.crossAttentionDim}, but the two text encoders ` +
        `give ${clip.hiddenSize} + ${clip2.hiddenSize} = ${textWidth}`,
    );
  }
  const additionWidth = 6 * unet.additionTimeEmbedDim + clip2.projectionSize;
  if (unet.additionInputDim !== additionWidth) {
    fail(
      `${unetPath}: projection_class_embeddings_input_dim is ${unet.additionInputDim}, but six ` +
        `sizes of ${unet.additionTimeEmbedDim} and a pooled text of ${clip2.projectionSize} ` +
        `make ${additionWidth}`,
    );
  }
  for (const [key, channels] of Object.entries({
    in_channels: unet.inChannels,
    out_channels: unet.outChannels,
  })) {
    if (channels === vae.latentChannels) continue;
    const hint = key === "in_channels" && channels === 2 * vae.latentChannels + 1;
    fail(
      `${unetPath}: ${key} is ${channels}, but the VAE has ${vae.latentChannels} latent channels` +
        (hint ? " (an inpainting model, which is not supported yet)" : ""),
    );
  }
  checkVocabulary(join(root, "tokenizer"), components.tokenizer, clip);
  checkVocabulary(join(root, "tokenizer_2"), components.tokenizer2, clip2);
}

// --- internal ---

function checkVocabulary(folder: string, tokenizer: Tokenizer, clip: ClipConfig): void {
  const { idLimit, lastToken } = tokenizer;
  if (idLimit <= clip.vocabSize) return;
  fail(
    `${folder} has token ids up to ${idLimit - 1}, that of ${show(lastToken)}, ` +
      `but its text encoder knows only ${clip.vocabSize} tokens (vocab_size)`,
  );
}

function fail(problem: string): never {
  throw new BasedXLError("bad-model", `${problem}.`);
}
