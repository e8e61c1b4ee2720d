"""Records the outputs of diffusers' schedulers, for tests/control/schedule.test.ts.

Usage: python tests/reference/make_schedules.py   (from the repository root; diffusers 0.40 dev)
Writes tests/fixtures/schedules.json. Each case is a sampler, its settings and a step count;
it holds timesteps and sigmas (every one up to 12 steps, about ten of a longer run) and, for each
prediction type, a latent of 4 elements after the first, the middle and the last step of a run.
The model's output is sin(its input + timestep / 1000); first latent and noise are formulas too, so
the test computes the same ones.
"""

import json
import math

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)
from diffusers.schedulers import scheduling_euler_ancestral_discrete as ancestral

OUT = "tests/fixtures/schedules.json"
COUNTS = [1, 2, 12, 25, 50, 999]
SIZE = 4
SDXL = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
DDIM = {"clip_sample": False, "set_alpha_to_one": False}
CLASSES = {
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
    "ddim": DDIMScheduler,
}


def noise(index):
    """Unit-variance stand-in for the noise of step `index`; -1 is the first latent."""
    values = [math.sqrt(2) * math.sin(1 + 7.3 * k + 3.1 * (index + 1)) for k in range(SIZE)]
    return torch.tensor(values, dtype=torch.float64).float().view(1, 1, 2, 2)


def short(value):
    """The shortest decimal number that is this f32."""
    return float(str(np.float32(value)))


def sampled(values):
    """All of a short list; of a longer one the two ends and every 7th or 66th: [index, value]."""
    numbers = [short(value) for value in values]
    last = len(numbers) - 1
    step = 1 if last <= 12 else 7 if last <= 50 else 66
    keep = sorted({*range(0, last, step), 1, last - 1, last} & {*range(last + 1)})
    return [[index, numbers[index]] for index in keep]


def make(name, settings, count):
    """The scheduler, ready for `count` steps. The ancestral class has no Karras sigmas itself."""
    settings = dict(settings)
    karras = settings.pop("use_karras_sigmas", False) if name == "euler_a" else False
    scheduler = CLASSES[name](**settings)
    scheduler.set_timesteps(count)
    if karras:
        euler = EulerDiscreteScheduler(**settings, use_karras_sigmas=True)
        euler.set_timesteps(count)
        scheduler.timesteps, scheduler.sigmas = euler.timesteps, euler.sigmas
    return scheduler


def trajectory(name, settings, count):
    """The latent after the first, the middle and the last step."""
    scheduler = make(name, settings, count)
    latent = noise(-1) * scheduler.init_noise_sigma
    kept = {}
    for index, timestep in enumerate(scheduler.timesteps):
        ancestral.randn_tensor = lambda *_, index=index, **__: noise(index)
        output = torch.sin(scheduler.scale_model_input(latent, timestep) + timestep / 1000)
        latent = scheduler.step(output, timestep, latent).prev_sample
        if index in (0, count // 2, count - 1):
            kept[index] = [short(value) for value in latent.flatten()]
    return kept


def case(name, count, predictions=("epsilon", "v_prediction", "sample"), **settings):
    changes = settings
    settings = {**SDXL, **(DDIM if name == "ddim" else {}), **changes}
    scheduler = make(name, settings, count)
    entry = {
        "name": name,
        "count": count,
        "settings": {key: value for key, value in settings.items() if key in changes},
        "timesteps": sampled(scheduler.timesteps),
        "init_noise_sigma": float(scheduler.init_noise_sigma),
        "latents": {
            prediction: trajectory(name, {**settings, "prediction_type": prediction}, count)
            for prediction in predictions
            if not (name == "euler_a" and prediction == "sample")  # that class refuses it
        },
    }
    if hasattr(scheduler, "sigmas"):
        entry["sigmas"] = sampled(scheduler.sigmas)
    return entry


def cases():
    for name in CLASSES:
        for spacing in ("leading", "trailing", "linspace"):
            for karras in (False,) if name == "ddim" else (False, True):
                settings = {"timestep_spacing": spacing}
                if karras:
                    settings["use_karras_sigmas"] = True
                for count in COUNTS:
                    yield case(name, count, **settings)
    betas = [0.0001 + 0.00002 * index for index in range(40)]
    v = ("v_prediction",)
    for name in CLASSES:
        yield case(name, 12, beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
        yield case(name, 12, beta_schedule="squaredcos_cap_v2")
        yield case(name, 5, trained_betas=betas, num_train_timesteps=40)
        yield case(name, 12, v, rescale_betas_zero_snr=True, timestep_spacing="trailing")
        yield case(name, 12, v, rescale_betas_zero_snr=True, steps_offset=0)
        if name != "ddim":
            zero = {"rescale_betas_zero_snr": True, "use_karras_sigmas": True}
            yield case(name, 12, v, **zero, timestep_spacing="trailing")
    yield case("euler", 12, final_sigmas_type="sigma_min")
    yield case("euler", 12, use_karras_sigmas=True, sigma_min=0.1, sigma_max=10.0)
    yield case("ddim", 12, set_alpha_to_one=True)
    yield case("ddim", 12, set_alpha_to_one=True, timestep_spacing="trailing")


def main():
    torch.set_num_threads(1)
    with open(OUT, "w") as file:
        file.write("[\n")
        file.write(",\n".join(json.dumps(entry, separators=(",", ":")) for entry in cases()))
        file.write("\n]\n")


if __name__ == "__main__":
    main()
