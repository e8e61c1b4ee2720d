"""Writes tests/fixtures/original-headers.br: every tensor of single-file checkpoints of the SDXL
family, with its shape and the key that diffusers' own conversion gives it.

Names that could be in such a file are given to diffusers' conversion; those that become a key of
the model count. Needs diffusers, transformers, torch and brotli.

    python tests/reference/make_original_headers.py
"""

import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import brotli
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
BASE = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": [PLAIN, CROSS, CROSS],
    "projection_class_embeddings_input_dim": 2816,
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
}
# As the config.json of each repository on the hub.
VARIANTS = {
    "base": {},
    "inpainting": {"in_channels": 9},
    "refiner": {
        "attention_head_dim": [6, 12, 24, 24],
        "block_out_channels": [384, 768, 1536, 1536],
        "cross_attention_dim": 1280,
        "down_block_types": [PLAIN, CROSS, CROSS, PLAIN],
        "projection_class_embeddings_input_dim": 2560,
        "transformer_layers_per_block": 4,
    },
    "SSD-1B": {
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [1, [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    },
    "Vega": {
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [1, [1, 1], [2, 2]],
        "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1],
    },
    "KOALA-700M": {
        "layers_per_block": 1,
        "mid_block_type": None,
        "transformer_layers_per_block": [1, 2, 5],
    },
    "KOALA-1B": {"layers_per_block": 1, "transformer_layers_per_block": [1, 2, 6]},
}


class Named:
    """Stands for a tensor: remembers its key, and its part where it is cut."""

    def __init__(self, key, part=""):
        self.key, self.part, self.shape = key, part, (3, 3)

    def __getitem__(self, index):
        first = index[0] if isinstance(index, tuple) else index
        start, stop = (first.start, first.stop) if first != slice(None) else (None, None)
        third = {(None, 3): "0", (3, 6): "1", (6, None): "2"}.get((start, stop), "")
        return Named(self.key, third)

    T = property(lambda self: Named(self.key, "T"))
    clone = detach = contiguous = lambda self: self


def unet_lines(changes):
    config = {**BASE, **changes}
    ups = [kind.replace("Down", "Up") for kind in reversed(config["down_block_types"])]
    with torch.device("meta"):
        model = UNet2DConditionModel(**{**config, "up_block_types": ups})
    ends = ["weight", "bias"]
    resnet = [f"{p}.{e}" for p in RESNET for e in ends]
    layers = [f"transformer_blocks.{n}.{p}" for n in range(10) for p in TRANSFORMER]
    attention = [f"{p}.{e}" for p in ["norm", "proj_in", "proj_out", *layers] for e in ends]
    inner = [*resnet, *attention]
    names = [f"input_blocks.{i}.{j}.{p}" for i, j, p in product(range(12), range(2), inner)]
    names += [f"middle_block.{i}.{p}" for i, p in product(range(3), inner)]
    names += [f"output_blocks.{i}.{j}.{p}" for i, j, p in product(range(12), range(2), inner)]
    for i, e in product(range(12), ends):
        names.append(f"input_blocks.{i}.0.op.{e}")
        # An upsampler is the last module of its block.
        block = i // (model.config.layers_per_block + 1)
        has_attention = block < len(ups) and ups[block].startswith("CrossAttn")
        names.append(f"output_blocks.{i}.{2 if has_attention else 1}.conv.{e}")
    plain = ["time_embed.0", "time_embed.2", "label_emb.0.0", "label_emb.0.2"]
    plain += ["input_blocks.0.0", "out.0", "out.2"]
    names += [f"{p}.{e}" for p, e in product(plain, ends)]
    wanted = model.state_dict()
    given = {f"model.diffusion_model.{name}": Named(name) for name in names}
    converted = convert_ldm_unet_checkpoint(given, model.config)
    found = {k: v.key for k, v in converted.items() if k in wanted and v is not None}
    assert found.keys() == wanted.keys(), sorted(wanted.keys() - found.keys())[:9]
    prefix = "model.diffusion_model."
    return [[prefix + found[k], list(v.shape), k] for k, v in wanted.items()]


RESNET = ["in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"]
RESNET += ["skip_connection"]
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TRANSFORMER = ["norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2"]
TRANSFORMER += [f"attn{i}.{p}" for i, p in product([1, 2], ATTENTION)]


def vae_lines():
    with torch.device("meta"):
        model = AutoencoderKL(
            block_out_channels=[128, 256, 512, 512],
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            layers_per_block=2,
        )
    ends = ["weight", "bias"]
    resnet = ["norm1", "conv1", "norm2", "conv2", "nin_shortcut"]
    names = ["quant_conv", "post_quant_conv"]
    for side in ["encoder", "decoder"]:
        names += [f"{side}.{p}" for p in ["conv_in", "norm_out", "conv_out"]]
        names += [f"{side}.mid.block_{i}.{p}" for i, p in product([1, 2], resnet)]
        names += [f"{side}.mid.attn_1.{p}" for p in ["norm", "q", "k", "v", "proj_out"]]
    for i in range(4):
        names += [f"encoder.down.{i}.block.{j}.{p}" for j, p in product(range(3), resnet)]
        names += [f"decoder.up.{i}.block.{j}.{p}" for j, p in product(range(4), resnet)]
        names += [f"encoder.down.{i}.downsample.conv", f"decoder.up.{i}.upsample.conv"]
    given = {f"first_stage_model.{n}.{e}": Named(f"{n}.{e}") for n, e in product(names, ends)}
    converted = convert_ldm_vae_checkpoint(given, model.config)
    wanted = model.state_dict()
    assert wanted.keys() <= converted.keys()
    lines = []
    for key, tensor in wanted.items():
        name, shape = converted[key].key, list(tensor.shape)
        # LDM's attention is of 1x1 convolutions.
        if ".attn_1." in name and len(shape) == 2:
            shape += [1, 1]
        lines.append([f"first_stage_model.{name}", shape, key])
    return lines


def clip_state(kind, **sizes):
    with torch.device("meta"):
        return kind(CLIPTextConfig(vocab_size=49408, **sizes)).state_dict()


def open_clip_lines(prefix):
    sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
    wanted = clip_state(
        CLIPTextModelWithProjection, num_attention_heads=20, projection_dim=1280, **sizes
    )
    ends = ["weight", "bias"]
    inner = [f"{p}.{e}" for p in ["ln_1", "ln_2", "attn.out_proj"] for e in ends]
    inner += [f"mlp.{p}.{e}" for p in ["c_fc", "c_proj"] for e in ends]
    inner += ["attn.in_proj_weight", "attn.in_proj_bias"]
    names = [f"transformer.resblocks.{i}.{p}" for i, p in product(range(32), inner)]
    names += ["positional_embedding", "token_embedding.weight", "text_projection"]
    names += ["ln_final.weight", "ln_final.bias"]
    # The third of in_proj is told by how it is cut: at 3 and 6, as `Named.shape` says.
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=3))
    converted = convert_open_clip_checkpoint(model, {prefix + n: Named(n) for n in names}, prefix)
    converted = {with_prefix(key): tensor for key, tensor in converted.items()}
    wanted = {with_prefix(key): tensor for key, tensor in wanted.items()}
    lines = []
    for key, tensor in wanted.items():
        if key.endswith("position_ids"):
            continue
        source = converted[key]
        shape = list(tensor.shape)
        if source.part in ["0", "1", "2"]:
            shape[0] *= 3
        lines.append([prefix + source.key, shape, key, source.part])
    return lines


def with_prefix(key):
    return key if key.startswith("text_") else f"text_model.{key}"


def clip_l_lines():
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    wanted = clip_state(CLIPTextModel, num_attention_heads=12, **sizes)
    prefix = "conditioner.embedders.0.transformer."
    keys = {with_prefix(k): list(v.shape) for k, v in wanted.items() if "position_ids" not in k}
    return [[prefix + key, shape, key] for key, shape in keys.items()]


def main():
    headers = {"unet": {name: unet_lines(changes) for name, changes in VARIANTS.items()}}
    headers["clip"] = clip_l_lines()
    headers["clip2"] = open_clip_lines("conditioner.embedders.1.model.")
    headers["vae"] = vae_lines()
    for name, lines in headers["unet"].items():
        print(name, len(lines))
    print(*[f"{name} {len(headers[name])}" for name in ["clip", "clip2", "vae"]])
    text = json.dumps(headers, separators=(",", ":"))
    compressed = brotli.compress(text.encode(), quality=11, lgwin=24)
    target = Path(__file__).parents[1] / "fixtures" / "original-headers.br"
    target.write_bytes(compressed)
    print(f"{len(text)} bytes, {len(compressed)} compressed")


main()
