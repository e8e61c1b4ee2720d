"""Regenerates the golden model's weights, and the recipe from which the tests write them.

The weights are diffusers' and transformers' own initial values after torch.manual_seed(0), text
encoders first, then the UNet, then the VAE; every vector (norms and biases) is moved by 0.1 times
torch.randn of a generator seeded with 1. tests/fixtures/golden/weights.json lists for each tensor
the offsets of its numbers in those two streams of the Mersenne Twister, and their factor;
src/bench/support/golden-model.ts implements it.

PyTorch takes logarithms and cosines with a vector routine that is an f32 unit off here and there.
Where this moves the stored f16 number, `off` lists [index, bits].

Run from the repository root: python tests/reference/make_golden_model.py
"""

import hashlib
import json
import math
import os
import tempfile

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

GOLDEN = "tests/fixtures/golden"
NOISE = 0.1
FILES = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}


class Recorder(TorchDispatchMode):
    """Where in the stream of random numbers each tensor's last call begins, by the tensor's address."""

    def __init__(self):
        super().__init__()
        self.offset = 0
        self.calls = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if name in ("aten.uniform_.default", "aten.normal_.default"):
            tensor, count = args[0], args[0].numel()
            kind = "normal" if "normal" in name else "uniform"
            _, low, high = [*args, *([0.0, 1.0][len(args) - 1 :])]  # PyTorch cuts default arguments off
            factor = high
            assert low == (0 if "normal" in name else -high) or high == 1.0
            self.calls[tensor.data_ptr()] = (kind, self.offset, count, factor)
            # A normal tensor whose size is no multiple of 16 draws its last 16 numbers again.
            assert "uniform" in name or (count >= 16 and count % 16 == 0)
            self.offset += count
        return function(*args, **(kwargs or {}))


def make_models(recorder):
    def config(name):
        with open(f"{GOLDEN}/model/{name}/config.json") as file:
            return json.load(file)

    torch.manual_seed(0)
    with recorder:
        return {
            "text_encoder": CLIPTextModel(CLIPTextConfig(**config("text_encoder"))),
            "text_encoder_2": CLIPTextModelWithProjection(
                CLIPTextConfig(**config("text_encoder_2"))
            ),
            "unet": UNet2DConditionModel.from_config(config("unet")),
            "vae": AutoencoderKL.from_config(config("vae")),
        }


def recipe_of(parameter, recorder, noise_offset):
    """[shape, kind, offset, factor] and for vectors the offset of their noise."""
    shape, vector = list(parameter.shape), parameter.ndim == 1
    if vector and bool((parameter == parameter[0]).all()):
        recipe = [shape, "constant", 0, float(parameter[0])]
    else:
        kind, offset, count, factor = recorder.calls[parameter.data_ptr()]
        assert count == parameter.numel()
        recipe = [shape, kind, offset, factor]
    return recipe + [noise_offset] if vector else recipe


def main():
    recorder = Recorder()
    models = make_models(recorder)
    generator = torch.Generator("cpu").manual_seed(1)
    recipes, tensors, noise_offset = {}, {}, 0
    for component, model in models.items():
        recipes[component], tensors[component] = {}, {}
        for name, parameter in model.named_parameters():
            count = parameter.numel()
            recipes[component][name] = recipe_of(parameter.data, recorder, noise_offset)
            value = parameter.data
            if parameter.ndim == 1:
                value = value + NOISE * torch.randn(parameter.shape, generator=generator)
                # Fewer than 16 numbers come in pairs of two f64 draws each.
                noise_offset += count + 16 * (count % 16 != 0) if count >= 16 else 4 * ((count + 1) // 2)
            tensors[component][name] = value.half()
    write(recipes, tensors, streams={0: recorder.offset, 1: noise_offset})


def write(recipes, tensors, streams):
    draws = {seed: raw_stream(seed, count) for seed, count in streams.items()}
    lines = []
    for component, stem in FILES.items():
        path = f"{component}/{stem}.safetensors"
        sha256 = file_sha256(tensors[component], f"{GOLDEN}/model/{path}")
        entries = []
        for name, recipe in sorted(recipes[component].items()):
            ours = formula(recipe, draws).reshape(-1).view(np.uint16)
            theirs = tensors[component][name].numpy().reshape(-1).view(np.uint16)
            off = [[int(i), int(theirs[i])] for i in np.nonzero(ours != theirs)[0]]
            entry = {"from": recipe} | ({"off": off} if off else {})
            entries.append(f"  {json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}")
        print(f"{component}: {len(entries)} tensors, sha256 {sha256}")
        head = f'{{"path": {json.dumps(path)}, "sha256": "{sha256}", "tensors": {{\n'
        lines.append(head + ",\n".join(entries) + "\n }}")
    counts = ", ".join(str(count) for count in streams.values())
    with open(f"{GOLDEN}/weights.json", "w") as file:
        file.write(f'{{"draws": [{counts}], "files": [\n ' + ",\n ".join(lines) + "\n]}\n")


def file_sha256(tensors, path):
    """Writes the file, unless one with the same bytes is there, and returns its SHA-256."""
    with tempfile.TemporaryDirectory() as folder:
        made = os.path.join(folder, "model.safetensors")
        save_file(tensors, made, metadata={"format": "pt"})
        with open(made, "rb") as file:
            content = file.read()
    sha256 = hashlib.sha256(content).hexdigest()
    if os.path.exists(path):
        with open(path, "rb") as file:
            assert file.read() == content, f"{path} is another model's"
    else:
        with open(path, "wb") as file:
            file.write(content)
    return sha256


def raw_stream(seed, count):
    """The 32-bit numbers of PyTorch's CPU generator."""
    twister = np.random.MT19937()
    twister._legacy_seeding(seed)
    return twister.random_raw(count + 16).astype(np.uint32)


def formula(recipe, draws):
    """The arithmetic of src/bench/support/golden-model.ts: f16 numbers, all arithmetic in f64."""
    shape, kind, offset, factor = recipe[:4]
    count = math.prod(shape)
    raw = draws[0][offset : offset + count]
    if kind == "constant":
        values = np.full(count, factor)
    elif kind == "uniform":
        values = np.float32((raw & 0xFFFFFF) * 2.0**-24 * (2 * factor) - factor)
    else:
        values = np.float32(box_muller((raw & 0xFFFFFF) * 2.0**-24) * factor)
    if len(recipe) > 4:
        noise = normals(draws[1], recipe[4], count)
        values = np.float32(np.float32(values) + np.float32(np.float32(NOISE) * np.float32(noise)))
    return np.float16(values)


def normals(raw, offset, count):
    if count < 16:
        words = raw[offset : offset + 4 * ((count + 1) // 2)].astype(np.uint64)
        doubles = ((words[0::2] << np.uint64(32)) | words[1::2]) & np.uint64(2**53 - 1)
        u = doubles.astype(np.float64) * 2.0**-53
        radius, angle = np.sqrt(-2 * np.log1p(-u[1::2])), 2 * np.pi * u[0::2]
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)[:count]
    u = (raw[offset : offset + count] & 0xFFFFFF) * 2.0**-24
    whole = box_muller(u[: count - count % 16])
    if count % 16 == 0:
        return whole
    tail = box_muller((raw[offset + count : offset + count + 16] & 0xFFFFFF) * 2.0**-24)
    return np.concatenate([whole[: count - 16], tail])


def box_muller(u):
    """Sixteen at a time: eight radii, then eight angles."""
    u = u.reshape(-1, 2, 8)
    radius, angle = np.sqrt(-2 * np.log(1 - u[:, 0])), 2 * np.pi * u[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)


main()
