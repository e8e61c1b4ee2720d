"""Records ComfyUI's sigma schedules on SDXL's noise levels, for tests/control/sigmas.test.ts.

Usage: python tests/reference/make_sigmas.py COMFYUI   (a bare or plain repository; torch, scipy)
Writes tests/fixtures/sigmas.json: sigmas and timesteps by schedule and step count. The functions are those of the
repository's HEAD, taken out of their files: its packages are not imported.
"""

import ast
import json
import math
import subprocess
import sys
import types

import numpy
import scipy.stats
import torch

OUT = "tests/fixtures/sigmas.json"
COUNTS = [1, 2, 5, 12, 30]
SCHEDULES = {
    "sgm_uniform": lambda f, ms, n: f["normal_scheduler"](ms, n, sgm=True),
    "simple": lambda f, ms, n: f["simple_scheduler"](ms, n),
    "ddim_uniform": lambda f, ms, n: f["ddim_scheduler"](ms, n),
    "beta_timesteps": lambda f, ms, n: f["beta_scheduler"](ms, n),
    "linear_quadratic": lambda f, ms, n: f["linear_quadratic_schedule"](ms, n),
    "kl_optimal": lambda f, ms, n: f["kl_optimal_scheduler"](n, float(ms.sigma_min), float(ms.sigma_max)),
    "ays": lambda f, ms, n: aligned(f, n),
    "lcm": lambda f, ms, n: f["normal_scheduler"](ms, n, sgm=True),
}


def names_of(repository, path, wanted, **known):
    """Functions, classes and constants of a file, without running the rest of it."""
    shown = subprocess.run(["git", "-C", repository, "show", f"HEAD:{path}"], capture_output=True, check=True)
    tree = ast.parse(shown.stdout)
    tree.body = [
        node
        for node in tree.body
        if getattr(node, "name", None) in wanted
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in wanted)
    ]
    scope = {"torch": torch, "math": math, "numpy": numpy, "np": numpy, "scipy": scipy} | known
    exec(compile(tree, path, "exec"), scope)
    return scope


def aligned(functions, count):
    """What the node computes from its table."""
    levels = functions["NOISE_LEVELS"]["SDXL"][:]
    if count + 1 != len(levels):
        levels = functions["loglinear_interp"](levels, count + 1)
    levels[-1] = 0
    return torch.FloatTensor(levels)


def main():
    repository = sys.argv[1]
    functions = names_of(
        repository,
        "comfy/samplers.py",
        {"simple_scheduler", "ddim_scheduler", "normal_scheduler", "beta_scheduler"}
        | {"linear_quadratic_schedule", "kl_optimal_scheduler"},
    )
    functions |= names_of(
        repository, "comfy_extras/nodes_align_your_steps.py", {"loglinear_interp", "NOISE_LEVELS"}
    )
    util = names_of(repository, "comfy/ldm/modules/diffusionmodules/util.py", {"make_beta_schedule"})
    sampling = names_of(
        repository,
        "comfy/model_sampling.py",
        {"ModelSamplingDiscrete", "rescale_zero_terminal_snr_sigmas"},
    )
    sampling["make_beta_schedule"] = util["make_beta_schedule"]
    path = "comfy_extras/nodes_model_advanced.py"
    comfy = types.SimpleNamespace(model_sampling=types.SimpleNamespace(**sampling))
    distilled = names_of(repository, path, {"ModelSamplingDiscreteDistilled"}, comfy=comfy)
    models = {"": sampling["ModelSamplingDiscrete"](), " zero_snr": sampling["ModelSamplingDiscrete"](zsnr=True)}
    cases = {}
    for suffix, model in models.items():
        for name, make in SCHEDULES.items():
            if name == "lcm":
                model = distilled["ModelSamplingDiscreteDistilled"](zsnr=suffix != "")
            for count in COUNTS if suffix == "" else [5]:
                sigmas = make(functions, model, count)
                if torch.isfinite(sigmas).all():
                    cases[f"{name} {count}{suffix}"] = {
                        "sigmas": [float(f"{value:.8g}") for value in sigmas.tolist()],
                        "timesteps": model.timestep(sigmas[:-1]).tolist(),
                    }
    with open(OUT, "w") as file:
        lines = (f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in cases.items())
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
