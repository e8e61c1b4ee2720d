"""The decoder's own stage: it learns to draw crisply what the denoiser leaves in the latents.

Half of the latents are the encoder's, half were noised and cleaned by the trained denoiser in one
step, with its small errors. The encoder stays as the cached latents have it.
"""

import os
import random

import torch

from encode_latents import SPREAD
from models import alphas_cumprod, autoencoder
from optimizer import Muon
from replicas import Replicas
from scenes import training_example
from train_autoencoder import fresh_psnr, loss_of, to_tensor
from train_denoiser import Words

NOISIEST = 300  # timestep
CROP = 16  # latents: 128 pixels


def examples(rng, count):
    drawn = [training_example(rng, 256, 256) for _ in range(count)]
    return torch.cat([to_tensor(picture[None]) for picture, _ in drawn]), [w for _, w in drawn]


@torch.no_grad()
def cleaned(networks, words, latents, captions):
    """`latents` (scaled) after noise and one step of the denoiser."""
    timesteps = torch.randint(20, NOISIEST, (len(latents),))
    signal = alphas_cumprod()[timesteps].view(-1, 1, 1, 1)
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * torch.randn_like(latents)
    size = torch.tensor([[256.0, 256, 0, 0, 256, 256]]).repeat(len(latents), 1)
    with torch.autocast("cpu", torch.bfloat16):
        noise = networks(noisy, timesteps, *words.encode(captions), torch.ones(len(latents)), size)
    return (noisy - (1 - signal).sqrt() * noise.float()) / signal.sqrt()


class Loss:
    def __init__(self, networks, words):
        self.networks, self.words = networks, words

    def __call__(self, vae, share):
        x, captions, top, left = share
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latents = vae.quant_conv(vae.encoder(x))[:, :4].float() / SPREAD
        half = len(x) // 2
        latents[:half] = cleaned(self.networks, self.words, latents[:half], captions[:half])
        cut = latents[:, :, top:top + CROP, left:left + CROP] * SPREAD
        with torch.autocast("cpu", torch.bfloat16):
            made = vae.decoder(vae.post_quant_conv(cut))
        rows, columns = (slice(8 * start, 8 * (start + CROP)) for start in (top, left))
        return loss_of(made, x[:, :, rows, columns])


def train(pace, threads):
    from export import load_networks

    torch.manual_seed(5)
    state = pace.resume()
    vae = autoencoder()
    first = torch.load(os.path.join(pace.out, "latents.pt"), weights_only=False)["vae"]
    vae.load_state_dict(state["vae"] if state else first)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    replicas = Replicas(vae, threads)
    optimizer = Muon(vae, replicas.map, rate=0.003, plain_rate=5e-4)
    words = Words()
    loss_of_share = Loss(load_networks(pace.out, words), words)
    rng = random.Random(30 + pace.step)
    mean_loss = None
    while not pace.is_over:
        top, left = rng.randrange(0, 33 - CROP), rng.randrange(0, 33 - CROP)
        shares = [(*examples(rng, 4), top, left) for _ in range(threads)]
        scale = pace.begin_step()
        loss = replicas.backward(loss_of_share, shares)
        optimizer.step(scale)
        mean_loss = loss if mean_loss is None else 0.98 * mean_loss + 0.02 * loss
        pace.tell_sometimes(f"loss {mean_loss:.4f}")
        pace.save({"vae": vae.state_dict()}, every=120)
    pace.save({"vae": vae.state_dict()})
    pace.tell(f"done: fresh scenes' PSNR {fresh_psnr(vae, 16):.2f} dB")
