"""Draws the training scenes and keeps their latents: the denoiser's stage never sees a pixel.

The latents' channels are brought to mean 0 and one spread, inside the 1x1 convolutions around them.
"""

import concurrent.futures
import os
import random

import numpy as np
import torch

from models import autoencoder
from scenes import training_example
from train_autoencoder import to_tensor

SPREAD = 2.0  # of latents before the scaling factor, so that there is one to apply
# (width, height): how many scenes
BUCKETS = {(128, 128): 6000, (256, 256): 4000, (320, 192): 500, (192, 320): 500}


def load_autoencoder(out):
    vae = autoencoder()
    vae.load_state_dict(torch.load(os.path.join(out, "vae.pt"), weights_only=False)["vae"])
    return vae.eval()


@torch.no_grad()
def encode(vae, pictures):
    with torch.autocast("cpu", torch.bfloat16):
        x = to_tensor(np.stack(pictures))
        return vae.quant_conv(vae.encoder(x))[:, :4].float()


@torch.no_grad()
def normalize(vae, sample):
    """Makes `sample`'s channels mean 0 and `SPREAD` wide, and undoes it in the decoder."""
    mean = sample.mean((0, 2, 3))
    factor = SPREAD / sample.std((0, 2, 3))
    into, back = vae.quant_conv, vae.post_quant_conv
    into.weight[:4] *= factor[:, None, None, None]
    into.bias[:4] = (into.bias[:4] - mean) * factor
    back.bias += (back.weight[:, :, 0, 0] * mean).sum(1)
    back.weight /= factor[None, :, None, None]
    vae.register_to_config(scaling_factor=1 / SPREAD)


def train(pace, threads):
    vae = load_autoencoder(pace.out)
    rng = random.Random(20)
    first = [training_example(rng, 256, 256)[0] for _ in range(64)]
    normalize(vae, torch.cat([encode(vae, first[i:i + 8]) for i in range(0, 64, 8)]))
    pool = concurrent.futures.ThreadPoolExecutor(
        threads, initializer=lambda: torch.set_num_threads(1))
    buckets = []
    for (width, height), count in BUCKETS.items():
        latents, captions = [], []
        for index in range(0, count, 16):
            pace.begin_step()
            examples = [training_example(rng, width, height) for _ in range(16)]
            pictures = [picture for picture, _ in examples]
            halves = pool.map(lambda some: encode(vae, some), (pictures[:8], pictures[8:]))
            latents += [(half / SPREAD).half() for half in halves]
            captions += [words for _, words in examples]
            pace.tell_sometimes(f"{width}x{height} {index + 16}/{count}")
        buckets.append({"size": (width, height), "latents": torch.cat(latents),
                        "captions": captions})
        pace.tell(f"{width}x{height} mean {buckets[-1]['latents'].float().mean():.3f} "
                  f"spread {buckets[-1]['latents'].float().std():.3f}")
    pace.save({"vae": vae.state_dict(), "buckets": buckets})
