/**
 * Agreement of the components of one model. Each can be right on its own and still belong to
 * another model: an error message here instead of a wrong image later.
 */
import { BasedXLError } from "../errors.ts";
import type { Tokenizer } from "../prompt/tokenizer.ts";
import type { ClipConfig, UnetConfig, VaeConfig } from "./config.ts";
import { show } from "./config-reader.ts";
import { timeIdCount } from "./kind.ts";

interface ModelComponents {
  /** Null, as its tokenizer, in a model with only the second encoder. */
  clip: ClipConfig | null;
  clip2: ClipConfig;
  unet: UnetConfig;
  vae: VaeConfig;
  tokenizer: Tokenizer | null;
  tokenizer2: Tokenizer;
}

/** Where the components are described, for messages. */
interface Places {
  unet: string;
  tokenizer: string;
  tokenizer2: string;
}

/** Throws "bad-model" when two components of a model do not fit each other. */
export function checkTogether(places: Places, components: ModelComponents): void {
  const { clip, clip2, unet, vae } = components;
  const unetPath = places.unet;
  const textWidth = (clip?.hiddenSize ?? 0) + clip2.hiddenSize;
  if (unet.crossAttentionDim !== textWidth) {
    const given = clip
      ? `the two text encoders give ${clip.hiddenSize} + ${clip2.hiddenSize} = ${textWidth}`
      : `the text encoder gives ${textWidth}`;
    fail(`${unetPath}: cross_attention_dim is ${unet.crossAttentionDim}, but ${given}`);
  }
  if (![5, 6].includes(timeIdCount({ unet, clip2 }))) {
    fail(
      `${unetPath}: projection_class_embeddings_input_dim is ${unet.additionInputDim}, but six ` +
        `sizes of ${unet.additionTimeEmbedDim} and a pooled text of ${clip2.projectionSize} ` +
        `make ${6 * unet.additionTimeEmbedDim + clip2.projectionSize} (five, in a refiner, ` +
        `${5 * unet.additionTimeEmbedDim + clip2.projectionSize})`,
    );
  }
  const { latentChannels } = vae;
  const masked = 2 * latentChannels + 1;
  for (const [key, channels, known] of [
    ["in_channels", unet.inChannels, [latentChannels, masked]],
    ["out_channels", unet.outChannels, [latentChannels]],
  ] as const) {
    if (known.some((count) => count === channels)) continue;
    const inpainting = key === "in_channels" ? ` (an inpainting model reads ${masked})` : "";
    fail(
      `${unetPath}: ${key} is ${channels}, but the VAE has ${latentChannels} latent channels` +
        inpainting,
    );
  }
  if (clip && components.tokenizer) {
    checkVocabulary(places.tokenizer, components.tokenizer, clip);
  }
  checkVocabulary(places.tokenizer2, components.tokenizer2, clip2);
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
