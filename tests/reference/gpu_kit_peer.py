"""PyTorch's side of the GPU kit (docs/gpu-kit.md): the step of SDXL's UNet and the heaviest
operations of the kit's list, f16, channels_last, attention by scaled_dot_product_attention.

    gpu_kit_peer.py LIST.jsonl [--device cuda|cpu] [--seconds N]

Prints a line `figure NAME VALUE UNIT` for each, by tabs. torch.compile comes last, in a process of
its own that ends with the time that is left; its step needs neither diffusers nor transformers
(gpu_unet.py). --device cpu tests that it runs, with a tiny UNet; its times are the CPU's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

import gpu_peer
from gpu_unet import SDXL, Unet

OPERATION_COUNT, SAMPLE_COUNT = 10, 5
TINY = {**SDXL, "channels": (32, 64), "depths": (0, 1), "head_size": 16, "context": 32}


def figure(name, value, unit, how=""):
    """The script puts ours of the same name beside it."""
    print("figure", f"PyTorch{how}, {name}", f"{value:.4f}", unit, sep="\t", flush=True)


def measured(timer, call):
    """The median of several samples in milliseconds."""
    repeats = timer.repeats(call)
    return statistics.median(timer.once(call, repeats) for _ in range(SAMPLE_COUNT))


def unet_call(on_gpu, dtype, mode):
    config, side = (SDXL, 128) if on_gpu else (TINY, 16)
    unet = gpu_peer.randomized(lambda: Unet(config), dtype)
    unet = unet.to(memory_format=torch.channels_last)
    if mode:
        unet = torch.compile(unet, mode=mode, fullgraph=True)
    x = torch.randn(2, 4, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
    context = torch.randn(2, 77, config["context"], dtype=dtype)
    pooled = torch.randn(2, config["added"] - 6 * 256, dtype=dtype)
    ids, timestep = torch.full((2, 6), 1024.0), torch.tensor(601.0)
    return lambda: unet(x, timestep, context, pooled, ids)


def step(timer, dtype, mode):
    call = unet_call(timer.on_gpu, dtype, mode)
    name = "1024x1024: step" if timer.on_gpu else "tiny: step"
    figure(name, measured(timer, call), "ms", " compiled" if mode else " eager")


def operations(timer, dtype, path):
    """The heaviest that PyTorch has as one call."""
    done = 0
    for line in open(path):
        case = json.loads(line)
        o = case["operation"]
        if case["part"] == "ceiling" or o["op"] not in gpu_peer.MAKERS or done == OPERATION_COUNT:
            continue
        done += 1
        try:
            if timer.on_gpu:
                torch.cuda.empty_cache()
            figure(case["name"], 1e3 * measured(timer, gpu_peer.MAKERS[o["op"]](o, dtype)), "us")
        except Exception as error:
            print(f"{case['name']}: {' '.join(str(error).split())[:300]}", flush=True)


def compiled(seconds):
    """The compiled step in a process that ends in time."""
    if seconds < 10:
        print("torch.compile: no time was left", flush=True)
        return
    try:
        subprocess.run([*sys.orig_argv, "--compiled"], timeout=seconds, check=True)
    except subprocess.TimeoutExpired:
        print(f"torch.compile: not done in {seconds:.0f} s", flush=True)
    except subprocess.CalledProcessError as error:
        print(f"torch.compile: {error}", flush=True)


def main():
    start = time.monotonic()
    parser = argparse.ArgumentParser()
    parser.add_argument("list")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args()
    on_gpu = args.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU")
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    torch.set_default_device(args.device)
    torch.backends.cudnn.benchmark = True
    dtype = torch.float16 if on_gpu else torch.float32
    timer = gpu_peer.Timer(on_gpu)
    if args.compiled:
        return step(timer, dtype, "reduce-overhead" if on_gpu else "default")
    print(json.dumps(gpu_peer.about(args.device)), flush=True)
    step(timer, dtype, "")
    operations(timer, dtype, args.list)
    compiled(args.seconds - (time.monotonic() - start))


if __name__ == "__main__":
    main()
