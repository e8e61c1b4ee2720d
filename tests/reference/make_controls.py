"""Records images that hints steer in diffusers, for tests/native/controls.test.ts.

Run from the repository root: python tests/reference/make_controls.py
Writes tests/fixtures/controls.*: latents of the golden model with one ControlNet, a small one, two
at once, union ones of six and eight types with a hint and with two, and a T2I-Adapter, whose weights follow from formula_weights.py by their names and shapes.
The hint follows from its places alone.
"""

import diffusers
import numpy
import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetUnionPipeline,
    T2IAdapter,
)
from formula_weights import formula_tensor
from harness import load_pipeline, save
from PIL import Image

SIDE = 64  # pixels
SEED = 3
STRIDE = 17
STEPS = 5
SAMPLERS = [
    ("euler", "EulerDiscreteScheduler"),
    ("dpmpp_2m", "DPMSolverMultistepScheduler"),
    ("euler_a", "EulerAncestralDiscreteScheduler"),
]
# The ControlNets of a run: kind, scale, start, end; of a union one each hint, with its type.
RUNS = {
    "plain": [("plain", 0.7, 0.0, 1.0)],
    "small": [("small", 1.0, 0.2, 0.8)],
    "two": [("plain", 0.7, 0.0, 0.6), ("small", 0.5, 0.2, 1.0)],
    "union": [("union", 0.7, 0.0, 1.0, 3)],
    "pair": [("union", 0.7, 0.0, 1.0, 1), ("union", 0.5, 0.0, 1.0, 3)],
    "promax": [("promax", 0.7, 0.0, 0.8, 6)],
    "promax_pair": [("promax", 0.9, 0.0, 1.0, 7), ("promax", 0.4, 0.0, 1.0, 0)],
    "adapter": [("adapter", 0.8, 0.0, 0.8)],
}
# Types of hints.
TYPES = {"union": 6, "promax": 8}


def hint(turn):
    y, x, c = numpy.mgrid[0:SIDE, 0:SIDE, 0:3]
    values = ((3 * x + 7 * y + 50 * c + x * y // 16) % 256).astype(numpy.uint8)
    return Image.fromarray(values[:, ::-1].copy() if turn else values)


def adapter():
    made = T2IAdapter(
        in_channels=3, channels=[32, 64, 128, 128], num_res_blocks=2, downscale_factor=16,
        adapter_type="full_adapter_xl",
    )
    return with_formula(made.eval(), "adapter")


def with_formula(made, kind):
    state = made.state_dict()
    for name, value in state.items():
        state[name] = torch.from_numpy(formula_tensor(f"control_{kind}", name, tuple(value.shape)))
    made.load_state_dict(state)
    return made


def network(kind, unet):
    own = dict(unet.config)
    for key in ["up_block_types", "out_channels", "sample_size"]:
        own.pop(key)
    own["conditioning_embedding_out_channels"] = (8, 16, 24, 32)
    if kind == "small":
        own["down_block_types"] = ["DownBlock2D"] * 3
        own["mid_block_type"] = "UNetMidBlock2D"
    known = ControlNetUnionModel if kind in TYPES else ControlNetModel
    if kind in TYPES:
        own |= {"num_control_type": TYPES[kind], "num_trans_channel": 32, "num_proj_channel": 32}
    return with_formula(known.from_config(own).eval(), kind)


def guidance(what, scales, starts, ends):
    if what == "adapter":
        return {
            "adapter_conditioning_scale": scales[0],
            "adapter_conditioning_factor": ends[0],
        }
    one = len(scales) == 1
    return {
        "controlnet_conditioning_scale": scales[0] if one else scales,
        "control_guidance_start": starts[0] if one else starts,
        "control_guidance_end": ends[0] if one else ends,
    }


def main():
    torch.set_num_threads(1)
    own = load_pipeline("tests/fixtures/golden/model")
    parts = ["vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet"]
    shared = {name: getattr(own, name) for name in parts}
    shared["force_zeros_for_empty_prompt"] = own.config.force_zeros_for_empty_prompt
    shared["add_watermarker"] = False
    nets = {kind: network(kind, own.unet) for kind in ["plain", "small", *TYPES]}
    nets["adapter"] = adapter()
    tensors, notes = {}, []
    for what, uses in RUNS.items():
        is_union = uses[0][0] in TYPES
        used = [nets[kind] for kind, *_ in (uses[:1] if is_union else uses)]
        known = (
            StableDiffusionXLControlNetUnionPipeline
            if is_union
            else StableDiffusionXLControlNetPipeline
        )
        pipeline = (
            StableDiffusionXLAdapterPipeline(adapter=used[0], scheduler=own.scheduler, **{
                name: part for name, part in shared.items() if name != "add_watermarker"
            })
            if what == "adapter"
            else known(
                controlnet=used if len(used) > 1 else used[0], scheduler=own.scheduler, **shared
            )
        )
        pipeline.set_progress_bar_config(disable=True)
        for name, kind in SAMPLERS:
            pipeline.scheduler = getattr(diffusers, kind).from_config(own.scheduler.config)
            images = [hint(i) for i in range(len(uses))]
            scales, starts, ends = (list(each) for each in zip(*[use[1:4] for use in uses]))
            one = len(uses) == 1
            types = [use[4] for use in uses if is_union]
            hints = {"control_image": images, "control_mode": types} if is_union else {
                "image": images[0] if one else images
            }
            latents = pipeline(
                "a red circle",
                negative_prompt="blurry",
                num_inference_steps=STEPS,
                guidance_scale=5.0,
                generator=torch.Generator("cpu").manual_seed(SEED),
                output_type="latent",
                width=SIDE,
                height=SIDE,
                **hints,
                **guidance(what, scales, starts, ends),
            ).images
            run = f"{what}_{name}"
            tensors[run] = latents.flatten()[::STRIDE]
            notes.append({"name": run, "what": what, "scheduler": name})
    note = {"side": SIDE, "seed": SEED, "stride": STRIDE, "steps": STEPS}
    uses = {what: [list(use) for use in uses] for what, uses in RUNS.items()}
    save("tests/fixtures/controls", tensors, note | {"uses": uses, "runs": notes})


if __name__ == "__main__":
    main()
