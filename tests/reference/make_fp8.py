"""Records the golden model's outputs with weights in 8 bits: tests/fixtures/fp8.*.

The weights are quantized by PyTorch and widened by PyTorch again, times their scale, in f32. The
tests write the same files by themselves: fp8.json has the SHA-256 of each variant's numbers and
scales in the order of the keys, and that of PyTorch's widening of all 256 codes (NaN as 0x7fc00000),
which zig/weights/f8.zig is held to.

Run from the repository root: python tests/reference/make_fp8.py
"""

import hashlib

import numpy as np
import torch
from harness import forward_tensors, load_pipeline, save, text_tensors

FOLDER = "tests/fixtures/golden/model"
SIDE = 256  # pixels
PROMPT = "a photo of a red circle above a blue square"
NEGATIVE = "blurry, ugly"
TYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae")


def widening_hash(dtype):
    values = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    bits = values.numpy().view(np.uint32).copy()
    bits[values.isnan().numpy()] = 0x7FC00000
    return hashlib.sha256(bits.astype("<u4").tobytes()).hexdigest()


def scale_of(weight, dtype, scaling):
    """None for weights that are only cast."""
    if scaling is None:
        return None
    most = weight.abs().amax(dim=1, keepdim=True) if scaling == "rows" else weight.abs().amax()
    return most / torch.finfo(dtype).max


def quantize(network, dtype, scaling):
    """Rounds all tensors of the network, or with scales the linear layers' weights. The hash."""
    digest = hashlib.sha256()
    for _, weight in sorted(network.named_parameters()):
        if scaling is not None and weight.ndim != 2:
            continue
        scale = scale_of(weight, dtype, scaling)
        codes = (weight if scale is None else weight / scale).to(dtype)
        digest.update(codes.view(torch.uint8).numpy().tobytes())
        wide = codes.float()
        if scale is not None:
            digest.update(scale.numpy().astype("<f4").tobytes())
            wide = wide * scale
        weight.copy_(wide)
    return digest.hexdigest()


def main():
    notes = {"widening": {name: widening_hash(dtype) for name, dtype in TYPES.items()}}
    notes["variants"] = {}
    tensors = {}
    for name, scaling, networks in [
        ("e4m3", None, NETWORKS),
        ("e5m2", None, ("unet",)),
        ("e4m3", "tensor", ("unet",)),
        ("e5m2", "tensor", ("unet",)),
        ("e4m3", "rows", ("unet",)),
    ]:
        variant = f"{name}.{scaling or 'plain'}"
        pipeline = load_pipeline(FOLDER)
        hashes = {}
        for network in networks:
            hashes[network] = quantize(getattr(pipeline, network), TYPES[name], scaling)
        outputs = forward_tensors(pipeline, "golden", SIDE, SIDE)[1]
        if "text_encoder" in networks:
            outputs |= text_tensors(pipeline, PROMPT, NEGATIVE)
        for key, tensor in outputs.items():
            if key.startswith("unet") or len(networks) > 1:
                tensors[f"{variant}/{key}"] = tensor
        notes["variants"][variant] = hashes
    save("tests/fixtures/fp8", tensors, notes)


main()
