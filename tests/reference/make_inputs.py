"""Records images that start from another by diffusers' pipelines, for tests/native/inputs.test.ts.

Run from the repository root: python tests/reference/make_inputs.py [OUT]
Writes tests/fixtures/inputs.*: latents of img2img and of inpainting, with the golden UNet and with
one of nine input channels, made as make_model_shapes.py makes it. With OUT every sampler goes to
OUT.* instead, whole. Image and mask follow from their places alone.

Three samplers differ where diffusers reads the levels of another step: lms and pndm from a later
step on, whose coefficients are those of a run from the first, and dpm2 with a mask, whose second
evaluation has the noise of the next level.
"""

import sys

import diffusers
import numpy
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline
from diffusers import UNet2DConditionModel
from harness import load_pipeline, save
from make_samplers import SAMPLERS
from PIL import Image

SIDE = 64  # pixels
SEED = 3
RUNS = [
    ("euler", "EulerDiscreteScheduler", 0.6),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", 0.6),
    ("euler_a", "EulerAncestralDiscreteScheduler", 1.0),
]
OWN = {
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
}


def picture():
    y, x, c = numpy.mgrid[0:SIDE, 0:SIDE, 0:3]
    return ((5 * x + 3 * y + 70 * c + x * y // 8) % 256).astype(numpy.uint8)


def mask():
    values = numpy.zeros((SIDE, SIDE), numpy.uint8)
    values[10:40, 20:60] = 255
    return values


def nine_channels(unet):
    state = unet.state_dict()
    weight = state["conv_in.weight"]
    state["conv_in.weight"] = torch.cat([weight, weight.flip(1) / 2, weight[:, :1] / 2], dim=1)
    wide = UNet2DConditionModel.from_config({**unet.config, "in_channels": 9}).eval()
    wide.load_state_dict(state)
    return wide


def pipelines():
    own = load_pipeline("tests/fixtures/golden/model")
    parts = ["vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"]
    shared = {name: getattr(own, name) for name in parts}
    shared["scheduler"] = own.scheduler
    shared["force_zeros_for_empty_prompt"] = own.config.force_zeros_for_empty_prompt
    shared["add_watermarker"] = False
    nine = nine_channels(own.unet)
    made = {
        "image": StableDiffusionXLImg2ImgPipeline(unet=own.unet, **shared),
        "mask": StableDiffusionXLInpaintPipeline(unet=own.unet, **shared),
        "nine": StableDiffusionXLInpaintPipeline(unet=nine, **shared),
    }
    for pipeline in made.values():
        pipeline.set_progress_bar_config(disable=True)
    return made, own.scheduler.config


def runs(everything):
    if not everything:
        for name, kind, strength in RUNS:
            yield name, kind, {}, strength, 6
        return
    rows = {name: row[:2] for name, row in SAMPLERS.items()} | OWN
    for name, (kind, config) in rows.items():
        for strength, steps in [(0.6, 12), (1.0, 5)]:
            yield name, kind, config, strength, steps


def main():
    everything = len(sys.argv) > 1
    torch.set_num_threads(1)
    made, own = pipelines()
    tensors, notes = {}, []
    for name, kind, config, strength, steps in runs(everything):
        for what, pipeline in made.items():
            pipeline.scheduler = getattr(diffusers, kind).from_config(own, **config)
            masked = {"mask_image": Image.fromarray(mask()), "width": SIDE, "height": SIDE}
            latents = pipeline(
                "a red circle",
                negative_prompt="blurry",
                image=Image.fromarray(picture()),
                strength=strength,
                num_inference_steps=steps,
                guidance_scale=5.0,
                eta=0.3 if name == "tcd" else 0.0,
                generator=torch.Generator("cpu").manual_seed(SEED),
                output_type="latent",
                **({} if what == "image" else masked),
            ).images
            run = f"{what}_{name}_{strength}_{steps}"
            tensors[run] = latents if everything else latents.flatten()[::8]
            notes.append({"name": run, "what": what, "scheduler": name, "strength": strength,
                          "steps": steps})
    path = sys.argv[1] if everything else "tests/fixtures/inputs"
    save(path, tensors, {"side": SIDE, "seed": SEED, "stride": 1 if everything else 8,
                         "runs": notes})


if __name__ == "__main__":
    main()
