"""Records the noise of torchsde's Brownian trees as k-diffusion's samplers read it, for tests/native/brownian.test.ts.

Usage: python tests/reference/make_brownian.py TORCHSDE COMFYUI FORGE
(a checkout; bare or plain repositories of ComfyUI and sd-webui-forge-classic; torch, numpy)
Writes tests/fixtures/brownian.json: the first latents of a batch (ComfyUI's prepare_noise), A1111's variation of one,
and for each case a hash of all numbers and torch's own at some places. The hash is of torchsde's arithmetic over normal numbers whose logarithm,
sine and cosine are of 64 bits, with square roots that are rounded correctly, as on GPUs: torch's own on a CPU are those
of the machine's vector instructions, and differ in the last place of f32. The numbers at some places are over torch's
own (on a GPU: its documented algorithm).
"""

import ast
import hashlib
import json
import subprocess
import sys
import types
import warnings

import numpy as np
import torch

OUT = "tests/fixtures/brownian.json"
SHAPE = (4, 8, 8)
PROBES = [0, 1, 7, 8, 17, 63, 100, 255]
KARRAS = [14.614643, 7.3911147, 3.4396093, 1.4320135, 0.51281315, 0.14958704, 0.029167514]
# Two evaluations per step: the first goes to a level within the step, as sample_dpmpp_sde does.
MIDDLE = [(14.614643, 9.2), (14.614643, 5.7915106), (5.7915106, 3.1), (5.7915106, 1.0), (1.0, 0.029167514)]


def pairs(levels):
    return list(zip(levels, levels[1:]))


CASES = {
    "karras": {"seeds": [5], "levels": pairs(KARRAS)},
    "middle": {"seeds": [2**40 + 7], "levels": MIDDLE},
    # Levels whose sixth digit is a matter of rounding, and steps as short as the tree resolves (shorter ones have no
    # end in torchsde).
    "close": {"seeds": [0], "levels": pairs([2.0, 1.999999, 1.9999966, 1.0000025, 0.0000025, 0.0000011])},
    # Zero terminal SNR in ComfyUI: nodes whose key has more than 32 bits.
    "wide": {"seeds": [2**63 - 1], "levels": pairs([4518.7568, 80.25, 3.5, 0.03])},
    "whole": {"seeds": [3], "levels": [(14.614643, 0.029167514), (0.029167514, 14.614643)]},
    # ComfyUI: one tree of the batch.
    "batch": {"seeds": [9], "images": 3, "levels": pairs(KARRAS[:3])},
    # A1111: a tree for each image.
    "images": {"seeds": [9, 10], "images": 2, "levels": pairs(KARRAS[:3])},
    "cuda": {"seeds": [42], "rng": "cuda", "levels": pairs(KARRAS)},
    "cuda-batch": {"seeds": [42], "rng": "cuda", "images": 2, "levels": pairs(KARRAS[:3])},
}


class TailCall(Exception):
    def __init__(self, call):
        self.call = call


def run(call):
    """The package trampoline: runs generators that yield calls of generators."""
    stack, value = [call], None
    while stack:
        try:
            stack.append(stack[-1].send(value))
            value = None
        except TailCall as tail:
            stack[-1], value = tail.call, None
        except StopIteration as stop:
            stack.pop()
            value = stop.value
    return value


def exact_normals(radii, angles):
    """Box and Muller in f64; `radii` and `angles` are the f32 numbers that torch makes."""
    radius = np.sqrt(-2.0 * np.log(radii.astype(np.float64)))
    angle = angles.astype(np.float64)
    return (radius * np.cos(angle)).astype(np.float32), (radius * np.sin(angle)).astype(np.float32)


def exact_cpu(count, seed):
    """torch's normal_fill, for a multiple of 16 numbers."""
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(seed)).numpy().reshape(-1, 2, 8)
    turn = np.float32(2) * np.float32(np.pi)
    return np.stack(exact_normals(np.float32(1) - uniform[:, 0], turn * uniform[:, 1]), axis=1).reshape(-1)


def exact_cuda(count, seed):
    """torch.randn on a CUDA device: Philox4x32-10, element i the first number of subsequence i."""
    mask = np.uint64(0xFFFFFFFF)
    c = [np.zeros(count, np.uint64), np.zeros(count, np.uint64), np.arange(count, dtype=np.uint64)]
    c.append(np.zeros(count, np.uint64))
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        shift = np.uint64(32)
        c = [(b >> shift) ^ c[1] ^ np.uint64(key[0]), b & mask, (a >> shift) ^ c[3] ^ np.uint64(key[1]), a & mask]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    unit = np.float32(2.0**-32)
    turn = np.float32(unit * np.float32(6.2831855))
    # A fused multiply-add: the sums are exact in f64.
    fused = lambda x, scale: (x.astype(np.float32).astype(np.float64) * float(scale) + float(scale) / 2).astype(np.float32)
    return exact_normals(fused(c[0], unit), fused(c[1], turn))[1]


def names_of(repository, path, names):
    """Functions and classes of a file, without running the rest of it."""
    shown = subprocess.run(["git", "-C", repository, "show", f"HEAD:{path}"], capture_output=True, check=True)
    tree = ast.parse(shown.stdout)
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    import torchsde

    scope = {"torch": torch, "torchsde": torchsde, "np": np}
    exec(compile(tree, path, "exec"), scope)
    return scope


def noise_of(sampler, case):
    images = case.get("images", 1)
    levels = torch.tensor([level for pair in case["levels"] for level in pair], dtype=torch.float32)
    seeds = case["seeds"] if len(case["seeds"]) > 1 else case["seeds"][0]
    x = torch.zeros(images, *SHAPE)
    sample = sampler(x, levels.min(), levels.max(), seed=seeds, cpu=True)
    steps = [sample(*levels[i : i + 2]) for i in range(0, len(levels), 2)]
    return torch.stack(steps).numpy()


def main():
    warnings.simplefilter("ignore")  # Levels beyond those of the path, which are rounded to 6 digits.
    sys.modules["trampoline"] = types.SimpleNamespace(trampoline=run, TailCall=TailCall)
    sys.path.insert(0, sys.argv[1])
    classes = {"BatchedBrownianTree", "BrownianTreeNoiseSampler"}
    sampler = names_of(sys.argv[2], "comfy/k_diffusion/sampling.py", classes)["BrownianTreeNoiseSampler"]
    prepare = names_of(sys.argv[2], "comfy/sample.py", {"prepare_noise"})["prepare_noise"]
    import torchsde._brownian.brownian_interval as interval

    own, own_sqrt = interval._randn, torch.Tensor.sqrt
    exact = {"cpu": exact_cpu, "cuda": exact_cuda}
    out = {"shape": SHAPE, "probes": PROBES, "cases": {}}
    for name, case in CASES.items():
        fill = exact[case.get("rng", "cpu")]
        interval._randn = lambda size, dtype, device, seed: torch.from_numpy(
            fill(int(np.prod(size)), int(seed))
        ).reshape(size)
        torch.Tensor.sqrt = lambda x: torch.tensor(np.sqrt(x.numpy()))
        numbers = noise_of(sampler, case)
        torch.Tensor.sqrt = own_sqrt
        digest = hashlib.sha256(numbers.tobytes()).hexdigest()
        if "rng" not in case:
            interval._randn = own
            numbers = noise_of(sampler, case)
        flat = numbers.reshape(len(case["levels"]), -1)
        probes = [[round(float(row[i]), 6) for i in PROBES] for row in flat]
        record = {**case, "seeds": [str(seed) for seed in case["seeds"]], "sha256": digest, "noise": probes}
        out["cases"][name] = record
    first = prepare(torch.zeros(3, *SHAPE), 9).reshape(3, -1)
    out["batch"] = {"seed": 9, "noise": [[round(float(row[i]), 6) for i in PROBES] for row in first]}
    slerp = names_of(sys.argv[3], "modules/rng.py", {"slerp"})["slerp"]
    low, high = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in (5, 77))
    between = slerp(0.3, low, high).reshape(-1)
    noise = [round(float(between[i]), 6) for i in PROBES]
    out["variation"] = {"seed": 5, "other": 77, "strength": 0.3, "noise": noise}
    with open(OUT, "w") as file:
        json.dump(out, file)
        file.write("\n")


main()
