"""Records the outputs of diffusers' samplers beside those of make_schedules.py, for
tests/control/samplers.test.ts.

Usage: python tests/reference/make_samplers.py [OUT]  (repository root; diffusers 0.40 dev)
Writes tests/fixtures/samplers.json, or with OUT every sampler with every spacing of sigmas, both
prediction types and more step counts: too much to be kept. Each case is a sampler, its settings
and a step count; it holds timesteps, sigmas and, for each prediction type, the latent of 4
elements after the last step. Model output, first latent and noise are those of make_schedules.py.
"""

import inspect
import json
import sys

import diffusers
import torch
from make_schedules import SDXL, noise, short

OUT = "tests/fixtures/samplers.json"
KINDS = {
    "normal": {},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
}
LU = {"lu": {"use_lu_lambdas": True}}
LATENT = {"clip_sample": False, "set_alpha_to_one": False}
SDE = {"algorithm_type": "sde-dpmsolver++"}
SAMPLERS = {
    "euler": ("EulerDiscreteScheduler", {}, KINDS),
    "heun": ("HeunDiscreteScheduler", {}, KINDS),
    "lms": ("LMSDiscreteScheduler", {}, KINDS),
    "dpm2": ("KDPM2DiscreteScheduler", {}, KINDS),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}, KINDS),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}, KINDS | LU),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", SDE, KINDS | LU),
    "dpmpp_3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}, KINDS | LU),
    "dpmpp_2s": ("DPMSolverSinglestepScheduler", {}, KINDS),
    "unipc": ("UniPCMultistepScheduler", {}, KINDS),
    "deis": ("DEISMultistepScheduler", {}, KINDS),
    "lcm": ("LCMScheduler", LATENT, {"normal": {}}),
    "tcd": ("TCDScheduler", LATENT, {"normal": {}}),
    "ddpm": ("DDPMScheduler", LATENT, {"normal": {}}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}, {"normal": {}}),
}
PRK = {"skip_prk_steps": False}
MIN = {"final_sigmas_type": "sigma_min"}
# Settings of single classes, each with the step counts at which it matters.
OPTIONS = [
    ("dpmpp_2m", {"solver_type": "heun"}, [5]),
    ("dpmpp_2m", {"solver_order": 1}, [5]),
    ("dpmpp_2m", {"euler_at_final": True} | MIN, [16]),
    ("dpmpp_2m", {"lower_order_final": False} | MIN, [5]),
    ("dpmpp_2m", {"algorithm_type": "dpmsolver"} | MIN, [5, 16]),
    ("dpmpp_2m", {"algorithm_type": "dpmsolver", "solver_type": "heun"} | MIN, [16]),
    ("dpmpp_2m", {"lambda_min_clipped": -1.5}, [5]),
    ("dpmpp_2m", {"lambda_min_clipped": -1.5, "timestep_spacing": "trailing"}, [5]),
    ("dpmpp_2m", {"lambda_min_clipped": -1.5, "timestep_spacing": "linspace"}, [5]),
    ("dpmpp_2m", {"beta_schedule": "squaredcos_cap_v2", "use_lu_lambdas": True}, [5]),
    ("dpmpp_2m", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}, [5]),
    ("dpmpp_2m", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, [5]),
    ("dpmpp_2m_sde", {"solver_type": "heun"}, [5]),
    ("dpmpp_2m_sde", {"algorithm_type": "sde-dpmsolver"} | MIN, [16]),
    ("dpmpp_2m_sde", {"algorithm_type": "sde-dpmsolver", "solver_type": "heun"} | MIN, [16]),
    ("dpmpp_3m", SDE, [16]),
    ("dpmpp_3m", {"algorithm_type": "dpmsolver"} | MIN, [16]),
    ("dpmpp_2s", {"solver_order": 3}, [5, 6, 7]),
    ("dpmpp_2s", {"solver_order": 3, "solver_type": "heun"}, [7]),
    ("dpmpp_2s", {"solver_order": 3, "solver_type": "heun"} | SDE, [7]),
    ("dpmpp_2s", {"solver_order": 3} | SDE | MIN, [6]),
    ("dpmpp_2s", {"solver_type": "heun"} | SDE, [5]),
    ("dpmpp_2s", {"lower_order_final": True} | MIN, [6]),
    ("dpmpp_2s", {"algorithm_type": "dpmsolver", "solver_order": 3} | MIN, [6, 7]),
    ("dpmpp_2s", {"solver_order": 1}, [5]),
    ("unipc", {"solver_order": 3}, [5, 16]),
    ("unipc", {"solver_order": 1}, [5]),
    ("unipc", {"solver_type": "bh1"} | MIN, [5]),
    ("unipc", {"solver_type": "bh1", "solver_order": 3} | MIN, [16]),
    ("unipc", {"predict_x0": False} | MIN, [5]),
    ("unipc", {"disable_corrector": [0, 2]}, [5]),
    ("unipc", {"lower_order_final": False} | MIN, [5]),
    ("unipc", {"use_karras_sigmas": True} | MIN, [5]),
    ("unipc", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, [5]),
    ("deis", {"solver_order": 3}, [5, 16]),
    ("deis", {"solver_order": 1}, [5]),
    ("deis", {"lower_order_final": False}, [5]),
    ("lms", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}, [5]),
    ("heun", {"use_exponential_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}, [5]),
    ("lcm", {"original_inference_steps": 100, "timestep_scaling": 1.0}, [8]),
    ("lcm", {"rescale_betas_zero_snr": True}, [4]),
    ("tcd", {"original_inference_steps": 100}, [8]),
    ("ddpm", {"variance_type": "fixed_large"}, [5]),
    ("ddpm", {"variance_type": "fixed_small_log"}, [5]),
    ("ddpm", {"steps_offset": 0}, [5]),
    ("pndm", {"set_alpha_to_one": True}, [6]),
    ("pndm", PRK, [4, 7]),
    ("pndm", PRK | {"timestep_spacing": "linspace", "set_alpha_to_one": True}, [7]),
    ("pndm", PRK | {"timestep_spacing": "trailing", "steps_offset": 0}, [7]),
]
ETAS = [("tcd", 0.0), ("tcd", 1.0), ("ddim", 0.5), ("ddim", 1.0)]
# Arguments of set_timesteps in place of a number of steps.
LISTS = [
    ("euler", {"timesteps": [999, 749, 499, 249]}),
    ("euler", {"sigmas": [14.5, 7.0, 3.0, 0.75, 0.0]}),
    ("euler", {"sigmas": [14.5, 3.0, 0.75]}),
    ("heun", {"timesteps": [999, 749, 499, 249]}),
    ("dpmpp_2m", {"timesteps": [999, 749, 499, 249]}),
    ("dpmpp_2m_sde", {"timesteps": [999, 749, 499, 249]}),
    ("dpmpp_2s", {"timesteps": [999, 749, 499, 249, 99]}),
    ("lcm", {"timesteps": [999, 749, 499, 249]}),
    ("tcd", {"timesteps": [799]}),
]
SAMPLERS["ddim"] = ("DDIMScheduler", LATENT, {})


def run(name, settings, count, prediction, eta, lists):
    """The scheduler after a run, and the last latent."""
    kind, own, _ = SAMPLERS[name]
    made = getattr(diffusers, kind)
    known = inspect.signature(made.__init__).parameters
    settings = SDXL | own | settings | prediction
    scheduler = made(**{key: value for key, value in settings.items() if key in known})
    # Read from the config, although the classes do not take them.
    scheduler.register_to_config(**{k: v for k, v in settings.items() if k.startswith("sigma_m")})
    scheduler.set_timesteps(**(lists or {"num_inference_steps": count}))
    module = sys.modules[type(scheduler).__module__]
    more = {} if eta is None else {"eta": eta}
    latent = noise(-1) * scheduler.init_noise_sigma
    for index, timestep in enumerate(scheduler.timesteps):
        if hasattr(module, "randn_tensor"):
            module.randn_tensor = lambda *_, index=index, **__: noise(index)
        output = torch.sin(scheduler.scale_model_input(latent, timestep) + timestep / 1000)
        latent = scheduler.step(output.float(), timestep, latent, **more).prev_sample.float()
    return scheduler, latent


def number(value):
    """The shortest decimal number that is this f32."""
    return int(value) if value == int(value) else short(value)


def case(name, settings, count, eta=None, predictions=("epsilon", "v_prediction"), lists=None):
    entry = {"name": name, "count": count}
    if lists:
        entry["lists"] = lists
    if name == "dpmpp_2s":
        # Always "linspace".
        settings = {key: value for key, value in settings.items() if key != "timestep_spacing"}
    entry["settings"] = {"_class_name": SAMPLERS[name][0]} | SAMPLERS[name][1] | settings
    if eta is not None:
        entry["eta"] = eta
    entry["latents"] = {}
    for prediction in predictions:
        try:
            scheduler, latent = run(name, settings, count, {"prediction_type": prediction}, eta, lists)
        except (AssertionError, IndexError):  # a first timestep that occurs twice is taken for the second one
            continue
        if torch.isfinite(latent).all():
            entry["latents"][prediction] = [float(f"{value:.6g}") for value in latent.flatten()]
    if not entry["latents"]:
        return None
    entry["timesteps"] = [number(value) for value in scheduler.timesteps]
    if hasattr(scheduler, "sigmas"):
        entry["sigmas"] = [number(value) for value in scheduler.sigmas]
    return entry


def cases(counts, spacings):
    for name, (_, _, kinds) in SAMPLERS.items():
        for kind, settings in kinds.items():
            for spacing in spacings:
                for count in counts:
                    yield case(name, settings | spacing, count)
        for spacing in ("trailing", "linspace") if name not in ("lcm", "tcd", "ddim") else ():
            yield case(name, {"timestep_spacing": spacing}, 5)
    for name, settings, own_counts in OPTIONS:
        for count in own_counts:
            yield case(name, settings, count, predictions=["epsilon"])
    yield case("pndm", PRK, 5, predictions=["v_prediction"])
    for name, eta in ETAS:
        yield case(name, {}, 5, eta)
    for name, lists in LISTS:
        count = len(lists.get("timesteps") or lists["sigmas"][1:])
        yield case(name, {}, count, predictions=["epsilon"], lists=lists)


def main():
    torch.set_num_threads(1)
    everything = len(sys.argv) > 1
    counts = [1, 2, 3, 5, 12, 25, 50] if everything else [5]
    others = [{"timestep_spacing": name} for name in ("trailing", "linspace")]
    spacings = [{}, *others] if everything else [{}]
    with open(sys.argv[1] if everything else OUT, "w") as file:
        lines = (json.dumps(entry, separators=(",", ":")) for entry in cases(counts, spacings) if entry)
        file.write("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
