"""Records images of ComfyUI and A1111, from prompt to latents, for tests/native/compat.test.ts.

Their own code runs on the golden model in f32 on the CPU: parsers, chunks, weights, noise, noise levels, guidance and
samplers. Only the networks are those of diffusers and transformers. Of A1111 it is Forge's copy, with A1111's defaults where
Forge has others: timesteps that are not rounded, and "Automatic" schedules by sampler.
Clones of all (bare ones will do), and lark, scipy:
python tests/reference/make_compat.py sd-webui-forge-classic ComfyUI k-diffusion torchsde [OUT]
With OUT every sampler goes to OUT.*, with two schedules of ComfyUI's each and all of Forge's.
"""

import ast
import math
import subprocess
import sys
import tempfile
import types

import numpy
import scipy.stats
import torch
from harness import load_pipeline, save
from make_prompts import A1111, GOLDEN, ComfyUI, stub

SIDE = 64
STRIDE = 4
WEIGHTED = "a (red:1.4) circle above a ((blue)) square"
LONG = "a (red:0.7) circle, " * 20 + "a green light"
TURNS = "a [(red:1.5):[blue]:0.4] circle"
USUAL = {"prompt": "a red circle", "negative": "", "steps": 6, "guidance": 5.0, "seed": 7, "images": 1, "width": SIDE}
RUNS = [
    {"name": "comfyui euler", "sampler": "euler", "schedule": "normal", "prompt": WEIGHTED},
    {"name": "comfyui euler_a", "sampler": "euler_ancestral", "schedule": "karras", "images": 2, "negative": "blurry"},
    {"name": "comfyui long", "sampler": "dpmpp_2m", "schedule": "karras", "images": 2, "prompt": LONG, "negative": "(dark:1.2)"},
    {"name": "comfyui sde", "sampler": "dpmpp_2m_sde", "schedule": "karras", "images": 2},
    {"name": "comfyui dpmpp_sde", "sampler": "dpmpp_sde", "schedule": "karras"},
    {"name": "comfyui res", "sampler": "res_multistep", "schedule": "simple"},
    {"name": "comfyui ddim", "sampler": "ddim", "schedule": "ddim_uniform", "steps": 5},
    {"name": "comfyui unipc", "sampler": "uni_pc", "schedule": "normal"},
    {"name": "a1111 euler_a", "sampler": "Euler a", "images": 2, "prompt": WEIGHTED},
    {"name": "a1111 long", "sampler": "DPM++ 2M", "schedule": "karras", "prompt": LONG, "negative": "[blurry]", "rng": "CPU"},
    {"name": "a1111 sde", "sampler": "DPM++ 2M SDE", "schedule": "exponential", "images": 2, "negative": "blurry"},
    {"name": "a1111 dpmpp_sde", "sampler": "DPM++ SDE", "schedule": "karras", "rng": "CPU", "prompt": TURNS},
    {"name": "a1111 turns", "sampler": "Euler", "prompt": TURNS, "negative": "[dark:blurry:3]", "steps": 8},
    {"name": "a1111 ddim", "sampler": "DDIM", "rng": "CPU"},
    {"name": "a1111 unipc", "sampler": "UniPC", "rng": "CPU", "steps": 8},
    {"name": "a1111 plms", "sampler": "PLMS", "rng": "CPU"},
    # The model as one that predicts v, of noise levels that end in pure noise; an image that is no square.
    {"name": "comfyui zero_snr", "sampler": "euler", "schedule": "sgm_uniform", "zero_snr": True, "width": 96},
    {"name": "a1111 zero_snr", "sampler": "Euler", "zero_snr": True, "width": 96},
]
COMFY_SAMPLERS = """euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 dpm_2 dpm_2_ancestral lms
dpmpp_2s_ancestral dpmpp_sde dpmpp_2m dpmpp_2m_sde dpmpp_2m_sde_heun dpmpp_3m_sde lcm ipndm ipndm_v deis res_multistep
res_multistep_ancestral gradient_estimation er_sde seeds_2 uni_pc uni_pc_bh2 ddim""".split()
COMFY_SCHEDULES = "normal karras exponential sgm_uniform simple ddim_uniform beta linear_quadratic kl_optimal".split()
A1111_SAMPLERS = ["Euler a", "Euler", "LMS", "Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE"]
A1111_SAMPLERS += ["DPM++ 2M SDE Heun", "DPM++ 3M SDE", "DDIM", "PLMS", "UniPC"]


def every_sampler():
    for at, sampler in enumerate(COMFY_SAMPLERS):
        for schedule in (COMFY_SCHEDULES[(at + step) % len(COMFY_SCHEDULES)] for step in (0, 4)):
            changes = {"sampler": sampler, "schedule": schedule, "images": 1 + at % 2}
            yield {"name": f"comfyui {sampler} {schedule}"} | changes
    for at, sampler in enumerate(A1111_SAMPLERS):
        has_schedules = sampler not in ("DDIM", "PLMS", "UniPC")
        for schedule in ["normal", "karras", "exponential"] if has_schedules else [None]:
            changes = {"schedule": schedule} if has_schedules else {}
            rng = {"rng": "CPU"} if at % 3 == 0 else {}
            yield {"name": f"a1111 {sampler} {schedule}", "sampler": sampler, "images": 1 + at % 2} | changes | rng


def source(repository, path):
    return subprocess.check_output(["git", "-C", repository, "show", f"HEAD:{path}"], text=True)


def module(repository, path, name, **values):
    """A file of a repository as a module, whatever it imports being there already."""
    made = stub(name, __package__=name.rpartition(".")[0], __file__=path, **values)
    exec(compile(source(repository, path), path, "exec"), made.__dict__)
    return made


def functions(repository, path, wanted):
    """Functions of a file, without running the rest of it."""
    tree = ast.parse(source(repository, path))
    tree.body = [node for node in tree.body if getattr(node, "name", None) in wanted]
    scope = {"torch": torch, "math": math, "np": numpy}
    exec(compile(tree, path, "exec"), scope)
    return scope


class TailCall(Exception):
    def __init__(self, call):
        super().__init__()
        self.call = call


def run_calls(call):
    """The package trampoline: runs generators that yield calls of generators."""
    stack, value = [call], None
    while stack:
        try:
            stack.append(stack[-1].send(value))
            value = None
        except StopIteration as stop:
            stack.pop()
            value = stop.value
        except TailCall as tail:
            stack[-1] = tail.call
            value = None
    return value


def load_torchsde(repository):
    folder = tempfile.mkdtemp()
    archive = subprocess.check_output(["git", "-C", repository, "archive", "HEAD", "torchsde"])
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    stub("trampoline", trampoline=run_calls, TailCall=TailCall)
    sys.path.insert(0, folder)
    import torchsde

    return torchsde


class Networks:
    def __init__(self, pipeline):
        self.unet = pipeline.unet
        # Channels that a model for inpainting reads beside the latent.
        self.conditions = None

    def noise(self, x, timestep, states, pooled):
        height, width = (8 * side for side in x.shape[2:])
        time_ids = torch.tensor([[height, width, 0, 0, height, width]] * len(x), dtype=torch.float32)
        added = {"text_embeds": pooled.expand(len(x), -1), "time_ids": time_ids}
        states = states.expand(len(x), -1, -1)
        if self.conditions is not None:
            x = torch.cat([x, self.conditions.expand(len(x), -1, -1, -1)], dim=1)
        return self.unet(x, timestep, encoder_hidden_states=states, added_cond_kwargs=added).sample


def shape(run):
    return (4, SIDE // 8, run["width"] // 8)


class Comfy:
    """comfy/samplers.py whole; of the rest what it needs."""

    def __init__(self, repository, pipeline):
        self.text = ComfyUI(repository, pipeline)
        self.networks = Networks(pipeline)
        util = "comfy/ldm/modules/diffusionmodules/util.py"
        betas = functions(repository, util, {"make_beta_schedule"})["make_beta_schedule"]
        for name in ["ldm", "ldm.modules", "ldm.modules.diffusionmodules"]:
            stub(f"comfy.{name}")
        stub("comfy.ldm.modules.diffusionmodules.util", make_beta_schedule=betas)
        for name in ["sampler_helpers", "model_patcher", "patcher_extension", "hooks", "context_windows"]:
            stub(f"comfy.{name}")
        stub("comfy.utils")
        hook = "set_model_options_post_cfg_function"
        setattr(sys.modules["comfy.model_patcher"], hook, functions(repository, "comfy/model_patcher.py", {hook})[hook])
        sampling = module(repository, "comfy/model_sampling.py", "comfy.model_sampling")
        stub("comfy.k_diffusion", __path__=[])
        for name in ["deis", "sa_solver"]:
            module(repository, f"comfy/k_diffusion/{name}.py", f"comfy.k_diffusion.{name}")
        stub("comfy.k_diffusion.utils", append_dims=lambda x, count: x[(...,) + (None,) * (count - x.ndim)])
        steps = module(repository, "comfy/k_diffusion/sampling.py", "comfy.k_diffusion.sampling")
        # Later versions of the file do it themselves, where it does not: on a CPU the noise of steps would begin with
        # that of the first latent.
        if "seed += 1" not in source(repository, "comfy/k_diffusion/sampling.py"):
            sampler = steps.default_noise_sampler
            steps.default_noise_sampler = lambda x, seed=None: sampler(x, seed + 1)
        stub("comfy.extra_samplers", __path__=[])
        module(repository, "comfy/extra_samplers/uni_pc.py", "comfy.extra_samplers.uni_pc")
        self.samplers = module(repository, "comfy/samplers.py", "comfy.samplers", scipy=scipy)
        self.noise = functions(repository, "comfy/sample.py", {"prepare_noise"})["prepare_noise"]

        class OfNoise(sampling.ModelSamplingDiscrete, sampling.EPS):
            pass

        class OfVelocity(sampling.ModelSamplingDiscrete, sampling.V_PREDICTION):
            pass

        self.samplings = {False: OfNoise(), True: OfVelocity(zsnr=True)}

    def get_model_object(self, name):
        return getattr(self, name)

    @property
    def inner_model(self):
        return self

    @property
    def model_patcher(self):
        return self

    def latents(self, run):
        return self.sampled(run, torch.zeros(run["images"], *shape(run)))

    def sampled(self, run, start, denoise=None, mask=None):
        """KSampler from a latent, with the mask of it."""
        self.model_sampling = self.samplings[run.get("zero_snr", False)]
        positive, negative = self.text.states(run["prompt"]), self.text.states(run["negative"])

        def predict(args):
            return [None if cond is None else self.denoised(args["input"], args["sigma"], cond) for cond in args["conds"]]

        class Guider:
            inner_model = model_patcher = self

            def __call__(guider, x, sigma, model_options, seed):
                options = model_options | {"sampler_calc_cond_batch_function": predict}
                return self.samplers.sampling_function(self, x, sigma, negative, positive, run["guidance"], options, seed)

        sampler = self.samplers.KSampler(self, run["steps"], "cpu", run["sampler"], run["schedule"], denoise)
        noise = self.noise(start, run["seed"])
        extra = {"model_options": {}, "seed": run["seed"]}
        chosen = self.samplers.sampler_object(run["sampler"])
        # As CFGGuider.max_denoise asks it.
        return chosen.sample(Guider(), sampler.sigmas, extra, None, noise, start, mask, True)

    def scale_latent_inpaint(self, sigma, noise, latent_image, x):
        return self.model_sampling.noise_scaling(sigma.reshape(-1, 1, 1, 1), noise, latent_image)

    def denoised(self, x, sigma, cond):
        """BaseModel._apply_model."""
        scaled = self.model_sampling.calculate_input(sigma, x)
        timestep = self.model_sampling.timestep(sigma).float()
        output = self.networks.noise(scaled, timestep, *cond)
        return self.model_sampling.calculate_denoised(sigma, output, x)


class Forge:
    """A1111's samplers, denoiser and generators; what they ask of the rest of the program is made up."""

    def __init__(self, repository, k_diffusion, pipeline):
        self.text = A1111(repository, pipeline)
        self.networks = Networks(pipeline)
        self.opts = self.text.opts
        for name, value in {
            **{"randn_source": "NV", "eta_noise_seed_delta": 0, "always_discard_next_to_last_sigma": False},
            **{"k_sched_type": "Automatic", "use_old_karras_scheduler_sigmas": False, "sigma_min": 0, "sigma_max": 0},
            **{"rho": 0, "sgm_noise_multiplier": False, "eta_ancestral": 1.0, "eta_ddim": 0.0, "skip_early_cond": -1.0},
            **{"no_dpmpp_sde_batch_determinism": False, "live_previews_enable": False, "sd_vae_checkpoint_cache": 1},
            **{"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": 0.0, "s_noise": 1.0, "uni_pc_variant": "bh1"},
            **{"uni_pc_skip_type": "time_uniform", "uni_pc_order": 3, "uni_pc_lower_order_final": True},
        }.items():
            setattr(self.opts, name, value)
        stub("torchvision")
        stub("torchvision.transforms", functional=None)
        stub("torchdiffeq", odeint=None)
        sampling_package = stub("k_diffusion", __path__=[])
        for name in ["utils", "sampling", "external"]:
            module(k_diffusion, f"k_diffusion/{name}.py", f"k_diffusion.{name}")
        assert sampling_package.sampling
        self.model = self.stub_program(pipeline)
        files = ["rng_philox", "rng", "sd_samplers_common", "sd_samplers_cfg_denoiser", "sd_samplers_extra"]
        stub("modules.sd_samplers_extra", restart_sampler=nothing_at_all)
        for name in [each for each in files if each != "sd_samplers_extra"]:
            module(repository, f"modules/{name}.py", f"modules.{name}")
        stub("modules.uni_pc", __path__=[])
        module(repository, "modules/uni_pc/uni_pc.py", "modules.uni_pc.uni_pc")
        kdiffusion = module(repository, "modules/sd_samplers_kdiffusion.py", "modules.sd_samplers_kdiffusion")
        module(repository, "modules/sd_samplers_timesteps_impl.py", "modules.sd_samplers_timesteps_impl")
        timesteps = module(repository, "modules/sd_samplers_timesteps.py", "modules.sd_samplers_timesteps")
        self.rescaled = functions(repository, "modules_forge/forge_loader.py", {"rescale_zero_terminal_snr_abar"})
        self.samplers = {data.name: data for data in kdiffusion.samplers_data_k_diffusion + timesteps.samplers_data_timesteps}

    def stub_program(self, pipeline):
        cpu = torch.device("cpu")
        devices = sys.modules["modules.devices"]
        devices.device, devices.cpu = cpu, cpu
        alphas = alphas_cumprod(pipeline)
        model = types.SimpleNamespace(
            alphas_cumprod=alphas,
            parameterization="eps",
            apply_model=self.apply,
            model=types.SimpleNamespace(conditioning_key="crossattn"),
            forge_objects=types.SimpleNamespace(unet=None),
            sd_checkpoint_info=None,
        )
        state = types.SimpleNamespace(interrupted=False, skipped=False, sampling_step=0, sampling_steps=0, current_latent=None)
        bar = types.SimpleNamespace(update=lambda: None)
        shared = sys.modules["modules.shared"]
        shared.__dict__.update(state=state, device=cpu, sd_model=model, total_tqdm=bar, parallel_processing_allowed=True)
        nothing = {"cond": lambda *_: None}["cond"]
        names = {
            "images": {},
            "sd_vae_approx": {},
            "sd_samplers": {"find_sampler_config": lambda name: self.samplers[name]},
            "sd_vae_taesd": {},
            "sd_models": {},
            "extra_networks": {},
            "script_callbacks": {
                **{"CFGDenoiserParams": lambda x, image, sigma, *rest: types.SimpleNamespace(x=x, sigma=sigma, text_cond=rest[2], text_uncond=rest[3])},
                **{"cfg_denoiser_callback": nothing, "CFGDenoisedParams": None, "cfg_denoised_callback": nothing},
                **{"AfterCFGCallbackParams": lambda x, *_: types.SimpleNamespace(x=x), "cfg_after_cfg_callback": nothing},
                **{"ExtraNoiseParams": None, "extra_noise_callback": nothing},
            },
        }
        for name, values in names.items():
            stub(f"modules.{name}", **values)
        stub("modules_forge")
        # Of A1111's CFGDenoiser: the branches through the denoiser, then combine_denoised.
        stub(
            "modules_forge.forge_sampler",
            forge_sample=forge_sample,
            sampling_prepare=nothing_at_all,
            sampling_cleanup=nothing_at_all,
        )
        return model

    def apply(self, x, timestep, cond):
        return self.networks.noise(x, timestep.float(), cond["crossattn"], cond["vector"])

    def conditioning(self, text, is_negative, steps):
        """Prompts that take turns, each with its last step."""
        schedule = self.text.parser.get_learned_conditioning_prompt_schedules([text], steps)[0]
        texts = [each for _, each in schedule]
        (first, _), (second, pooled) = [encoder(texts) for encoder in self.text.encoders]
        states = torch.cat([first, second], -1)
        if is_negative and all(each == "" for each in texts):
            states, pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        parser = self.text.parser
        return [
            parser.ScheduledPromptConditioning(end, {"crossattn": states[i], "vector": pooled[i]})
            for i, (end, _) in enumerate(schedule)
        ]

    def latents(self, run):
        p, positive, negative = self.job(run)
        return p.sampler.sample(p, p.rng.next(), positive, negative)

    def job(self, run):
        """What processing.py hands to a sampler, and the prompts."""
        self.opts.randn_source = run.get("rng", "NV")
        schedule = run.get("schedule", "normal")
        # Samplers without "Karras" in their names have no schedule of their own here.
        self.opts.k_sched_type = "Automatic" if schedule == "normal" else schedule
        is_zero = run.get("zero_snr", False)
        self.model.parameterization = "v" if is_zero else "eps"
        if is_zero:
            self.model.alphas_cumprod = self.rescaled["rescale_zero_terminal_snr_abar"](self.model.alphas_cumprod)
        config = self.samplers[run["sampler"]]
        sampler = config.constructor(self.model)
        sampler.config = config
        denoiser = sampler.model_wrap_cfg
        denoiser.classic_ddim_eps_estimation = False
        if hasattr(sampler.model_wrap, "quantize"):
            sampler.model_wrap.quantize = False
        count, steps = run["images"], run["steps"]
        seeds = [run["seed"] + i for i in range(count)]
        # Steps of prompts count evaluations, as in processing.py.
        parser = self.text.parser
        total = config.total_steps(steps)
        positive = self.conditioning(run["prompt"], False, total)
        composable = parser.ComposableScheduledPromptConditioning(positive)
        positive = parser.MulticondLearnedConditioning((count,), [[composable]] * count)
        negative = [self.conditioning(run["negative"], True, total)] * count
        rng = sys.modules["modules.rng"].ImageRNG(shape(run), seeds)
        p = types.SimpleNamespace(
            **{"steps": steps, "cfg_scale": run["guidance"], "rng": rng, "all_seeds": seeds, "seeds": seeds, "iteration": 0},
            **{"batch_size": count, "eta": None, "extra_generation_params": {}, "sampler_noise_scheduler_override": None},
            **{"s_min_uncond": 0.0, "s_churn": 0.0, "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0},
            **{"refiner_switch_at": None, "refiner_checkpoint_info": None, "sampler": sampler},
        )
        return p, positive, negative


def forge_sample(self, denoiser_params, cond_scale, cond_composition):
    x, sigma = denoiser_params.x, denoiser_params.sigma
    cond, uncond = denoiser_params.text_cond, denoiser_params.text_uncond
    outputs = [self.inner_model(x, sigma, cond=each) for each in (cond, uncond)]
    return self.combine_denoised(torch.cat(outputs), cond_composition, uncond["crossattn"], cond_scale, sigma, x, cond)


def nothing_at_all(*_, **__):
    return None


def alphas_cumprod(pipeline):
    """LegacyDDPMDiscretization of sgm: betas in f64."""
    config = pipeline.scheduler.config
    betas = numpy.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps, dtype=numpy.float64) ** 2
    return torch.tensor(numpy.cumprod(1.0 - betas), dtype=torch.float32)


def main():
    forge, comfy, k_diffusion, torchsde, *out = sys.argv[1:]
    torch.set_num_threads(1)
    load_torchsde(torchsde)
    pipeline = load_pipeline(f"{GOLDEN}/model")
    tensors = {}
    stride = 1 if out else STRIDE
    runs = [USUAL | run for run in (every_sampler() if out else RUNS)]
    # One after the other: A1111 replaces a function of torchsde.
    for name, make in {"comfyui": lambda: Comfy(comfy, pipeline), "a1111": lambda: Forge(forge, k_diffusion, pipeline)}.items():
        tool = make()
        for run in runs:
            if run["name"].startswith(name):
                latents = tool.latents(run)
                tensors[run["name"]] = latents.float().flatten()[::stride].clone()
    notes = {"side": SIDE, "stride": stride, "runs": runs}
    save(out[0] if out else "tests/fixtures/compat", tensors, notes)


if __name__ == "__main__":
    main()
