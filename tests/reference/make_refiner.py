"""Records runs from latents and by a refiner as diffusers makes them, for
tests/native/refiner.test.ts.

Run from the repository root: python tests/reference/make_refiner.py [OUT]
Writes tests/fixtures/refiner.*: latents of img2img from latents that follow from their places, of
a base model up to a noise level and a refiner from there on (denoising_end, denoising_start), and of
a refiner that makes the last steps anew (strength 0.3). The refiner is the golden model without its
first text encoder and with five time ids: of the weights that read more, the columns are cut off.
With OUT every sampler of one evaluation per step goes to OUT.* instead, whole.
"""

import sys

import diffusers
import numpy
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, UNet2DConditionModel
from harness import load_pipeline, save
from make_samplers import SAMPLERS

SIDE = 64  # pixels
SEED = 3
STEPS = 7
END = 0.6
RUNS = ["euler", "dpmpp_2m", "euler_a"]
OWN = {
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
}
# Two evaluations in a step, which diffusers cuts in the middle; a first step of two evaluations;
# coefficients of outputs that a run from a later step has not.
OTHERS = {"heun", "dpm2", "dpm2_a", "pndm", "lms"}


def given_latents():
    values = numpy.arange(4 * (SIDE // 8) ** 2) * 37 % 101 / 50 - 1
    return torch.from_numpy(values.astype(numpy.float32)).reshape(1, 4, SIDE // 8, SIDE // 8)


def refiner_unet(unet, hidden_size):
    """The UNet that reads the second encoder's states alone, and five time ids."""
    state = {
        name: weight[:, -hidden_size:] if ".attn2.to_k." in name or ".attn2.to_v." in name else weight
        for name, weight in unet.state_dict().items()
    }
    config = dict(unet.config)
    kept = config["projection_class_embeddings_input_dim"] - config["addition_time_embed_dim"]
    name = "add_embedding.linear_1.weight"
    state[name] = state[name][:, :kept]
    config["projection_class_embeddings_input_dim"] = kept
    config["cross_attention_dim"] = hidden_size
    refiner = UNet2DConditionModel.from_config(config).eval()
    refiner.load_state_dict(state)
    return refiner


def main():
    everything = len(sys.argv) > 1
    torch.set_num_threads(1)
    base = load_pipeline("tests/fixtures/golden/model")
    own = base.scheduler.config
    shared = {"vae": base.vae, "text_encoder_2": base.text_encoder_2, "tokenizer_2": base.tokenizer_2}
    image = StableDiffusionXLImg2ImgPipeline(
        **shared, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=base.unet,
        scheduler=base.scheduler, add_watermarker=False,
    )
    refiner = StableDiffusionXLImg2ImgPipeline(
        **shared, text_encoder=None, tokenizer=None, scheduler=base.scheduler,
        unet=refiner_unet(base.unet, base.text_encoder_2.config.hidden_size),
        requires_aesthetics_score=True, force_zeros_for_empty_prompt=False, add_watermarker=False,
    )
    rows = {name: row[:2] for name, row in SAMPLERS.items()} | OWN
    names = [name for name in rows if name not in OTHERS] if everything else RUNS
    tensors, notes = {}, []
    for name in names:
        kind, config = rows[name]

        def run(pipeline, generator, **more):
            pipeline.set_progress_bar_config(disable=True)
            pipeline.scheduler = getattr(diffusers, kind).from_config(own, **config)
            return pipeline(
                "a red circle",
                negative_prompt="blurry",
                num_inference_steps=STEPS,
                guidance_scale=5.0,
                eta=0.3 if name == "tcd" else 0.0,
                generator=generator,
                output_type="latent",
                **more,
            ).images

        def seeded():
            return torch.Generator("cpu").manual_seed(SEED)

        size = {"width": SIDE, "height": SIDE}
        generator = seeded()
        half = run(base, generator, denoising_end=END, **size)
        found = {
            "latents": run(image, seeded(), image=given_latents(), strength=0.6),
            "ensemble": run(refiner, generator, image=half, denoising_start=END),
        }
        generator = seeded()
        whole = run(base, generator, **size)
        found["again"] = run(refiner, generator, image=whole, strength=0.3)
        if name == RUNS[0]:
            scores = {"aesthetic_score": 9.0, "negative_aesthetic_score": 1.5}
            found["scores"] = run(refiner, seeded(), image=given_latents(), strength=0.6, **scores)
        for what, latents in found.items():
            tensors[f"{what}_{name}"] = latents if everything else latents.flatten()[::8]
            notes.append({"name": f"{what}_{name}", "what": what, "scheduler": name})
    path = sys.argv[1] if everything else "tests/fixtures/refiner"
    save(path, tensors, {"side": SIDE, "seed": SEED, "steps": STEPS, "denoisingEnd": END,
                         "stride": 1 if everything else 8, "runs": notes})


main()
