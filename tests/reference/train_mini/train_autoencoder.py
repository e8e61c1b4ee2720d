"""The autoencoder's stage: crops first, whole pictures at the end."""

import random

import numpy as np
import torch

from models import autoencoder
from optimizer import Muon
from replicas import Replicas
from scenes import training_example

SIZES = [(256, 256), (256, 256), (256, 256), (320, 192), (192, 320), (128, 128)]
# (share of the stage's time, side of the crops, pictures a step); the last sees whole pictures.
PHASES = [(0.5, 64, 24), (0.8, 128, 8), (1.0, 256, 2)]
LATENT_NOISE = 0.12  # at most, in the latents' own spread: the decoder learns to forgive


def pool_of(count, sizes, seed):
    """`count` pictures as (height, width, 3) bytes."""
    rng = random.Random(seed)
    return [training_example(rng, *sizes[index % len(sizes)])[0] for index in range(count)]


def crops(pool, side, count, rng):
    """Random crops, the busier of two each time: most of a picture is plain."""
    def one():
        picture = rng.choice(pool)
        rows, columns = (min(side, edge) for edge in picture.shape[:2])
        top = rng.randrange(0, picture.shape[0] - rows + 1)
        left = rng.randrange(0, picture.shape[1] - columns + 1)
        return picture[top:top + rows, left:left + columns]

    def busier():
        first, second = one(), one()
        return first if first.std() > second.std() else second

    chosen = [busier() for _ in range(count)]
    shapes = [crop.shape for crop in chosen]
    chosen = [crop for crop in chosen if crop.shape == shapes[0]]
    return to_tensor(np.stack(chosen))


def to_tensor(pictures):
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous()


def loss_of(made, asked):
    """L1, L1 of differences (edges stay edges), and squares, which PSNR counts."""
    error = made.float() - asked
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 0.5 * (across + down) + 2.0 * (error**2).mean()


def noisy(latents):
    amount = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1) * latents.detach().std()
    return latents + amount * torch.randn_like(latents)


def loss_of_crops(vae, x):
    with torch.autocast("cpu", torch.bfloat16):
        latents = vae.quant_conv(vae.encoder(x))[:, :4].float()
        made = vae.decoder(vae.post_quant_conv(noisy(latents)))
    return loss_of(made, x) + 2e-4 * (latents**2).mean()


def train(pace, threads):
    torch.manual_seed(1)
    replicas = Replicas(autoencoder(), threads)
    vae = replicas.module
    optimizer = Muon(vae, replicas.map, rate=0.02, plain_rate=2e-3)
    state = pace.resume()
    if state:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
    pool = pool_of(1500, SIZES, seed=11)
    rng = random.Random(12 + pace.step)
    mean_loss = None
    while not pace.is_over:
        share = pace.spent / pace.minutes
        _, side, count = next(phase for phase in PHASES if share < phase[0] or phase[0] == 1.0)
        x = crops(pool, side, count, rng)
        scale = pace.begin_step()
        loss = replicas.backward(loss_of_crops, x.chunk(threads))
        optimizer.step(scale)
        mean_loss = loss if mean_loss is None else 0.98 * mean_loss + 0.02 * loss
        pace.tell_sometimes(f"side {side} loss {mean_loss:.4f}")
        if pace.step % 250 == 0:
            pace.tell(f"fresh scenes' PSNR {fresh_psnr(vae):.2f} dB")
        pace.save({"vae": vae.state_dict(), "optimizer": optimizer.state_dict()}, every=120)
    pace.save({"vae": vae.state_dict(), "optimizer": optimizer.state_dict()})
    pace.tell(f"done: fresh scenes' PSNR {fresh_psnr(vae, 32):.2f} dB")


@torch.no_grad()
def fresh_psnr(vae, count=4):
    """Mean PSNR of whole 256x256 scenes that training never saw."""
    values = []
    for picture in pool_of(count, [(256, 256)], seed=99):
        x = to_tensor(picture[None])
        with torch.autocast("cpu", torch.bfloat16):
            made = vae.decoder(vae.post_quant_conv(vae.quant_conv(vae.encoder(x))[:, :4]))
        error = (made.float().clamp(-1, 1) - x).square().mean().item() / 4
        values.append(-10 * np.log10(error))
    return float(np.mean(values))
