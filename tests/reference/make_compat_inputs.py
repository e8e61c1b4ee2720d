"""Records images that start from another, with and without masks, as ComfyUI and A1111 make them, for
tests/native/compat-inputs.test.ts.

Their own code runs as in make_compat.py: nodes, masks, noise levels and samplers; of A1111 processing.py from pixels to
latents. The VAE is the golden model's, whose mean both take: they sample it with numbers that no seed decides. What Forge
does otherwise than A1111 with a mask is replaced (see `denoiser`).
Clones of all (bare ones will do), and lark, scipy, opencv-python-headless:
python tests/reference/make_compat_inputs.py sd-webui-forge-classic ComfyUI k-diffusion torchsde [OUT]
Writes tests/fixtures/compat-inputs.*; with OUT every sampler, whole.
"""

import ast
import math
import sys
import types

import cv2
import numpy
import torch
from harness import encode_mean, load_pipeline, save
from make_compat import A1111_SAMPLERS, COMFY_SAMPLERS, GOLDEN, SIDE, USUAL, Comfy, Forge, functions, load_torchsde, source
from make_inputs import mask, nine_channels, picture
from PIL import Image, ImageFilter, ImageOps

STRIDE = 17
# Tool, what, sampler, schedule or none, steps, strength.
RUNS = """
comfyui image euler normal 6 0.6
comfyui image dpmpp_2m_sde karras 5 0.7
comfyui mask euler normal 6 1
comfyui mask dpmpp_2m karras 5 0.6
comfyui mask euler_ancestral simple 5 0.8
comfyui mask uni_pc normal 6 0.7
comfyui blank euler normal 5 1
comfyui blank dpmpp_sde karras 4 0.9
comfyui nine euler normal 5 1
comfyui nine dpmpp_2m karras 5 0.6
comfyui nine heun normal 4 0.8
a1111 image Euler - 8 0.6
a1111 image DPM++_2M_SDE karras 8 0.7
a1111 image DDIM - 8 0.6
a1111 image UniPC - 8 0.7
a1111 mask Euler - 8 0.6
a1111 mask DPM++_2M karras 8 1
a1111 mask Euler_a - 8 0.75
a1111 mask DDIM - 8 0.75
a1111 mask PLMS - 9 0.75
a1111 nine Euler - 8 0.75
a1111 nine DPM++_2M karras 8 0.6
a1111 nine Heun - 6 1
a1111 fill Euler - 6 0.75
a1111 noise Euler_a - 6 0.75
a1111 nothing DPM++_2M karras 6 0.75
a1111 part Euler - 6 0.6
""".strip().splitlines()

# What A1111 is asked for in some of them, with a blurred mask.
A1111_SETTINGS = {
    "fill": {"inpainting_fill": 0},
    "noise": {"inpainting_fill": 2},
    "nothing": {"inpainting_fill": 3},
    "part": {"inpainting_fill": 0, "inpaint_full_res": True, "inpaint_full_res_padding": 5},
}
BLUR = {"mask_blur_x": 4, "mask_blur_y": 4, "mask_blur": 4}


def every_sampler():
    for tool, samplers in {"comfyui": COMFY_SAMPLERS, "a1111": A1111_SAMPLERS}.items():
        for sampler in samplers:
            for what, strength in [("image", 0.7), ("mask", 1), ("mask", 0.6), ("nine", 0.8)]:
                schedule = "-" if sampler in ("DDIM", "PLMS", "UniPC") else "karras"
                yield f"{tool} {what} {sampler.replace(' ', '_')} {schedule} 9 {strength}"


def run_of(name):
    tool, what, sampler, schedule, steps, strength = name.split()
    run = USUAL | {"name": name, "tool": tool, "what": what, "steps": int(steps), "strength": float(strength)}
    run["sampler"] = sampler.replace("_", " ") if tool == "a1111" else sampler
    return run | ({} if schedule == "-" else {"schedule": schedule})


def methods(repository, path, owner, wanted, scope):
    """Methods of a class as functions, without the rest of the file."""
    tree = ast.parse(source(repository, path))
    found = next(node for node in tree.body if getattr(node, "name", None) == owner)
    tree.body = [node for node in found.body if getattr(node, "name", None) in wanted]
    exec(compile(tree, path, "exec"), scope)
    return scope


class ComfyInputs(Comfy):
    def __init__(self, repository, pipeline):
        super().__init__(repository, pipeline)
        self.pipeline, self.unet = pipeline, pipeline.unet
        self.nine = nine_channels(pipeline.unet)
        wanted = {"VAEEncodeForInpaint", "SetLatentNoiseMask", "InpaintModelConditioning"}
        self.nodes = functions(repository, "nodes.py", wanted)
        self.nodes["node_helpers"] = types.SimpleNamespace(conditioning_set_values=lambda _, values: values)
        names = {"common_upscale", "reshape_mask", "repeat_to_batch_size", "resize_to_batch_size"}
        utils = functions(repository, "comfy/utils.py", names)
        self.utils = types.SimpleNamespace(**{name: utils[name] for name in names})
        scope = {"torch": torch, "utils": self.utils}
        self.concat_cond = methods(repository, "comfy/model_base.py", "BaseModel", {"concat_cond"}, scope)["concat_cond"]
        self.concat_keys = ("mask", "masked_image")
        self.downscale_ratio = 8

    def encode(self, pixels):
        """The node's VAE, whose latents have the sampler's factor here."""
        return encode_mean(self.pipeline, pixels.movedim(-1, 1) * 2 - 1)

    def process_latent_in(self, latent):
        return latent

    def latents(self, run):
        pixels = torch.from_numpy(picture().astype(numpy.float32) / 255)[None]
        grey = torch.from_numpy(mask().astype(numpy.float32) / 255)[None]
        self.networks.unet, self.networks.conditions = self.unet, None
        conditions = {}
        if run["what"] == "image":
            latent = {"samples": self.encode(pixels)}
        elif run["what"] == "mask":
            latent = self.nodes["SetLatentNoiseMask"]().set_mask({"samples": self.encode(pixels)}, grey)[0]
        elif run["what"] == "blank":
            latent = self.nodes["VAEEncodeForInpaint"]().encode(self, pixels, grey, 6)[0]
        else:
            node = self.nodes["InpaintModelConditioning"]()
            conditions, _, latent = node.encode([], [], pixels, self, grey)
        start = latent["samples"]
        noise_mask = latent.get("noise_mask")
        if noise_mask is not None:
            noise_mask = self.utils.reshape_mask(noise_mask, start.shape)
        if run["what"] == "nine":
            self.networks.unet = self.nine
            given = {"noise": start, "latent_image": start, "denoise_mask": noise_mask, "device": "cpu"}
            self.networks.conditions = self.concat_conditions(given | conditions)
        return self.sampled(run, start, run["strength"], noise_mask)

    def concat_conditions(self, given):
        stub = types.SimpleNamespace(CONDNoiseShape=lambda data: data)
        scope = self.concat_cond.__globals__
        scope["comfy"] = types.SimpleNamespace(conds=stub)
        return self.concat_cond(self, **given)


class ForgeInputs(Forge):
    def __init__(self, repository, k_diffusion, pipeline):
        super().__init__(repository, k_diffusion, pipeline)
        self.repository, self.pipeline, self.unet = repository, pipeline, pipeline.unet
        self.nine = nine_channels(pipeline.unet)
        self.opts.__dict__.update(
            **{"img2img_fix_steps": False, "img2img_extra_noise": 0, "img2img_color_correction": False},
            **{"save_init_img": False, "img2img_background_color": "#ffffff", "sd_vae_encode_method": "Full"},
            **{"upscaler_for_img2img": None, "inpainting_mask_weight": 1.0},
        )
        denoiser = sys.modules["modules.sd_samplers_cfg_denoiser"]
        denoiser.CFGDenoiser.forward = self.denoiser(denoiser)
        self.processing = self.load_processing()

    def denoiser(self, module):
        """CFGDenoiser.forward with A1111's masks: Forge mixes noise of no seed into what the model reads; A1111 mixes the
        latent into what it predicts, but for samplers of timesteps, where it mixes it into what the model reads."""
        text = source(self.repository, "modules/sd_samplers_cfg_denoiser.py")
        blends = "self.mask is not None:"
        assert text.count(blends) == 2 and text.count("x = x * self.nmask + noisy_initial_latent * self.mask") == 1
        first, second, third = text.split(f"if {blends}")
        text = f"{first}if self.mask_before_denoising and {blends}{second}if not self.mask_before_denoising and {blends}{third}"
        text = text.replace("+ noisy_initial_latent * self.mask", "+ self.init_latent * self.mask")
        scope = dict(module.__dict__)
        exec(compile(text, "sd_samplers_cfg_denoiser.py", "exec"), scope)
        return scope["CFGDenoiser"].forward

    def load_processing(self):
        masking = types.ModuleType("modules.masking")
        exec(compile(source(self.repository, "modules/masking.py"), "masking.py", "exec"), masking.__dict__)
        images = functions(self.repository, "modules/images.py", {"resize_image"})
        images.update(Image=Image, LANCZOS=Image.LANCZOS, opts=self.opts, flatten=lambda image, _: image)
        path = "modules/processing.py"
        scope = functions(self.repository, path, {"create_binary_mask", "uncrop", "apply_overlay"})
        nothing = types.SimpleNamespace(torch_gc=lambda: None, cond_cast_float=lambda x: x)
        scope.update(
            **{"Image": Image, "ImageOps": ImageOps, "ImageFilter": ImageFilter, "cv2": cv2, "masking": masking},
            **{"images": types.SimpleNamespace(**images), "opts": self.opts, "shared": sys.modules["modules.shared"]},
            **{"devices": nothing, "approximation_indexes": {"Full": 0}, "LatentDepth2ImageDiffusion": int, "opt_f": 8},
            **{"sd_samplers": types.SimpleNamespace(create_sampler=lambda *_: self.job_sampler)},
            **{"images_tensor_to_samples": lambda pixels, *_: self.encoded(pixels * 2 - 1)},
            **{"create_random_tensors": lambda shape, seeds: sys.modules["modules.rng"].ImageRNG(shape, seeds).next()},
            **{"apply_token_merging": lambda *_: None},
        )
        self.model.model.state_dict = dict
        self.model.__dict__.update(
            **{"cond_stage_key": "txt", "dtype": torch.float32, "get_first_stage_encoding": lambda x: x},
            **{"encode_first_stage": self.encoded},
            **{"forge_objects_after_applying_lora": types.SimpleNamespace(shallow_copy=lambda: self.model.forge_objects)},
        )
        own = {"init", "sample"}
        methods(self.repository, path, "StableDiffusionProcessingImg2Img", own, scope)
        shared = {"inpainting_image_conditioning", "img2img_image_conditioning"}
        own_functions = {name: scope[name] for name in own}
        methods(self.repository, path, "StableDiffusionProcessing", shared, scope)
        return scope | own_functions

    def encoded(self, pixels):
        return encode_mean(self.pipeline, pixels)

    def latents(self, run):
        p, positive, negative = self.job(run)
        self.job_sampler = p.sampler
        p.sampler.model_wrap_cfg.mask_before_denoising = run["sampler"] in ("DDIM", "PLMS", "UniPC")
        self.networks.unet, self.networks.conditions = self.unet, None
        has_mask = run["what"] != "image"
        is_nine = run["what"] == "nine"
        p.sampler.conditioning_key = "concat" if is_nine else "crossattn"
        p.__dict__.update(
            **{"sd_model": self.model, "scripts": None, "modified_noise": None, "initial_noise_multiplier": 1.0},
            **{"denoising_strength": run["strength"], "sampler_name": run["sampler"], "latent_mask": None, "mask": None},
            **{"image_mask": Image.fromarray(mask()) if has_mask else None, "mask_round": True, "overlay_images": None},
            **{"inpainting_mask_invert": 0, "mask_blur_x": 0, "mask_blur_y": 0, "mask_blur": 0, "resize_mode": 0},
            **{"inpaint_full_res": False, "inpaint_full_res_padding": 32, "inpainting_fill": 1, "color_corrections": None},
            **{"width": SIDE, "height": SIDE, "init_images": [Image.fromarray(picture())], "nmask": None},
        )
        if run["what"] in A1111_SETTINGS:
            p.__dict__.update(BLUR | A1111_SETTINGS[run["what"]])
        p.get_token_merging_ratio = lambda: 0
        for name in ("inpainting_image_conditioning", "img2img_image_conditioning"):
            setattr(p, name, types.MethodType(self.processing[name], p))
        self.processing["init"](p, ["prompt"], p.all_seeds, p.all_seeds)
        if is_nine:
            self.networks.unet, self.networks.conditions = self.nine, p.image_conditioning
        return self.processing["sample"](p, positive, negative, p.seeds, p.seeds, 0, ["prompt"])


def main():
    forge, comfy, k_diffusion, torchsde, *out = sys.argv[1:]
    torch.set_num_threads(1)
    load_torchsde(torchsde)
    pipeline = load_pipeline(f"{GOLDEN}/model")
    names = list(every_sampler()) if out else RUNS
    stride = 1 if out else STRIDE
    rows = {}
    tools = {
        "comfyui": lambda: ComfyInputs(comfy, pipeline),
        "a1111": lambda: ForgeInputs(forge, k_diffusion, pipeline),
    }
    # One after the other: A1111 replaces a function of torchsde.
    for name, make in tools.items():
        tool = make()
        for run in map(run_of, names):
            if run["tool"] == name:
                rows[run["name"]] = tool.latents(run).float().flatten()[::stride]
    notes = {"stride": stride, "runs": names}
    # One tensor of all has one name.
    tensors = rows if out else {"latents": torch.stack([rows[name] for name in names])}
    save(out[0] if out else "tests/fixtures/compat-inputs", tensors, notes)


if __name__ == "__main__":
    main()
