"""Records runs of the golden model as a v-prediction model, with and without zero terminal SNR:
v-prediction.* in tests/fixtures, for tests/native/v-prediction.test.ts.

Run from the repository root: python tests/reference/make_v_prediction.py
Each run is a batch of two images with a generator of its own each. Its random weights predict
nothing sensible, which is no matter here.
"""

import diffusers
import torch
from harness import load_pipeline, save

SIDE = 128  # pixels
SEEDS = [3, 4]
STEPS = 12
V = {"prediction_type": "v_prediction"}
ZERO = V | {"rescale_betas_zero_snr": True}
TRAILING = ZERO | {"timestep_spacing": "trailing"}
DDIM = {"clip_sample": False, "set_alpha_to_one": False}
RUNS = {
    "euler": ("EulerDiscreteScheduler", V),
    "euler_a": ("EulerAncestralDiscreteScheduler", V),
    "ddim": ("DDIMScheduler", V | DDIM),
    "euler_zero": ("EulerDiscreteScheduler", TRAILING),
    "euler_zero_leading": ("EulerDiscreteScheduler", ZERO),
    "euler_zero_karras": ("EulerDiscreteScheduler", TRAILING | {"use_karras_sigmas": True}),
    "euler_a_zero": ("EulerAncestralDiscreteScheduler", TRAILING),
    "ddim_zero": ("DDIMScheduler", TRAILING | DDIM),
}


def main():
    pipeline = load_pipeline("tests/fixtures/golden/model")
    own = pipeline.scheduler.config
    tensors, runs = {}, []
    for name, (kind, config) in RUNS.items():
        scheduler = getattr(diffusers, kind).from_config(own, **config)
        pipeline.scheduler = scheduler
        rescale = 0.7 if name == "euler_zero" else 0.0
        tensors[f"{name}.latents"] = pipeline(
            "a red circle",
            negative_prompt="blurry",
            width=SIDE,
            height=SIDE,
            num_inference_steps=STEPS,
            num_images_per_prompt=len(SEEDS),
            guidance_scale=5.0,
            guidance_rescale=rescale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
            output_type="latent",
        ).images
        tensors[f"{name}.timesteps"] = scheduler.timesteps.float()
        if hasattr(scheduler, "sigmas"):
            tensors[f"{name}.sigmas"] = scheduler.sigmas.float()
        runs.append({"name": name, "scheduler": kind, "config": config, "rescale": rescale})
    common = {"side": SIDE, "seeds": SEEDS, "steps": STEPS}
    save("tests/fixtures/v-prediction", tensors, common | {"runs": runs})


main()
