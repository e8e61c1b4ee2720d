"""A model of SDXL's size with random f16 weights, and PyTorch's outputs for it.

    make_full_size.py OUT       writes OUT/ (6.3 GB) as a diffusers folder, with OUT/reference.safetensors

It is not stored in the repository: `bun run bench parity --full-size OUT` compares with it. The
sizes are those of stable-diffusion-xl-base-1.0; the tokenizers are the small fixture's. Needs 16 GB.
"""

import json
import math
import os
import shutil
import sys
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

SMALL = os.path.join(os.path.dirname(__file__), "../fixtures/golden/model")
SIZES = {
    "unet": {
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "norm_num_groups": 32,
        "sample_size": 128,
        "transformer_layers_per_block": [1, 2, 10],
        "layers_per_block": 2,
    },
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "sample_size": 1024,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "text_encoder_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
    },
}
MAKERS = {
    "unet": UNet2DConditionModel.from_config,
    "vae": AutoencoderKL.from_config,
    "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
    "text_encoder_2": lambda config: CLIPTextModelWithProjection(CLIPTextConfig(**config)),
}


def weight(name, shape, generator):
    """Matrices that halve the variance of their input; norm weights 1, biases 0."""
    if len(shape) == 1:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    amplitude = math.sqrt(3 / math.prod(shape[1:])) * 0.7
    return (torch.rand(shape, generator=generator) * 2 - 1) * amplitude


def write_component(out, component):
    with open(f"{SMALL}/{component}/config.json") as file:
        config = json.load(file) | SIZES[component]
    with torch.device("meta"):
        model = MAKERS[component](config)
    os.makedirs(f"{out}/{component}", exist_ok=True)
    with open(f"{out}/{component}/config.json", "w") as file:
        json.dump(config, file, indent=1)
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: weight(name, value.shape, generator).half()
        for name, value in model.state_dict().items()
        if not name.endswith("position_ids")
    }
    stem = "model" if component.startswith("text") else "diffusion_pytorch_model"
    save_file(tensors, f"{out}/{component}/{stem}.safetensors")
    print(component, sum(value.numel() for value in tensors.values()), "parameters", flush=True)


def timed(what, call):
    start = time.time()
    result = call()
    print(f"{what}: {time.time() - start:.2f} s", flush=True)
    return result


def reference(out):
    """One UNet call and one decoding, 256x256, in f32."""
    generator = torch.Generator().manual_seed(3)
    sample = torch.randn(1, 4, 32, 32, generator=generator)
    embeds = torch.randn(1, 77, 2048, generator=generator)
    pooled = torch.randn(1, 1280, generator=generator)
    time_ids = torch.tensor([[256.0, 256.0, 0.0, 0.0, 256.0, 256.0]])
    timestep = torch.tensor([601.0])
    load = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    unet = UNet2DConditionModel.from_pretrained(f"{out}/unet", **load)
    conditions = {"text_embeds": pooled, "time_ids": time_ids}
    call = lambda: unet(
        sample, timestep, encoder_hidden_states=embeds, added_cond_kwargs=conditions
    ).sample
    timed("UNet, first call", call)
    noise = timed("UNet, second call", call)
    del unet
    vae = AutoencoderKL.from_pretrained(f"{out}/vae", **load)
    latent = sample * vae.config.scaling_factor
    image = timed("VAE decode", lambda: vae.decode(latent / vae.config.scaling_factor).sample)
    pixels = torch.rand(1, 3, 256, 256, generator=generator) * 2 - 1
    mean = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
    tensors = {
        "unet.sample": sample,
        "unet.timestep": timestep,
        "unet.encoder_hidden_states": embeds,
        "unet.text_embeds": pooled,
        "unet.time_ids": time_ids,
        "unet.out": noise,
        "vae.latent": latent,
        "vae.image": image,
        "vae.encode_image": pixels,
        "vae.encode_mean": mean,
    }
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save_file(tensors, f"{out}/reference.safetensors")


def main():
    out = sys.argv[1]
    torch.set_grad_enabled(False)
    torch.set_num_threads(os.cpu_count())
    for name in ("tokenizer", "tokenizer_2", "scheduler"):
        shutil.copytree(f"{SMALL}/{name}", f"{out}/{name}", dirs_exist_ok=True)
    shutil.copy(f"{SMALL}/model_index.json", out)
    for component in SIZES:
        write_component(out, component)
    reference(out)


if __name__ == "__main__":
    main()
