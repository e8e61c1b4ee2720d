"""Records images with IP-Adapters by diffusers' pipeline, for tests/native/ip-adapter.test.ts.

    PYTHONPATH=DIFFUSERS/src python make_ip_adapter.py [DEBUG]

Writes tests/fixtures/ip-adapter.*: latents with the golden model and adapters of its sizes, whose
weights are those of formula_weights.py, plain and plus, of one image and of several. With DEBUG the
networks, their inputs and their tokens go to that folder, whole.
"""

import os
import sys

import diffusers
import numpy
import torch
from formula_weights import formula_tensor
from harness import load_pipeline, save
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SIDE = 64  # pixels
SEED = 5
ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 24,
    "hidden_act": "gelu",
}
EULER = "EulerDiscreteScheduler"
RUNS = [
    ("plain", "euler", EULER, ["plain"], [[0]], [0.7]),
    ("plain", "dpmpp_2m", "DPMSolverMultistepScheduler", ["plain"], [[0]], [0.7]),
    ("plain", "euler_a", "EulerAncestralDiscreteScheduler", ["plain"], [[0]], [0.7]),
    ("plus", "euler", EULER, ["plus"], [[0]], [0.7]),
    ("plus", "dpmpp_2m", "DPMSolverMultistepScheduler", ["plus"], [[0]], [0.7]),
    ("plus", "euler_a", "EulerAncestralDiscreteScheduler", ["plus"], [[0]], [0.7]),
    ("two images", "euler", EULER, ["plus"], [[0, 1]], [1.0]),
    ("two adapters", "euler", EULER, ["plain", "plus"], [[0], [1]], [0.4, 0.8]),
]


def picture(number):
    width, height = (50, 40) if number == 0 else (33, 61)
    y, x, c = numpy.mgrid[0:height, 0:width, 0:3]
    values = 5 * x + 3 * y + 70 * c + x * y // 8 + 90 * number
    return Image.fromarray((values % 256).astype(numpy.uint8))


def formula(component, shapes):
    return {
        name: torch.from_numpy(formula_tensor(component, name, tuple(shape)))
        for name, shape in shapes.items()
    }


def image_encoder():
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**ENCODER)).eval()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    shapes = {name: shape for name, shape in shapes.items() if "position_ids" not in name}
    state = formula("image_encoder", shapes)
    model.load_state_dict(state, strict=False)
    return model, state


def adapter_shapes(unet, kind):
    """Of a file as IP-Adapter's repository has it."""
    dim = unet.config.cross_attention_dim
    shapes = {"image_proj.norm.weight": [dim], "image_proj.norm.bias": [dim]}
    if kind == "plain":
        wide = 4 * dim
        shapes["image_proj.proj.weight"] = [wide, ENCODER["projection_dim"]]
        shapes["image_proj.proj.bias"] = [wide]
    else:
        shapes = resampler_shapes(dim)
    number = 1
    for name in unet.attn_processors:
        if "attn2" not in name:
            continue
        module = unet.get_submodule(name.removesuffix(".processor"))
        out = module.to_k.weight.shape[0]
        shapes[f"ip_adapter.{number}.to_k_ip.weight"] = [out, dim]
        shapes[f"ip_adapter.{number}.to_v_ip.weight"] = [out, dim]
        number += 2
    return shapes


def resampler_shapes(dim, tokens=6, hidden=48, inner=128):
    states = ENCODER["hidden_size"]
    shapes = {
        "latents": [1, tokens, hidden],
        "proj_in.weight": [hidden, states],
        "proj_in.bias": [hidden],
        "proj_out.weight": [dim, hidden],
        "proj_out.bias": [dim],
        "norm_out.weight": [dim],
        "norm_out.bias": [dim],
    }
    for i in range(4):
        for norm in ["0.norm1", "0.norm2", "1.0"]:
            shapes[f"layers.{i}.{norm}.weight"] = [hidden]
            shapes[f"layers.{i}.{norm}.bias"] = [hidden]
        shapes[f"layers.{i}.0.to_q.weight"] = [inner, hidden]
        shapes[f"layers.{i}.0.to_kv.weight"] = [2 * inner, hidden]
        shapes[f"layers.{i}.0.to_out.weight"] = [hidden, inner]
        shapes[f"layers.{i}.1.1.weight"] = [4 * hidden, hidden]
        shapes[f"layers.{i}.1.3.weight"] = [hidden, 4 * hidden]
    return {f"image_proj.{name}": shape for name, shape in shapes.items()}


def nested(state):
    parts = {"image_proj": {}, "ip_adapter": {}}
    for key, value in state.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    return parts


def main():
    torch.set_num_threads(1)
    debug = sys.argv[1] if len(sys.argv) > 1 else None
    encoder, encoder_state = image_encoder()
    side = ENCODER["image_size"]
    processor = CLIPImageProcessorPil(size=side, crop_size=side)
    tensors, notes, states = {}, [], {}
    for name, scheduler, kind, adapters, images, scales in RUNS:
        pipeline = load_pipeline("tests/fixtures/golden/model")
        pipeline.register_modules(image_encoder=encoder, feature_extractor=processor)
        for each in adapters:
            states[each] = formula(f"ip_adapter_{each}", adapter_shapes(pipeline.unet, each))
        loaded = [nested(states[each]) for each in adapters]
        pipeline.unet._load_ip_adapter_weights(loaded, low_cpu_mem_usage=False)
        pipeline.set_ip_adapter_scale(scales)
        config = pipeline.scheduler.config
        pipeline.scheduler = getattr(diffusers, kind).from_config(config)
        latents = pipeline(
            "a red circle",
            negative_prompt="blurry",
            width=SIDE,
            height=SIDE,
            ip_adapter_image=[[picture(number) for number in numbers] for numbers in images],
            num_inference_steps=4,
            guidance_scale=5.0,
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type="latent",
        ).images
        run = f"{name} {scheduler}"
        tensors[run] = latents.flatten()[::8]
        notes.append({"name": run, "scheduler": scheduler, "adapters": adapters,
                      "images": images, "scales": scales})
        if debug:
            pixels = processor([picture(number) for number in images[0]], return_tensors="pt")
            tensors[f"pixels {run}"] = pixels.pixel_values
            seen = encoder(pixels.pixel_values, output_hidden_states=True)
            layers = pipeline.unet.encoder_hid_proj.image_projection_layers
            for each, layer in zip(adapters, layers):
                states_seen = seen.image_embeds if each == "plain" else seen.hidden_states[-2]
                tensors[f"tokens {run} {each}"] = layer(states_seen)
    if debug:
        states["encoder"] = encoder_state
        states["out"] = {name: tensor.contiguous() for name, tensor in tensors.items()}
        for name, state in states.items():
            save_file(state, os.path.join(debug, f"{name}.safetensors"))
        return
    save("tests/fixtures/ip-adapter", tensors, {
        "side": SIDE, "seed": SEED, "stride": 8, "encoder": ENCODER, "runs": notes})


if __name__ == "__main__":
    main()
