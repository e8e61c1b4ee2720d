"""Records runs of the golden model by the samplers of ComfyUI and k-diffusion, for
tests/native/k-samplers.test.ts.

Usage (repository root): python tests/reference/make_k_samplers.py COMFYUI K_DIFFUSION [OUT]
COMFYUI and K_DIFFUSION are repositories, bare or plain, whose HEAD is run from a temporary folder;
what they import beyond torch and scipy is stubbed. Writes tests/fixtures/k-sampler-runs.*: a run of
each sampler, over schedules, step counts and prediction types in turn. With OUT every combination
of these goes to OUT.* instead. Each run is a batch of two images with a generator of its own each,
which the noise of steps goes on with; latents of the first are those of it alone. Of the samplers
with Brownian noise, the noise levels are recorded between which they ask for it. Of every
combination three are past 1e-4: lms with linear_quadratic in 5 steps (1.5e-4: its weights are up to
1000 times the step, which amplify the last bits of the network's outputs) and unipc and unipc_bh2
with linear_quadratic in 12 (1.2e-4, but 1.1e-6 where their solver runs in 64 bits). One middle
level of dpmpp_2s_a, a root of a difference, is 4.3e-6 away instead of 1e-6; its latents are 1e-6
away.
"""

import ast
import inspect
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from harness import embed, load_pipeline
from make_sigmas import names_of
from safetensors.torch import save_file

SIDE = 64  # pixels
SEEDS = [3, 4]
STEPS = [12, 5]
PREDICTIONS = ["epsilon", "v_prediction"]
GUIDANCE = 5.0
COMFY = {
    "euler": "euler",
    "euler_a": "euler_ancestral",
    "euler_cfg_pp": "euler_cfg_pp",
    "euler_a_cfg_pp": "euler_ancestral_cfg_pp",
    "heun": "heun",
    "heunpp2": "heunpp2",
    "dpm2": "dpm_2",
    "dpm2_a": "dpm_2_ancestral",
    "lms": "lms",
    "dpmpp_2s_a": "dpmpp_2s_ancestral",
    "dpmpp_sde": "dpmpp_sde",
    "dpmpp_2m": "dpmpp_2m",
    "dpmpp_2m_sde": "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun": "dpmpp_2m_sde_heun",
    "dpmpp_3m_sde": "dpmpp_3m_sde",
    "ddpm": "ddpm",
    "lcm": "lcm",
    "ipndm": "ipndm",
    "ipndm_v": "ipndm_v",
    "deis": "deis",
    "res_multistep": "res_multistep",
    "res_multistep_a": "res_multistep_ancestral",
    "gradient_estimation": "gradient_estimation",
    "er_sde": "er_sde",
    "seeds_2": "seeds_2",
    "ddim": "ddim",
    "unipc": "uni_pc",
    "unipc_bh2": "uni_pc_bh2",
}
COMFY_SCHEDULES = {
    "normal": "normal",
    "karras": "karras",
    "exponential": "exponential",
    "beta": "beta",
    "sgm_uniform": "sgm_uniform",
    "simple": "simple",
    "ddim_uniform": "ddim_uniform",
    "linear_quadratic": "linear_quadratic",
    "kl_optimal": "kl_optimal",
    "lcm": "sgm_uniform",
}
# Of A1111: the function of k-diffusion, and whether the last level above 0 is left out.
A1111 = {
    "euler": ("sample_euler", {}, False),
    "euler_a": ("sample_euler_ancestral", {}, False),
    "heun": ("sample_heun", {}, False),
    "lms": ("sample_lms", {}, False),
    "dpm2": ("sample_dpm_2", {}, True),
    "dpm2_a": ("sample_dpm_2_ancestral", {}, True),
    "dpmpp_2s_a": ("sample_dpmpp_2s_ancestral", {}, False),
    "dpmpp_2m": ("sample_dpmpp_2m", {}, False),
    "dpmpp_sde": ("sample_dpmpp_sde", {}, False),
    "dpmpp_2m_sde": ("sample_dpmpp_2m_sde", {}, False),
    "dpmpp_2m_sde_heun": ("sample_dpmpp_2m_sde", {"solver_type": "heun"}, False),
    "dpmpp_3m_sde": ("sample_dpmpp_3m_sde", {}, True),
}
A1111_SCHEDULES = ["normal", "karras", "exponential"]


def checked_out(repository, paths, folder):
    for path in paths:
        shown = subprocess.run(["git", "-C", repository, "show", f"HEAD:{path}"], capture_output=True, check=True)
        target = Path(folder, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(shown.stdout)


def stub(name, **values):
    module = types.ModuleType(name)
    module.__dict__.update(values)
    sys.modules[name] = module
    return module


def load_comfy(repository, folder):
    """The modules of ComfyUI that samplers need."""
    own = [f"comfy/k_diffusion/{name}.py" for name in ("sampling", "utils", "deis", "sa_solver")]
    checked_out(repository, [*own, "comfy/extra_samplers/uni_pc.py", "comfy/model_sampling.py"], folder)
    wanted = {"set_model_options_post_cfg_function"}
    stub("comfy.model_patcher", **names_of(repository, "comfy/model_patcher.py", wanted))
    path = "comfy/ldm/modules/diffusionmodules/util.py"
    stub("comfy.ldm.modules.diffusionmodules.util", **names_of(repository, path, {"make_beta_schedule"}))
    sys.path.insert(0, folder)
    import comfy
    from comfy import model_sampling
    from comfy.extra_samplers import uni_pc
    from comfy.k_diffusion import sampling

    comfy.model_patcher = sys.modules["comfy.model_patcher"]
    functions = {"simple_scheduler", "ddim_scheduler", "normal_scheduler", "beta_scheduler"}
    functions |= {"linear_quadratic_schedule", "kl_optimal_scheduler"}
    schedules = names_of(repository, "comfy/samplers.py", functions)
    discarding = names_of_class(repository, "comfy/samplers.py", "KSampler", "DISCARD_PENULTIMATE_SIGMA_SAMPLERS")
    path = "comfy_extras/nodes_model_advanced.py"
    distilled = names_of(repository, path, {"LCM", "ModelSamplingDiscreteDistilled"}, comfy=comfy)
    return types.SimpleNamespace(
        sampling=sampling,
        uni_pc=uni_pc,
        models=model_sampling,
        schedules=schedules,
        discarding=discarding,
        distilled=distilled,
    )


def names_of_class(repository, path, name, attribute):
    """The value of a class' attribute, without the rest of the class."""
    shown = subprocess.run(["git", "-C", repository, "show", f"HEAD:{path}"], capture_output=True, check=True)
    body = next(node for node in ast.parse(shown.stdout).body if getattr(node, "name", None) == name).body
    found = next(node for node in body if isinstance(node, ast.Assign) and node.targets[0].id == attribute)
    return eval(compile(ast.Expression(found.value), path, "eval"), {})


def load_k_diffusion(repository, folder):
    checked_out(repository, [f"k_diffusion/{name}.py" for name in ("sampling", "utils", "external")], folder)
    sys.path.insert(0, folder)
    from k_diffusion import external, sampling

    return types.SimpleNamespace(external=external, sampling=sampling)


class Unet:
    """Both branches of the golden model's UNet."""

    def __init__(self, pipeline):
        self.unet = pipeline.unet
        positive, negative, pooled, negative_pooled = embed(pipeline, "a red circle", "blurry")
        self.embeds = (negative, positive)
        self.pooled = (negative_pooled, pooled)

    def __call__(self, latent, timestep):
        count = latent.shape[0]
        ids = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * (2 * count), dtype=torch.float32)
        each = lambda pair: torch.cat([one.expand(count, *one.shape[1:]) for one in pair])
        return self.unet(
            torch.cat([latent, latent]),
            timestep,
            encoder_hidden_states=each(self.embeds),
            added_cond_kwargs={"text_embeds": each(self.pooled), "time_ids": ids},
        ).sample.chunk(2)


class Denoiser:
    """ComfyUI's denoiser of a model with guidance, whose evaluations are recorded."""

    def __init__(self, unet, model_sampling):
        self.unet, self.sampling = unet, model_sampling
        patcher = types.SimpleNamespace(get_model_object=lambda name: model_sampling)
        inner = types.SimpleNamespace(model_sampling=model_sampling)
        self.inner_model = types.SimpleNamespace(inner_model=inner, model_patcher=patcher)
        self.visited = []

    def __call__(self, x, sigma, model_options={}, seed=None):
        timestep = self.sampling.timestep(sigma).float()
        self.visited.append((float(timestep[0]), float(sigma[0])))
        outputs = self.unet(self.sampling.calculate_input(sigma, x), timestep[0])
        uncond, cond = (self.sampling.calculate_denoised(sigma, output, x) for output in outputs)
        denoised = uncond + (cond - uncond) * GUIDANCE
        for function in model_options.get("sampler_post_cfg_function", []):
            denoised = function({"denoised": denoised, "uncond_denoised": uncond})
        return denoised


class Noise:
    """The noise of images with a generator each, and between which levels it is asked for."""

    def __init__(self):
        self.intervals = []
        self.generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]

    def __call__(self, *interval):
        self.intervals.append([float(sigma) for sigma in interval])
        shape = (1, 4, SIDE // 8, SIDE // 8)
        return torch.cat([torch.randn(shape, generator=each) for each in self.generators])


def run_comfy(comfy, unet, name, schedule, steps, prediction):
    """What KSampler does with a sampler, a scheduler and an empty latent."""
    kind = comfy.models.V_PREDICTION if prediction == "v_prediction" else comfy.models.EPS
    base = comfy.models.ModelSamplingDiscrete
    if schedule == "lcm":
        base = comfy.distilled["ModelSamplingDiscreteDistilled"]
        # The node has one for epsilon alone, and its boundary matters to the LCM sampler.
        kind = comfy.distilled["LCM"] if name == "lcm" and prediction == "epsilon" else kind
    model = type("Model", (base, kind), {})()
    theirs = COMFY[name]
    count = steps + (theirs in comfy.discarding)
    own, functions = COMFY_SCHEDULES[schedule], comfy.schedules
    ranged = {"n": count, "sigma_min": float(model.sigma_min), "sigma_max": float(model.sigma_max)}
    sigmas = {
        "normal": lambda: functions["normal_scheduler"](model, count),
        "karras": lambda: comfy.sampling.get_sigmas_karras(**ranged),
        "exponential": lambda: comfy.sampling.get_sigmas_exponential(**ranged),
        "beta": lambda: functions["beta_scheduler"](model, count),
        "sgm_uniform": lambda: functions["normal_scheduler"](model, count, sgm=True),
        "simple": lambda: functions["simple_scheduler"](model, count),
        "ddim_uniform": lambda: functions["ddim_scheduler"](model, count),
        "linear_quadratic": lambda: functions["linear_quadratic_schedule"](model, count),
        "kl_optimal": lambda: functions["kl_optimal_scheduler"](**ranged),
    }[own]()
    if theirs in comfy.discarding:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    noise = Noise()
    first = noise()
    most = float(model.sigma_max)
    is_whole = bool(np.isclose(most, float(sigmas[0]), rtol=1e-5, atol=0)) or float(sigmas[0]) > most
    latent = model.noise_scaling(sigmas[0], first, torch.zeros_like(first), is_whole)
    function = {
        "ddim": comfy.sampling.sample_euler,
        "uni_pc": comfy.uni_pc.sample_unipc,
        "uni_pc_bh2": comfy.uni_pc.sample_unipc_bh2,
    }.get(theirs) or getattr(comfy.sampling, f"sample_{theirs}")
    more = {"noise_sampler": noise} if "noise_sampler" in inspect.signature(function).parameters else {}
    denoiser = Denoiser(unet, model)
    latent = function(denoiser, latent, sigmas, extra_args={}, disable=True, **more)
    return denoiser.visited, noise.intervals[1:], latent


def run_a1111(k, unet, alphas, name, schedule, steps, prediction):
    """What A1111's KDiffusionSampler does."""
    visited = []
    is_v = prediction == "v_prediction"

    class Model(k.external.DiscreteVDDPMDenoiser if is_v else k.external.DiscreteEpsDDPMDenoiser):
        def guided(self, latent, timestep, **_):
            visited.append(float(timestep[0]))
            uncond, cond = unet(latent, timestep[0])
            return uncond + (cond - uncond) * GUIDANCE

        get_eps = get_v = guided

    model = Model(None, alphas, quantize=False)
    function, options, discards = A1111[name]
    count = steps + discards
    ranged = {"n": count, "sigma_min": model.sigmas[0].item(), "sigma_max": model.sigmas[-1].item()}
    sigmas = {
        "normal": lambda: model.get_sigmas(count),
        "karras": lambda: k.sampling.get_sigmas_karras(**ranged),
        "exponential": lambda: k.sampling.get_sigmas_exponential(**ranged),
    }[schedule]()
    if discards:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    noise = Noise()
    latent = noise() * sigmas[0]
    levels = []

    def denoise(x, sigma, **more):
        levels.append(float(sigma[0]))
        return model(x, sigma, **more)

    function = getattr(k.sampling, function)
    if "noise_sampler" in inspect.signature(function).parameters:
        options = {"noise_sampler": noise} | options
    latent = function(denoise, latent, sigmas, disable=True, **options)
    return list(zip(visited, levels)), noise.intervals[1:], latent


def combinations(everything):
    turn = 0
    for tool, samplers, schedules in (
        ("comfyui", COMFY, list(COMFY_SCHEDULES)),
        ("a1111", A1111, A1111_SCHEDULES),
    ):
        for name in samplers:
            every = [
                (schedule, steps, prediction)
                for schedule in schedules
                for steps in STEPS
                for prediction in PREDICTIONS
            ]
            # 7 visits schedules, steps and predictions evenly.
            chosen = every if everything else [every[7 * turn % len(every)]]
            turn += 1
            for schedule, steps, prediction in chosen:
                yield tool, name, schedule, steps, prediction


def main():
    comfy_path, k_path, *out = sys.argv[1:]
    torch.set_num_threads(1)  # so small a model is slower on two
    stub("torchsde"), stub("torchdiffeq", odeint=None), stub("torchvision")
    stub("torchvision.transforms", functional=None), stub("accelerate")
    pipeline = load_pipeline("tests/fixtures/golden/model")
    unet = Unet(pipeline)
    stride = 1 if out else 8
    latents, timesteps, sigmas, intervals, runs = [], [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        comfy = load_comfy(comfy_path, f"{folder}/comfy")
        k = load_k_diffusion(k_path, f"{folder}/k")
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alphas = torch.cumprod(1 - betas, 0).float()
        for tool, name, schedule, steps, prediction in combinations(out):
            asked = (name, schedule, steps, prediction)
            if tool == "comfyui":
                visited, noises, latent = run_comfy(comfy, unet, *asked)
            else:
                visited, noises, latent = run_a1111(k, unet, alphas, *asked)
            if not bool(torch.isfinite(latent).all()):
                print("not finite:", tool, *asked)
                continue
            latents.append(latent.flatten()[::stride])
            timesteps += [timestep for timestep, _ in visited]
            sigmas += [sigma for _, sigma in visited]
            if "_sde" in name and name != "er_sde":
                intervals += noises
            runs.append([tool, *asked, len(visited)])
    path = out[0] if out else "tests/fixtures/k-sampler-runs"
    tensors = {
        "latents": torch.stack(latents),
        "timesteps": torch.tensor(timesteps),
        "sigmas": torch.tensor(sigmas),
        "intervals": torch.tensor(intervals),
    }
    save_file(tensors, f"{path}.safetensors")
    os.chmod(f"{path}.safetensors", 0o644)
    # A line for each run.
    rows = ",\n".join("  " + str(run).replace("'", '"') for run in runs)
    head = f'"side": {SIDE}, "seeds": {SEEDS}, "guidance": {GUIDANCE}, "stride": {stride}'
    Path(f"{path}.json").write_text(f'{{\n {head},\n "runs": [\n{rows}\n ]\n}}\n')


if __name__ == "__main__":
    main()
