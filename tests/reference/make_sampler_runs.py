"""Records runs of the golden model by every sampler, for tests/native/samplers.test.ts.

Run from the repository root: python tests/reference/make_sampler_runs.py [OUT]
Writes tests/fixtures/sampler-runs.*: a run of each sampler, over its spacings of sigmas, step
counts and prediction types in turn. With OUT every combination of these goes to OUT.* instead. Each
run is a batch of two images with a generator of its own each.
"""

import sys

import diffusers
import torch
from harness import load_pipeline, save
from make_samplers import PRK, SAMPLERS

SIDE = 64  # pixels
SEEDS = [3, 4]
STEPS = [12, 5]
PREDICTIONS = ["epsilon", "v_prediction"]


def combinations(everything):
    turn = 0
    for name, (kind, own, kinds) in SAMPLERS.items():
        every = [
            (sigmas, steps, prediction)
            for sigmas in kinds or ["normal"]
            for steps in STEPS
            for prediction in PREDICTIONS
        ]
        # 7 visits sigmas, steps and predictions evenly.
        chosen = every if everything else [every[7 * turn % len(every)]]
        turn += 1
        for sigmas, steps, prediction in chosen:
            settings = own | kinds.get(sigmas, {}) | {"prediction_type": prediction}
            yield name, kind, sigmas, steps, settings
    # The same sampler with other first steps.
    for steps, prediction in zip(STEPS, PREDICTIONS):
        settings = PRK | {"prediction_type": prediction}
        yield "pndm", SAMPLERS["pndm"][0], "prk", steps, settings


def main():
    everything = len(sys.argv) > 1
    torch.set_num_threads(1)  # so small a model is slower on two
    pipeline = load_pipeline("tests/fixtures/golden/model")
    own = pipeline.scheduler.config
    tensors, runs = {}, []
    for name, kind, sigmas, steps, config in combinations(everything):
        pipeline.scheduler = getattr(diffusers, kind).from_config(own, **config)
        # Of a pipeline, 0; of TCD's step, what its authors take.
        eta = 0.3 if name == "tcd" else 0.0
        latents = pipeline(
            "a red circle",
            negative_prompt="blurry",
            width=SIDE,
            height=SIDE,
            num_inference_steps=steps,
            num_images_per_prompt=len(SEEDS),
            guidance_scale=5.0,
            eta=eta,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
            output_type="latent",
        ).images
        run = f"{name}_{sigmas}_{steps}_{config['prediction_type']}"
        tensors[run] = latents if everything else latents.flatten()[::4]
        runs.append({"name": run, "scheduler": kind, "steps": steps, "config": config})
    path = sys.argv[1] if everything else "tests/fixtures/sampler-runs"
    stride = 1 if everything else 4
    save(path, tensors, {"side": SIDE, "seeds": SEEDS, "stride": stride, "runs": runs})


main()
